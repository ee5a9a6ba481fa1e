package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/modeltest"
	"github.com/winnow-llm/winnow/tensor"
)

var (
	guessing = modeltest.MiMo{Vocab: 320, Dim: 32, Layers: 2, Seed: 3}                         // whose head knows as little as the network
	blurred  = modeltest.MiMo{Vocab: 320, Dim: 64, Layers: 2, Seed: 3, Chain: true, Blur: 0.9} // whose head is right at times
	chained  = modeltest.MiMo{Vocab: 320, Dim: 64, Layers: 2, Seed: 3, Chain: true}            // whose head is right
)

// headed loads a network and its head, which have limits of their own, on devices of their own or on one.
func headed(t *testing.T, o modeltest.MiMo, lim, own model.Limits, d tensor.Device) (m, head *model.Model) {
	t.Helper()
	c := o.Checkpoint()
	m, err := model.Load(c, model.Placement{Device: d}, model.Options{DType: model.Float32, Limits: lim})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if head, err = m.LoadHead(model.Options{Limits: own}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(head.Close)
	return m, head
}

// A head changes no token and nothing that is said of it, whatever the sampling, be it right or wrong: alone, in a batch, in chunks, after prefix hits
// and preemptions, with too few rows and pages.
func TestHeadChangesNothing(t *testing.T) {
	all := drafted()
	wanted := map[modeltest.MiMo][][]Token{}
	for _, o := range []modeltest.MiMo{guessing, chained} {
		for i, r := range all {
			m, _ := headed(t, o, ample, ample, tensor.Reference())
			e := opened(t, m, NoDrafts)
			got, err := collect(e.Generate(t.Context(), r))
			if err != nil {
				t.Fatal(err)
			}
			e.Close()
			if wanted[o] = append(wanted[o], got); i%8 == 7 {
				all[i].Draft = -1
			}
		}
	}
	own := model.Limits{Rows: 150, Sequences: 16, Wanted: 16, Pages: 100, Context: 256}
	for name, c := range map[string]struct {
		of       modeltest.MiMo
		lim, own model.Limits
		minP     float32
		least    float64 // of what is drafted, the share that holds
	}{
		"right":           {chained, model.Limits{Rows: 512, Sequences: 16, Wanted: 150, Pages: 100, Context: 256}, own, 0, 0.6},
		"wrong":           {guessing, model.Limits{Rows: 512, Sequences: 16, Wanted: 150, Pages: 100, Context: 256}, own, 0, 0},
		"right, few rows": {chained, model.Limits{Rows: 37, Sequences: 6, Wanted: 30, Pages: 20, Context: 256}, model.Limits{Rows: 19, Sequences: 6, Wanted: 6, Pages: 20, Context: 256}, 0, 0.6},
		"wrong, few rows": {guessing, model.Limits{Rows: 37, Sequences: 6, Wanted: 30, Pages: 20, Context: 256}, model.Limits{Rows: 19, Sequences: 6, Wanted: 6, Pages: 20, Context: 256}, 0, 0},
		"few pages":       {chained, model.Limits{Rows: 64, Sequences: 6, Wanted: 64, Pages: 4, Context: 256}, own, 0, 0.6},
		"fewer":           {chained, model.Limits{Rows: 64, Sequences: 6, Wanted: 64, Pages: 20, Context: 256}, model.Limits{Rows: 64, Sequences: 6, Wanted: 6, Pages: 4, Context: 192}, 0, 0.6},
		"few of both":     {guessing, model.Limits{Rows: 37, Sequences: 6, Wanted: 64, Pages: 4, Context: 256}, model.Limits{Rows: 23, Sequences: 6, Wanted: 6, Pages: 4, Context: 256}, 0.1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m, head := headed(t, c.of, c.lim, c.own, tensor.Reference())
			e := drafting(t, m, Always, Drafter{Model: head, MinP: c.minP})
			few := name == "few pages" || name == "few of both"
			for round := 0; round < 2 || few && round < 9 && e.Usage().Preempted == 0; round++ {
				for i, got := range together(t, e, all) {
					if err := same(got, wanted[c.of][i]); err != nil {
						t.Errorf("request %d of %d tokens: %v", i, len(all[i].Prompt), err)
					}
				}
			}
			u := e.Usage()
			t.Logf("%d preempted, %d cached; %+v", u.Preempted, u.Cached, u.ByHead)
			if u.ByHead.Drafted < 100 || u.ByHead.Rows == 0 || u.ByHead.Failed != 0 || u.ByModel != (DraftCounts{}) {
				t.Errorf("%+v", u.ByHead)
			}
			if share := float64(u.ByHead.Accepted) / float64(max(1, u.ByHead.Drafted)); share < c.least || c.least == 0 && share > 0.5 {
				t.Errorf("%d of %d held", u.ByHead.Accepted, u.ByHead.Drafted)
			}
			if name == "few pages" && u.Preempted == 0 { // with few of both whether it happens is a matter of time
				t.Error("nobody was preempted")
			}
			left(t, e)
		})
	}
}

// A head that is right has nearly all of what it foretells accepted, so that an answer takes a fraction of the steps; as deep as it is asked.
func TestHeadIsRight(t *testing.T) {
	lim := model.Limits{Rows: 64, Sequences: 2, Wanted: 18, Pages: 20, Context: 512}
	for _, deep := range []int{1, 3, MostDraft} {
		m, head := headed(t, chained, lim, lim, tensor.Reference())
		e := drafting(t, m, Always, Drafter{Model: head, Most: deep})
		r := Request{Prompt: []int32{11, 200, 7}, MaxTokens: 200, Alternatives: -1}
		got, err := collect(e.Generate(t.Context(), r))
		if err != nil {
			t.Fatal(err)
		}
		last := int32(7)
		for i, tok := range got {
			if last = chained.Next(last); tok.ID != last {
				t.Fatalf("token %d is %d, want %d: the network does not know its chain", i, tok.ID, last)
			}
		}
		u := e.Usage()
		if u.ByHead.Accepted < 99*u.ByHead.Drafted/100 || u.Steps > int64(200/(deep+1)+5) || u.Drafted != u.ByHead.Drafted {
			t.Errorf("%d at once: %d steps; %+v", deep, u.Steps, u.ByHead)
		}
		left(t, e)
	}
}

// What a head has of a prompt is the same, and foretells the same, whether it computed all of it, in one step or in many, found it in its prefix tree, or had
// it taken away by a preemption in between.
func TestHeadFindsPrefixes(t *testing.T) {
	lim := model.Limits{Rows: 64, Sequences: 2, Wanted: 18, Pages: 40, Context: 512}
	first := Request{Prompt: prose(150), MaxTokens: 45, Alternatives: -1, Sampling: Sampling{Temperature: 0.5, Seed: 1}}
	again := Request{MaxTokens: 60, Alternatives: -1, Sampling: Sampling{Temperature: 0.5, Seed: 2}}
	m, _ := headed(t, blurred, lim, lim, tensor.Reference())
	plain := opened(t, m, NoDrafts)
	said, err := collect(plain.Generate(t.Context(), first))
	if err != nil {
		t.Fatal(err)
	}
	again.Prompt = slices.Clone(first.Prompt)
	for _, tok := range said {
		again.Prompt = append(again.Prompt, tok.ID)
	}
	want, err := collect(plain.Generate(t.Context(), again))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(e *Engine, r Request) (Usage, DraftCounts) {
		t.Helper()
		before := e.Usage().ByHead
		got, err := collect(e.Generate(t.Context(), r))
		if err != nil {
			t.Fatal(err)
		}
		if r.MaxTokens == again.MaxTokens {
			if err := same(got, want); err != nil {
				t.Error(err)
			}
		}
		u := e.Usage()
		return u, DraftCounts{Drafted: u.ByHead.Drafted - before.Drafted, Accepted: u.ByHead.Accepted - before.Accepted, Rows: u.ByHead.Rows - before.Rows}
	}
	fresh := func(lim model.Limits) *Engine {
		m, head := headed(t, blurred, lim, lim, tensor.Reference())
		return drafting(t, m, Always, Drafter{Model: head, MinP: 0.1})
	}
	_, whole := ask(fresh(lim), again)
	if whole.Accepted == 0 || whole.Accepted == whole.Drafted {
		t.Fatalf("nothing can be told apart: %+v", whole)
	}
	small := lim
	small.Rows = 17
	if _, parts := ask(fresh(small), again); parts.Drafted != whole.Drafted || parts.Accepted != whole.Accepted {
		t.Errorf("in parts %+v, at once %+v", parts, whole)
	}
	e := fresh(lim)
	ask(e, first)
	u, found := ask(e, again)
	if u.Cached < 128 || found.Drafted != whole.Drafted || found.Accepted != whole.Accepted || found.Rows > whole.Rows-128 {
		t.Errorf("%d cached: %+v, at once %+v", u.Cached, found, whole)
	}
	left(t, e)

	e = fresh(lim) // where the head's own pages are lost it begins behind what is found
	ask(e, first)
	e.turn.Lock()
	d := e.scheduler.drafts.model
	for d.pool.idle.Len() > 0 {
		id := d.pool.idle.Front().Value.(int32)
		d.pool.forget(id)
		d.pool.free = append(d.pool.free, id)
	}
	e.turn.Unlock()
	u, late := ask(e, again)
	if u.Cached < 128 || late.Drafted == 0 || late.Rows > whole.Rows-128 {
		t.Errorf("%d cached: %+v, at once %+v", u.Cached, late, whole)
	}
	left(t, e)
}

// What a head leaves in pages that may be shared is, to the bit, what it has of the same tokens as a prompt: also where it foretold them, went on by its own
// states, and was right.
func TestHeadLeavesNothingInPages(t *testing.T) {
	o := blurred
	o.Blur = 0.8
	lim := model.Limits{Rows: 64, Sequences: 2, Wanted: 18, Pages: 40, Context: 512}
	var want []byte
	ids := prose(20)
	for turn := range 2 {
		m, head := headed(t, o, lim, lim, tensor.Reference())
		e := drafting(t, m, Always, Drafter{Model: head})
		got, err := collect(e.Generate(t.Context(), Request{Prompt: ids, MaxTokens: []int{255, 20}[turn], Alternatives: -1}))
		if err != nil {
			t.Fatal(err)
		}
		if u := e.Usage().ByHead; turn == 0 && (u.Accepted < 20 || u.Accepted == u.Drafted) {
			t.Errorf("%+v", u)
		}
		left(t, e)
		if turn == 0 {
			ids = slices.Clone(ids)
			for _, tok := range got {
				ids = append(ids, tok.ID)
			}
		}
		e.turn.Lock()
		d := e.scheduler.drafts.model
		sh := newShadow(&sequence{tokens: ids, limit: len(ids)}, 0, d)
		sh.sync()
		d.pool.adopt(&sh.seq)
		if len(sh.seq.pages) != 4 {
			t.Errorf("%d pages are found, want 4", len(sh.seq.pages))
		}
		bytes := make([]byte, len(sh.seq.pages)*head.PageBytes())
		for i, page := range sh.seq.pages {
			head.ReadPage(page, bytes[i*head.PageBytes():][:head.PageBytes()])
		}
		err = head.Queue().Sync()
		d.pool.release(&sh.seq)
		e.turn.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if turn == 0 {
			want = bytes
		} else if !slices.Equal(bytes, want) {
			t.Error("pages of what was drafted have other bits")
		}
	}
}

// A head whose device fails, and requests that leave at any time, harm no answer and leave nothing behind.
func TestHeadInAStorm(t *testing.T) {
	r := Request{Prompt: prose(40), MaxTokens: 60, Alternatives: -1, Sampling: Sampling{Temperature: 1, Seed: 4}}
	lim := model.Limits{Rows: 24, Sequences: 4, Wanted: 20, Pages: 12, Context: 256}
	m, _ := headed(t, chained, ample, ample, tensor.Reference())
	plain := opened(t, m, NoDrafts)
	want, err := collect(plain.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	var syncs atomic.Int64
	var failing atomic.Bool // once it is loaded
	m, _ = headed(t, chained, lim, lim, tensor.Reference())
	stage := &stage{Device: tensor.Reference(), atSync: func() error {
		if failing.Load() && syncs.Add(1)%23 == 0 {
			return errors.New("out of order")
		}
		return nil
	}}
	_, head := headed(t, chained, lim, lim, stage) // of another model of the same weights
	failing.Store(true)
	e := drafting(t, m, Always, Drafter{Model: head})
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			if i%3 == 0 {
				if got, err := collect(e.Generate(t.Context(), r)); err != nil || same(got, want) != nil {
					t.Errorf("%v, %v", err, same(got, want))
				}
				return
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n := 0
			for range e.Generate(ctx, Request{Prompt: prose(10 * i), MaxTokens: 40, Alternatives: -1}) {
				if n++; n == 3*i {
					cancel()
				}
			}
		})
	}
	all.Wait()
	if u := e.Usage(); u.ByHead.Failed == 0 || u.ByHead.Accepted == 0 {
		t.Errorf("%+v", u.ByHead)
	}
	left(t, e)
}

// By the clock a head is asked where it is right, and after some tries no more where it is wrong, and answers are the same.
func TestHeadByTheClock(t *testing.T) {
	lim := model.Limits{Rows: 64, Sequences: 2, Wanted: 18, Pages: 20, Context: 256}
	r := Request{Prompt: prose(30), MaxTokens: 150, Alternatives: -1, Sampling: Sampling{Temperature: 0.6, Seed: 3}}
	for name, c := range map[string]struct {
		of   modeltest.MiMo
		most time.Duration // 150 tokens twice, of 5 ms each without drafts
	}{
		"right": {chained, 900 * ms}, "wrong": {guessing, 1530 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := headed(t, c.of, ample, ample, tensor.Reference())
			want, err := collect(opened(t, m, NoDrafts).Generate(t.Context(), r))
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				var wait atomic.Int64
				s := &stage{Device: tensor.Reference(), atSync: func() error { time.Sleep(time.Duration(wait.Load())); return nil }}
				m, _ := headed(t, c.of, lim, lim, s)
				quick := &stage{Device: tensor.Reference(), atSync: func() error { time.Sleep(ms / 2); return nil }}
				_, head := headed(t, c.of, lim, lim, quick)
				wait.Store(int64(5 * ms / 2)) // a step waits twice
				e := drafting(t, m, ByModel, Drafter{Model: head, MinP: 0.3})
				started := time.Now()
				for range 2 {
					got, err := collect(e.Generate(t.Context(), r))
					if err == nil {
						err = same(got, want)
					}
					if err != nil {
						t.Error(err)
					}
				}
				u, took := e.Usage(), time.Since(started)
				t.Logf("%v; %+v", took, u.ByHead)
				if took > c.most || u.ByHead.Drafted == 0 {
					t.Errorf("%v; %+v", took, u.ByHead)
				}
				left(t, e)
			})
		})
	}
}

// What a prompt feeds a head is digested in parts while others generate, who are not kept waiting for all of it.
func TestHeadIsFedInParts(t *testing.T) {
	lim := model.Limits{Rows: 256, Sequences: 2, Wanted: 18, Pages: 20, Context: 512}
	own := model.Limits{Rows: 16, Sequences: 2, Wanted: 2, Pages: 20, Context: 512}
	synctest.Test(t, func(t *testing.T) {
		m, _ := headed(t, chained, lim, own, &stage{Device: tensor.Reference(), atSync: func() error { time.Sleep(ms / 4); return nil }})
		_, head := headed(t, chained, lim, own, &stage{Device: tensor.Reference(), atSync: func() error { time.Sleep(30 * ms); return nil }})
		e := drafting(t, m, Always, Drafter{Model: head, Most: 1})
		var all sync.WaitGroup
		for _, n := range []int{1, 250} {
			all.Go(func() {
				time.Sleep(time.Duration(n) * ms)
				if _, err := collect(e.Generate(t.Context(), Request{Prompt: prose(n), MaxTokens: 80, Alternatives: -1})); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		u := e.Usage()
		for i, n := range u.Gap.Counts {
			if n > 0 && i > slices.Index(u.Gap.Bounds, 0.15) {
				t.Errorf("%d gaps beyond %v s", n, u.Gap.Bounds[i-1])
			}
		}
		if u.ByHead.Accepted < 60 || u.ByHead.Rows < 250+u.ByHead.Drafted {
			t.Errorf("%+v", u.ByHead)
		}
		left(t, e)
	})
}

// prose is a prompt of n tokens of which none foretells the next one.
func prose(n int) []int32 {
	prompt := make([]int32, n)
	for i := range prompt {
		prompt[i] = int32((i*i*7 + 3*i + 11) % 320)
	}
	return prompt
}
