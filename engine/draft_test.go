package engine

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/tensor"
)

// drafted are requests of every kind of sampling, long enough for drafts.
func drafted() []Request {
	all := requests(16)
	for i := range all {
		all[i].MaxTokens = 20 + i
		all[i].Alternatives = i%4 - 1
		if i%5 == 0 {
			all[i].Sampling.RepeatLast = 6
		}
		if i%6 == 1 {
			all[i].MinTokens, all[i].Stop = 10, []int32{3, 5, 300}
		}
	}
	return all
}

// expecting gives requests most of their answers as what they expect, each behind the end of the prompt, so that it is found.
func expecting(all []Request, answers [][]Token) []Request {
	all = slices.Clone(all)
	for i := range all {
		x := slices.Clone(all[i].Prompt[max(0, len(all[i].Prompt)-3):])
		for j, tok := range answers[i] {
			if x = append(x, tok.ID); j%7 == 5 {
				x[len(x)-1] = (tok.ID + 1) % 320
			}
		}
		all[i].Expected = x
	}
	return all
}

// Drafts change no token and nothing that is said of it, whatever the sampling, alone, in a batch, in chunks, after prefix hits and after
// preemptions, and beside requests that draft nothing.
func TestDraftsChangeNothing(t *testing.T) {
	all := drafted()
	want := make([][]Token, len(all))
	for i, r := range all {
		e, _ := open(t, ample)
		var err error
		if want[i], err = collect(e.Generate(t.Context(), r)); err != nil {
			t.Fatal(err)
		}
		e.Close()
	}
	ask := expecting(all, want)
	for i := range ask {
		if i%8 == 7 {
			ask[i].Draft = -1
		}
	}
	for name, lim := range map[string]model.Limits{
		"ample":      {Rows: 512, Sequences: 16, Wanted: 150, Pages: 100, Context: 256},
		"odd chunks": {Rows: 37, Sequences: 6, Wanted: 30, Pages: 20, Context: 256},
		"few pages":  {Rows: 64, Sequences: 6, Wanted: 64, Pages: 4, Context: 256},
		"little":     {Rows: 9, Sequences: 2, Wanted: 5, Pages: 12, Context: 256},
	} {
		t.Run(name, func(t *testing.T) {
			e := opened(t, load(t, lim, tensor.Reference()), Always)
			for round := 0; round < 2 || name == "few pages" && round < 9 && e.Usage().Preempted == 0; round++ { // which depends on the machine
				for i, got := range together(t, e, ask) {
					if err := same(got, want[i]); err != nil {
						t.Errorf("request %d of %d tokens: %v", i, len(ask[i].Prompt), err)
					}
				}
			}
			u := e.Usage()
			if u.Running+u.Waiting+u.PagesUsed != 0 || u.Accepted < 100 || u.Drafted-u.Accepted < 100 {
				t.Errorf("usage %+v", u)
			}
			if name == "few pages" && u.Preempted == 0 {
				t.Error("nobody was preempted")
			}
		})
	}
}

// An answer ends where it would, however much of it was drafted: at its limit, at a stop id, where its consumer leaves.
func TestDraftsEndInTime(t *testing.T) {
	e, _ := open(t, ample)
	r := Request{Prompt: requests(7)[5].Prompt, MaxTokens: 24, Alternatives: 1, Sampling: Sampling{Temperature: 1, Seed: 9}}
	long, err := collect(e.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	d := opened(t, load(t, model.Limits{Rows: 64, Sequences: 2, Wanted: 18, Pages: 20, Context: 256}, tensor.Reference()), Always)
	exact := expecting([]Request{r}, [][]Token{nil})[0]
	for _, tok := range long {
		exact.Expected = append(exact.Expected, tok.ID)
	}
	for n := 1; n <= len(long); n++ {
		ask := exact
		ask.MaxTokens = n
		got, err := collect(d.Generate(t.Context(), ask))
		want := slices.Clone(long[:n])
		want[n-1].Finish = Length
		if err == nil {
			err = same(got, want)
		}
		if err != nil || got[n-1].Stats.Generated != n {
			t.Errorf("%d tokens: %v", n, err)
		}
		ask.MaxTokens, ask.Stop = 24, []int32{long[n-1].ID}
		at := slices.IndexFunc(long, func(tok Token) bool { return tok.ID == long[n-1].ID })
		got, err = collect(d.Generate(t.Context(), ask))
		want = slices.Clone(long[:at+1])
		want[at].Finish = Stop
		if err == nil {
			err = same(got, want)
		}
		if err != nil {
			t.Errorf("until token %d: %v", n, err)
		}
		ask.Stop = nil
		var left []Token
		for tok := range d.Generate(t.Context(), ask) {
			if left = append(left, tok); len(left) == n {
				break
			}
		}
		if left[n-1].Finish == "" {
			want = long[:n]
			if err := same(left, want); err != nil {
				t.Errorf("left after %d: %v", n, err)
			}
		}
	}
	if u := d.Usage(); u.Accepted < 500 || u.Drafted > u.Accepted+u.Accepted/4 {
		t.Errorf("%+v", u)
	}
	empty(t, d)
}

// A token says whether it was drafted, and with how many that did not hold.
func TestDraftsAreReceipted(t *testing.T) {
	e, _ := open(t, ample)
	r := Request{Prompt: []int32{5, 6, 7}, MaxTokens: 12, Alternatives: -1}
	plain, err := collect(e.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	r.Expected = []int32{5, 6, 7, plain[0].ID, plain[1].ID, plain[2].ID, plain[3].ID + 1, 1, 2}
	d := opened(t, load(t, model.Limits{Rows: 64, Sequences: 1, Wanted: 9, Pages: 8, Context: 256}, tensor.Reference()), Always)
	got, err := collect(d.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	// The prompt's step drafts nothing. The next one has what follows the prompt and its first token in the text that is expected.
	for i, want := range []struct {
		drafted  bool
		rejected bool
	}{{}, {drafted: true}, {drafted: true}, {rejected: true}} {
		if got[i].Drafted != want.drafted || got[i].Rejected > 0 != want.rejected {
			t.Errorf("token %d: %+v, want %+v", i, got[i], want)
		}
	}
	u, accepted, rejected := d.Usage(), 0, 0
	for _, tok := range got {
		rejected += tok.Rejected
		if tok.Drafted {
			accepted++
		}
	}
	if u.Accepted != int64(accepted) || u.Drafted != int64(accepted+rejected) || u.Generated != 12 || u.Rows != int64(3+11+rejected) {
		t.Errorf("%d and %d of %+v", accepted, rejected, u)
	}
}

// A step that fails, and requests that leave at any time, leave nothing behind.
func TestDraftsInAStorm(t *testing.T) {
	d := opened(t, load(t, model.Limits{Rows: 24, Sequences: 4, Wanted: 20, Pages: 5, Context: 256}, tensor.Reference()), Always)
	loop := make([]int32, 30)
	for i := range loop {
		loop[i] = int32(i % 3)
	}
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n := 0
			for range d.Generate(ctx, Request{Prompt: loop[i:], MaxTokens: 40, Alternatives: -1}) {
				if n++; n == i {
					cancel()
				}
			}
		})
	}
	all.Wait()
	empty(t, d)
}

// measured are costs of steps of so many rows, in milliseconds.
func measured(times map[int]int) (c costs) {
	for range 4 {
		for rows, took := range times {
			c.took(rows, time.Duration(took)*ms)
		}
	}
	return c
}

// What is not known of steps lies between what is, or a little below.
func TestCosts(t *testing.T) {
	c := measured(map[int]int{1: 10, 5: 30, 9: 20})
	for rows, want := range map[int]float64{1: 10, 2: 13.5, 3: 18, 5: 30, 7: 22.5, 9: 20, 17: 25} {
		if got := c.of(1, rows) / float64(ms); math.Abs(got-want) > 1e-9 {
			t.Errorf("%d rows take %v ms, want %v", rows, got, want)
		}
	}
	if !c.ready(1) || c.ready(2) || c.known(1) != 9 {
		t.Errorf("ready for 1: %v, for 2: %v; known to %d", c.ready(1), c.ready(2), c.known(1))
	}
	for range plainEvery {
		c.took(9, 20*ms)
	}
	if c.ready(1) {
		t.Error("steps without drafts need not be measured again")
	}
	for range stale + 1 {
		c.took(1, 10*ms)
	}
	if !c.ready(1) || c.known(1) != 1 {
		t.Error("what was measured long ago counts")
	}
	c.took(mostCosted+1, ms) // is nobody's
}

// Tokens are drafted as far as they come faster by what is known.
func TestWorth(t *testing.T) {
	sure := []pick{{0, 1}, {0, 1}, {0, 1}, {0, 1}, {0, 1}, {0, 1}, {0, 1}, {0, 1}}
	half, less := []pick{{0, .5}, {0, .25}, {0, .125}, {0, .06}}, []pick{{0, .4}, {0, .16}, {0, .06}}
	both := []pick{{0, .9}, {1, .9}, {0, .8}, {1, .8}}
	for i, c := range []struct {
		times map[int]int
		n     int
		picks []pick
		want  int
	}{
		{map[int]int{}, 1, sure, 0},                                  // nothing is known
		{map[int]int{1: 10}, 1, sure, 2},                             // a trial
		{map[int]int{1: 10, 3: 10}, 1, sure, 4},                      // a longer one
		{map[int]int{1: 10, 3: 31}, 1, half, 0},                      // rows cost as much as steps
		{map[int]int{1: 10, 5: 12, 9: 80}, 1, sure, 4},               // up to where they do
		{map[int]int{1: 10, 9: 12}, 1, nil, 0},                       // nothing is foretold
		{map[int]int{1: 10, 2: 16, 3: 18, 5: 19}, 1, less, 0},        // it holds too rarely
		{map[int]int{1: 10, 2: 12, 3: 13, 5: 20}, 1, half, 2},        // 1.75 tokens in 13 ms
		{map[int]int{1: 10, 2: 10, 5: 10}, 1, []pick{{0, .02}}, 0},   // is not worth the trouble
		{map[int]int{2: 10, 3: 13, 4: 14, 5: 18, 6: 20}, 2, both, 2}, // 3.8 in 14 ms, 5.4 in 20 ms
		{map[int]int{2: 10, 4: 14, 6: 20}, 2, sure[:4], 1},           // the other one waits
		{map[int]int{2: 10, 4: 11, 6: 20}, 2, sure[:4], 2},           // not much
	} {
		d := drafts{costs: measured(c.times), picks: c.picks}
		if got := d.worth(c.n); got != c.want {
			t.Errorf("case %d: %d drafted, want %d", i, got, c.want)
		}
	}
}

// Where drafts pay they come, and where they do not, since rows cost or little of what is foretold holds, an answer takes no more than a
// fiftieth longer, on a machine whose steps take now longer, now shorter.
func TestDraftsWhereFaster(t *testing.T) {
	for name, c := range map[string]struct {
		step, row time.Duration // what a step takes, and each row of it
		wrong     int           // one token in so many is not as foretold
		most      float64       // times as long as without drafts
	}{
		"copied":         {10 * ms, ms, 1000, 0.3},
		"nearly copied":  {10 * ms, ms, 6, 0.6},
		"by four":        {10 * ms, 2 * ms, 3, 0.9},
		"now and then":   {5 * ms, 5 * ms, 3, 1.02},
		"seldom":         {10 * ms, 2 * ms, 1, 1.02},
		"rows cost all":  {0, 10 * ms, 4, 1.02},
		"rows cost more": {-10 * ms, 20 * ms, 1000, 1.02},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDry(model.Limits{Rows: 64, Sequences: 1, Wanted: 8, Pages: 64, Context: 4096}, 1)
			d.drafts.how = NGram
			r := Request{Prompt: []int32{1000, 1001, 1002, 1003}, MaxTokens: 4000, Alternatives: -1}
			draw := rand.New(rand.NewPCG(1, 1))
			for i := range 4096 {
				if r.Expected = append(r.Expected, int32(1000+i)); i > 3 && draw.IntN(c.wrong) == 0 {
					r.Expected[i] = 7
				}
			}
			q, err := d.request(r)
			if err != nil {
				t.Fatal(err)
			}
			var all time.Duration
			for !q.ended() {
				if _, err := d.plan(); err != nil {
					t.Fatal(err)
				}
				took := c.step + c.row*time.Duration(len(d.work.IDs))
				if q.computed > 0 {
					all += took
				}
				noise := 0.85 + 0.3*draw.Float64()
				if draw.IntN(20) == 0 {
					noise *= 4
				}
				d.took(&d.work, time.Duration(noise*float64(took)), false)
				if err := d.settled(); err != nil {
					t.Fatal(err)
				}
			}
			u := d.usage()
			if times := float64(all) / float64(4000*(c.step+c.row)); times > c.most {
				t.Errorf("%.3f times as long as without drafts, want %v; %d drafted, %d accepted", times, c.most, u.Drafted, u.Accepted)
			} else {
				t.Logf("%.3f times as long as without drafts; %d drafted, %d accepted", times, u.Drafted, u.Accepted)
			}
		})
	}
}
