package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/model"
)

// TestRandomTraffic lets requests come, advance and leave at random, in engines of all small sizes, and proves the books after every
// move. Every request that is not aborted must get the tokens that it would get alone.
func TestRandomTraffic(t *testing.T) {
	var restored, drafted, accepted, freed int64
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			lim := model.Limits{Rows: 1 + r.IntN(200), Sequences: 1 + r.IntN(6), Wanted: 1 + r.IntN(12), Pages: 1 + r.IntN(9)}
			lim.Context = 64 * (1 + r.IntN(lim.Pages+1))
			if seed%5 < 2 {
				lim.Pages += 4
				lim.Context = 64*lim.Pages + r.IntN(500)
			}
			d := newDry(lim, 1+r.IntN(8))
			d.crowd = r.IntN(4)
			if seed%3 == 0 {
				d.drafts.how = Always
			}
			if seed%2 == 1 {
				d.keepOutside(r)
			}
			if seed%5 < 2 {
				d.openLanes(8 + r.IntN(40))
			}
			open := map[*sequence]bool{}
			for range 400 {
				switch n := r.IntN(10); {
				case n < 3:
					if q := randomRequest(r, d); q != nil {
						open[q] = true
					}
				case n == 3:
					abortAny(r, d, open)
				default:
					randomStep(t, r, d, open)
				}
				if t.Failed() {
					return
				}
			}
			for range 10000 {
				if len(d.running)+len(d.waiting) == 0 {
					break
				}
				randomStep(t, r, d, open)
			}
			restored, freed = restored+d.counts.Restored, freed+d.counts.PagesFreed
			drafted, accepted = drafted+d.counts.Drafted, accepted+d.counts.Accepted
			if u := d.usage(); u.Running+u.Waiting+u.PagesUsed > 0 || len(open) > 0 {
				t.Fatalf("%d requests left: %+v", len(open), u)
			}
		})
	}
	if restored < 100 {
		t.Errorf("%d pages were restored", restored)
	}
	if freed < 400 {
		t.Errorf("%d pages were given back", freed)
	}
	if accepted < 1000 || drafted-accepted < 1000 {
		t.Errorf("%d tokens were drafted, %d of them held", drafted, accepted)
	}
}

// randomRequest adds a generation, a score or an embedding whose prompt begins like many others.
func randomRequest(r *rand.Rand, d *dry) *sequence {
	prompt := make([]int32, 1+r.IntN(min(300, d.context())))
	family := r.Int32N(3)
	for i := range prompt {
		prompt[i] = 1 + int32(i)
		if i >= 64*int(family) {
			prompt[i] += 1000 * (1 + r.Int32N(2)*family)
		}
	}
	switch r.IntN(8) {
	case 0:
		return d.embedding(prompt, MeanPooling)
	case 1:
		return d.embedding(prompt, LastPooling)
	case 2:
		q := newScore(&Scoring{IDs: prompt})
		q.root = d.pool.root("full")
		if d.add(q) != nil {
			return nil
		}
		return q
	}
	if d.lanes != nil && r.IntN(3) > 0 {
		return d.randomLanes(r, prompt)
	}
	ask := Request{Prompt: prompt, MaxTokens: r.IntN(100) - 1, Alternatives: -1, Priority: r.IntN(3)}
	if d.drafts.how.On() { // what will come, but for some of it
		for i := range d.context() {
			if ask.Expected = append(ask.Expected, int32(1000+i)); r.IntN(6) == 0 {
				ask.Expected[i] = 7
			}
		}
	}
	q, err := d.request(ask)
	if err != nil {
		return nil
	}
	return q
}

// pooledIDs is what an embedding's sum must come to. Ids are small enough for float32 to add them exactly.
func pooledIDs(q *sequence) (sum float32) {
	if q.pooling == LastPooling {
		return float32(q.tokens[len(q.tokens)-1])
	}
	for _, id := range q.tokens {
		sum += float32(id)
	}
	return sum
}

func abortAny(r *rand.Rand, d *dry, open map[*sequence]bool) {
	all := slices.Concat(d.running, d.waiting)
	if len(all) == 0 {
		return
	}
	q := all[r.IntN(len(all))]
	d.abort(q)
	delete(open, q)
}

// randomStep takes a step, which may fail and in which sequences may be aborted, and lets scores go on.
func randomStep(t *testing.T, r *rand.Rand, d *dry, open map[*sequence]bool) {
	plan, err := d.plan()
	if err != nil {
		t.Fatal(err)
	}
	generating := 0
	for _, q := range d.running {
		if q.generates() {
			generating++
		}
		if q.behind() == 1 && !q.planned && !q.held {
			t.Fatalf("a sequence that generates has no row")
		}
	}
	if d.crowd > 0 && generating > d.crowd {
		t.Fatalf("%d generate, or are about to, of %d", generating, d.crowd)
	}
	if r.IntN(20) == 0 {
		abortAny(r, d, open)
	}
	if r.IntN(50) == 0 {
		for _, a := range slices.Concat(plan, d.chunk) {
			delete(open, a.seq)
		}
		d.failed()
	} else {
		d.linger = r.IntN(3) == 0
		if err := d.settled(); err != nil {
			t.Fatal(err)
		}
	}
	for q := range open {
		if q.ended() {
			delete(open, q)
			if want := pooledIDs(q); q.pooling != "" && q.sum[0] != want {
				t.Fatalf("%s of %d tokens is %v, want %v", q.pooling, q.prompt, q.sum[0], want)
			}
			for i, id := range q.tokens[q.prompt:] {
				if id != int32(1000+q.prompt+i) {
					t.Fatalf("token %d is %d", i, id)
				}
			}
		}
	}
	for _, q := range d.running {
		q.held = q.held && r.IntN(2) == 0
	}
}
