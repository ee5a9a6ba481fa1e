package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
)

// dry drives a scheduler without a model. It keeps what a model would have written to every slot of the cache, the token and its
// position, and checks before every step that the page tables lead to the past that they promise.
type dry struct {
	*scheduler
	cache []slot // pages x 64
	work  model.Step

	meanwhile model.Step // the chunk
	linger    bool       // it is not committed yet

	outside map[pageID][]slot // pages that are kept; nil = none are
	whims   *rand.Rand        // keeps and reads some pages late, or not at all; nil = all at once

	tiles map[int32][]slot  // by place, those of pages that were given back
	lanes map[int32][]int32 // by row, places; none = all pages are kept
	heads int32             // places of a page
}

type slot struct {
	token, position int32
	root            int32 // of the selector under which it was computed
}

func newDry(lim model.Limits, queue int) *dry {
	return &dry{scheduler: newScheduler(lim, queue), cache: make([]slot, lim.Pages*attention.PageTokens)}
}

// plan plans a step and checks it against the limits, the counters and the cache, and a chunk that begins with it.
func (d *dry) plan() ([]advance, error) {
	fresh := len(d.chunk) == 0
	d.restored()
	plan := slices.Clone(d.next())
	d.spill()
	d.pack()
	if err := d.compute(&d.work, plan); err != nil || !fresh || len(d.chunk) == 0 {
		return plan, err
	}
	return append(plan, d.chunk...), d.compute(&d.meanwhile, d.chunk)
}

// compute writes to the cache what a plan computes.
func (d *dry) compute(step *model.Step, plan []advance) error {
	d.fill(step, plan)
	if n := len(step.IDs); n > d.limits.Rows || len(plan) > d.limits.Sequences || len(step.Want) > d.limits.Wanted {
		return fmt.Errorf("%d rows of %d sequences, %d wanted, beyond %+v", n, len(plan), len(step.Want), d.limits)
	}
	for i, a := range plan {
		q := a.seq
		from, to := int(step.Start[i]), int(step.Start[i+1])
		if past := int(step.Past[i]); past != q.computed || to-from != a.rows || a.rows <= len(a.draft) || past+a.rows > len(q.tokens)+len(a.draft) {
			return fmt.Errorf("rows %d:%d after %d tokens of %d", from, to, past, q.computed)
		}
		for j, id := range step.IDs[from:to] {
			*d.at(q, q.computed+j) = slot{id, int32(q.computed + j), q.root}
			d.unpack(q.pages[(q.computed+j)/attention.PageTokens])
		}
	}
	for _, a := range plan { // after all writes, so that a page that two write to shows
		q := a.seq
		for i, id := range slices.Concat(q.tokens, a.draft)[:q.computed+a.rows] {
			want := slot{id, int32(i), q.root}
			if q.pages[i/attention.PageTokens] < 0 {
				if err := d.packed(q, i, want); err != nil {
					return err
				}
				continue
			}
			if got := *d.at(q, i); got != want {
				return fmt.Errorf("page %d holds %+v where %+v is meant", q.pages[i/attention.PageTokens], got, want)
			}
		}
	}
	return nil
}

func (d *dry) at(q *sequence, i int) *slot {
	return &d.cache[int(q.pages[i/attention.PageTokens])*attention.PageTokens+i%attention.PageTokens]
}

// settled commits the planned step, and the chunk unless it is to linger.
func (d *dry) settled() error {
	if err := d.finish(&d.work); err != nil || len(d.chunk) == 0 || d.linger {
		return err
	}
	d.resume()
	return d.finish(&d.meanwhile)
}

// failed fails both.
func (d *dry) failed() {
	d.fail()
	d.resume()
	d.fail()
}

// finish commits a step. The id sampled at a position is 1000 more than it, and a token's hidden state is its id; as with a
// model, there are no ids in a step that samples nothing.
func (d *dry) finish(step *model.Step) error {
	for i, sum := range step.Sums {
		for _, row := range step.Pool[step.PoolStart[i]:step.PoolStart[i+1]] {
			sum[0] += float32(step.IDs[row])
		}
	}
	var ids []int32
	if len(step.Draws) > 0 {
		for _, a := range d.scheduler.plan {
			for i := range a.want {
				ids = append(ids, int32(1000+len(a.seq.tokens)+i))
			}
		}
	}
	d.commit(ids)
	return d.check()
}

// request makes a sequence as an engine would.
func (d *dry) request(r Request) (*sequence, error) {
	if err := r.check(1<<20, d.context()); err != nil {
		return nil, err
	}
	q := newSequence(&r, d.context())
	q.root = d.pool.root("full")
	if d.drafts.how.On() {
		q.lookup = newLookup(&r, q.limit, &d.drafts.held)
	}
	return q, d.add(q)
}

// embedding makes a sequence that pools, as an engine would.
func (d *dry) embedding(ids []int32, p Pooling) *sequence {
	q := newEmbedding(ids, p, 1)
	q.root = d.pool.root("full")
	if err := d.add(q); err != nil {
		panic(err) // embeddings are never refused
	}
	return q
}

// idlePages are the cached pages that nobody holds, the first to be evicted first.
func (p *pool) idlePages() (ids []int32) {
	for e := p.idle.Front(); e != nil; e = e.Next() {
		ids = append(ids, e.Value.(int32))
	}
	return slices.Clip(ids)
}

// BenchmarkPlan is what the scheduler costs a step beside the model: 256 sequences that generate.
func BenchmarkPlan(b *testing.B) {
	const sequences = 256
	lim := model.Limits{Rows: 512, Sequences: sequences, Wanted: sequences, Pages: 4 * sequences, Context: 256}
	d := newDry(lim, sequences)
	ids := make([]int32, sequences)
	for b.Loop() {
		for len(d.running)+len(d.waiting) < sequences {
			if _, err := d.request(Request{Prompt: []int32{int32(len(d.waiting)), 2, 3}, Alternatives: -1}); err != nil {
				b.Fatal(err)
			}
		}
		d.next()
		d.fill(&d.work, d.scheduler.plan)
		d.commit(ids)
		d.resume()
		d.commit(ids)
	}
}
