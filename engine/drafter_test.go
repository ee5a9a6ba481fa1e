package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// tiny is one of the checkpoints of model/testdata.
func tiny(t *testing.T, name string, lim model.Limits, d tensor.Device) *model.Model {
	t.Helper()
	c, err := store.Open("../model/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(c, model.Placement{Device: d}, model.Options{DType: model.Float32, Limits: lim})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// drafting is an engine of its own loop whose tokens a draft model foretells.
func drafting(t *testing.T, m *model.Model, how Drafting, d Drafter) *Engine {
	l := NewLoop()
	t.Cleanup(l.Close)
	return l.Open(m, Options{Check: true, Queue: 16, Draft: how, Drafter: &d})
}

// left says what a drafter holds once its engine's requests are over.
func left(t *testing.T, e *Engine) {
	t.Helper()
	empty(t, e)
	for range 100 { // the loop looks once more
		e.turn.Lock()
		e.mu.Lock()
		d := e.scheduler.drafts.model
		n, err := d.pool.used(), d.check()
		e.mu.Unlock()
		e.turn.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the draft model's pages are still held")
}

// A draft model changes no token and nothing that is said of it, whatever the sampling: neither one that thinks alike, whose tokens all hold, nor
// one that knows nothing, nor one with too few pages or ids; alone, in a batch, in chunks, after prefix hits and preemptions.
func TestDraftModelChangesNothing(t *testing.T) {
	all := drafted()
	wanted := map[string][][]Token{}
	for _, name := range []string{"qwen3_moe", "llama_tied"} {
		for i, r := range all {
			e := opened(t, tiny(t, name, ample, tensor.Reference()), NoDrafts)
			got, err := collect(e.Generate(t.Context(), r))
			if err != nil {
				t.Fatal(err)
			}
			e.Close()
			if wanted[name] = append(wanted[name], got); i%8 == 7 {
				all[i].Draft = -1
			}
		}
	}
	own := model.Limits{Rows: 150, Sequences: 16, Wanted: 16, Pages: 100, Context: 256}
	for name, c := range map[string]struct {
		target, draft string
		lim, own      model.Limits
		minP          float32
		least         float64 // of what is drafted, the share that holds
	}{
		"alike":      {"qwen3_moe", "qwen3_moe", model.Limits{Rows: 512, Sequences: 16, Wanted: 150, Pages: 100, Context: 256}, own, 0, 1},
		"few rows":   {"qwen3_moe", "qwen3_moe", model.Limits{Rows: 37, Sequences: 6, Wanted: 30, Pages: 20, Context: 256}, model.Limits{Rows: 19, Sequences: 6, Wanted: 6, Pages: 20, Context: 256}, 0, 1},
		"few pages":  {"qwen3_moe", "qwen3_moe", model.Limits{Rows: 64, Sequences: 6, Wanted: 64, Pages: 4, Context: 256}, own, 0, 1},
		"fewer":      {"qwen3_moe", "qwen3_moe", model.Limits{Rows: 64, Sequences: 6, Wanted: 64, Pages: 20, Context: 256}, model.Limits{Rows: 64, Sequences: 6, Wanted: 6, Pages: 4, Context: 192}, 0, 1},
		"unlike":     {"qwen3_moe", "qwen3", model.Limits{Rows: 64, Sequences: 6, Wanted: 40, Pages: 40, Context: 256}, own, 0, 0},
		"wider":      {"qwen3_moe", "llama_tied", model.Limits{Rows: 64, Sequences: 6, Wanted: 40, Pages: 40, Context: 256}, own, 0, 0},
		"narrower":   {"llama_tied", "qwen3", model.Limits{Rows: 64, Sequences: 6, Wanted: 40, Pages: 40, Context: 256}, own, 0, 0},
		"never sure": {"qwen3_moe", "qwen3_moe", model.Limits{Rows: 64, Sequences: 6, Wanted: 40, Pages: 40, Context: 256}, own, 0.9999, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := tiny(t, c.target, c.lim, tensor.Reference())
			e := drafting(t, m, Always, Drafter{Model: tiny(t, c.draft, c.own, tensor.Reference()), MinP: c.minP})
			for round := 0; round < 2 || name == "few pages" && round < 9 && e.Usage().Preempted == 0; round++ {
				for i, got := range together(t, e, all) {
					if err := same(got, wanted[c.target][i]); err != nil {
						t.Errorf("request %d of %d tokens: %v", i, len(all[i].Prompt), err)
					}
				}
			}
			u := e.Usage()
			if u.ByModel.Drafted < 200 && c.minP == 0 || u.ByModel.Drafted > 50 && c.minP > 0.9 || u.ByModel.Rows == 0 || u.ByModel.Failed != 0 {
				t.Errorf("%+v", u.ByModel)
			}
			if share := float64(u.ByModel.Accepted) / float64(max(1, u.ByModel.Drafted)); c.minP == 0 && share < c.least || c.least == 0 && share > 0.5 {
				t.Errorf("%d of %d held", u.ByModel.Accepted, u.ByModel.Drafted)
			}
			if name == "few pages" && u.Preempted == 0 {
				t.Error("nobody was preempted")
			}
			left(t, e)
		})
	}
}

// A draft model whose device fails, and requests that leave at any time, harm no answer and leave nothing behind.
func TestDraftModelInAStorm(t *testing.T) {
	r := Request{Prompt: []int32{5, 6, 7}, MaxTokens: 60, Alternatives: -1, Sampling: Sampling{Temperature: 1, Seed: 4}}
	plain, _ := open(t, ample)
	want, err := collect(plain.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	var syncs atomic.Int64
	failing := &stage{Device: tensor.Reference()}
	failing.atSync = func() error {
		if syncs.Add(1)%23 == 0 {
			return errors.New("out of order")
		}
		return nil
	}
	lim := model.Limits{Rows: 24, Sequences: 4, Wanted: 20, Pages: 8, Context: 256}
	e := drafting(t, tiny(t, "qwen3_moe", lim, tensor.Reference()), Always, Drafter{Model: tiny(t, "qwen3_moe", lim, failing)})
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
			for range e.Generate(ctx, Request{Prompt: []int32{int32(i)}, MaxTokens: 40, Alternatives: -1}) {
				if n++; n == 3*i {
					cancel()
				}
			}
		})
	}
	all.Wait()
	if u := e.Usage(); u.ByModel.Failed == 0 || u.ByModel.Accepted == 0 {
		t.Errorf("%+v", u.ByModel)
	}
	left(t, e)
}

// What a draft model computed of a prompt it finds again, and what did not hold is in no page that is found.
func TestDraftModelFindsPrefixes(t *testing.T) {
	e := drafting(t, tiny(t, "qwen3_moe", model.Limits{Rows: 64, Sequences: 2, Wanted: 18, Pages: 40, Context: 512}, tensor.Reference()), Always,
		Drafter{Model: tiny(t, "qwen3_moe", model.Limits{Rows: 64, Sequences: 2, Wanted: 2, Pages: 40, Context: 512}, tensor.Reference())})
	r := Request{Prompt: requests(7)[6].Prompt, MaxTokens: 100, Alternatives: -1, Sampling: Sampling{Temperature: 1, Seed: 1}}
	got, err := collect(e.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	first := e.Usage().ByModel
	for _, tok := range got {
		r.Prompt = append(r.Prompt, tok.ID)
	}
	r.MaxTokens, r.Sampling.Seed = 20, 2
	if _, err := collect(e.Generate(t.Context(), r)); err != nil {
		t.Fatal(err)
	}
	again := e.Usage().ByModel
	if rows := again.Rows - first.Rows; first.Rows < 200 || rows > 100 || again.Drafted != again.Accepted || again.Drafted == first.Drafted {
		t.Errorf("%+v, then %+v", first, again)
	}
	left(t, e)
}

// Where a draft model pays it is asked, and where it does not, since it is slow or its tokens do not hold, answers take hardly longer.
func TestDraftModelWhereFaster(t *testing.T) {
	for name, c := range map[string]struct {
		together    int           // sequences that generate at once
		step, row   time.Duration // what a step of the model takes, and each row of it
		draft, each time.Duration // likewise, of the draft model
		right       float64       // how often what it says is right
		most        float64       // times as long as without drafts
	}{
		"small and good":    {1, 20 * ms, ms, ms, ms / 10, 0.9, 0.35},
		"half as large":     {1, 20 * ms, ms, 10 * ms, ms / 2, 0.8, 0.9},
		"as large":          {1, 20 * ms, ms, 20 * ms, ms, 1, 1.02},
		"rows cost all":     {1, 0, 10 * ms, ms, ms / 10, 0.9, 1.03},
		"small and wrong":   {1, 20 * ms, ms, ms, ms / 10, 0.05, 1.02},
		"larger":            {1, 10 * ms, ms, 50 * ms, 3 * ms, 0.9, 1.03},
		"four and good":     {4, 20 * ms, ms, ms, ms / 10, 0.9, 0.7},
		"four and wrong":    {4, 20 * ms, ms, ms, ms / 10, 0.05, 1.02},
		"four and as large": {4, 20 * ms, ms, 20 * ms, ms, 1, 1.02},
	} {
		t.Run(name, func(t *testing.T) {
			lim := model.Limits{Rows: 64, Sequences: c.together, Wanted: c.together + MostDraft, Pages: 80 * c.together, Context: 5000}
			s := newDry(lim, 16)
			d := &drafter{limits: lim, pool: newPool(lim.Pages), vocab: 1 << 20, most: MostDraft}
			d.root = d.pool.root("simulated")
			s.drafts.how, s.drafts.model = ByModel, d
			draw := rand.New(rand.NewPCG(1, 1))
			var all, alone time.Duration
			for answer := range 4 {
				for i := range c.together {
					r := Request{MaxTokens: 1000, Alternatives: -1}
					for j := range 200 {
						r.Prompt = append(r.Prompt, int32(100000*answer+1000*i+j))
					}
					q, err := s.request(r)
					if err != nil {
						t.Fatal(err)
					}
					q.shadow = newShadow(q, 0, d)
				}
				for len(s.running)+len(s.waiting) > 0 {
					d.reap()
					s.drafts.spent = 0
					if r := s.round(d); r.n > 0 {
						s.drafts.spent = pretend(d, draw, c.right, c.draft, c.each)
					}
					if _, err := s.plan(); err != nil {
						t.Fatal(err)
					}
					took := c.step + c.row*time.Duration(len(s.work.IDs))
					for _, a := range s.scheduler.plan {
						if a.want > 0 && a.seq.computed >= a.seq.prompt {
							alone += (c.step/time.Duration(len(s.scheduler.plan)) + c.row) * time.Duration(len(accepted(a.draft, ids(a))))
						}
					}
					if len(s.scheduler.plan) > 0 && s.running[0].computed >= s.running[0].prompt {
						all += took + s.drafts.spent
					}
					noisy := time.Duration((0.85 + 0.3*draw.Float64()) * float64(took))
					s.took(&s.work, noisy, false)
					d.total += noisy + s.drafts.spent
					if err := s.settled(); err != nil {
						t.Fatal(err)
					}
				}
			}
			u := s.usage()
			t.Logf("%.3f times as long as without drafts; %+v", float64(all)/float64(alone), u.ByModel)
			if float64(all) > c.most*float64(alone) {
				t.Errorf("want %v", c.most)
			}
		})
	}
}

// ids are what a part of a dry step will have chosen.
func ids(a advance) (out []int32) {
	for i := range a.want {
		out = append(out, int32(1000+len(a.seq.tokens)+i))
	}
	return out
}

// pretend does a round of a draft model without one. The id at a position is 1000 more than it, where the draft model is right.
func pretend(d *drafter, draw *rand.Rand, right float64, step, row time.Duration) (took time.Duration) {
	spend := func(rows int) time.Duration {
		once := step + time.Duration(rows)*row
		took, d.counts.Rows = took+once, d.counts.Rows+int64(rows)
		return once
	}
	rest, caught := stride, 0
	for _, sh := range d.round.all[:d.round.n] {
		if d.extend(sh) && sh.lag() > nearLag {
			n := min(sh.lag(), rest)
			sh.seq.computed += n
			rest, caught = rest-n, caught+n
		}
		sh.asked = sh.of.shadow != nil && sh.lag() <= nearLag
	}
	if caught > 0 {
		d.row = spend(caught) / time.Duration(caught)
	}
	for i := range d.round.depth {
		rows := 0
		for _, sh := range d.round.all[:d.round.n] {
			if sh.asked && i < sh.room() {
				rows += len(sh.seq.tokens) + len(sh.next) - sh.seq.computed
				sh.seq.computed = len(sh.seq.tokens) + len(sh.next)
				id := int32(1000 + len(sh.seq.tokens) + len(sh.next))
				if draw.Float64() > right {
					id = 7
				}
				sh.next, sh.sure = append(sh.next, id), append(sh.sure, 0.8)
			}
		}
		if rows > 0 {
			d.steps.took(rows, spend(rows))
		}
	}
	d.settle(nil)
	if d.round.trial {
		d.trials += took
	}
	return took
}

// In the loop too, a draft model is asked where it is fast, and after some tries no more where it is slow, and answers are the same.
func TestDraftModelByTheClock(t *testing.T) {
	r := Request{Prompt: requests(7)[5].Prompt, MaxTokens: 150, Alternatives: -1, Sampling: Sampling{Temperature: 1, Seed: 3}}
	plain, _ := open(t, ample)
	want, err := collect(plain.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	after := func(d time.Duration) *stage { // no more time passes but this
		return &stage{Device: tensor.Reference(), atSync: func() error { time.Sleep(d); return nil }}
	}
	lim := model.Limits{Rows: 64, Sequences: 2, Wanted: 18, Pages: 20, Context: 256}
	for name, c := range map[string]struct {
		step, draft time.Duration
		most        time.Duration
	}{
		"fast": {5 * ms, ms / 10, time.Second},
		"slow": {2 * ms, 10 * ms, 1300 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := drafting(t, tiny(t, "qwen3_moe", lim, after(c.step)), ByModel, Drafter{Model: tiny(t, "qwen3_moe", lim, after(c.draft))})
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
				if took > c.most || u.ByModel.Accepted != u.ByModel.Drafted || u.ByModel.Drafted == 0 {
					t.Errorf("%v; %+v", took, u.ByModel)
				} else {
					t.Logf("%v; %+v", took, u.ByModel)
				}
				left(t, e)
			})
		})
	}
}
