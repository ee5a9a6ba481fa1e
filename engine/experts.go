package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/model"
)

// ErrRoutes refuses Request.Routes where the ids of a sequence as long as it may become would be too many.
var ErrRoutes = errors.New("engine: too many ids of experts")

// mostRoutes is how many ids of experts are kept for a request.
const mostRoutes = 1 << 22

// ExpertStats is what experts did for the tokens that were computed for a request: not for those found in the prefix cache, and once for those
// that were computed again.
type ExpertStats struct {
	Rows     int64   // such tokens, once for every layer of experts
	Chosen   int64   // experts that ran for them
	Skipped  int64   // experts that the model would have run beside these by itself
	Distinct int     // different ones among the chosen, those of each layer by themselves
	Mass     float64 // of the shares of factors that were kept, the sum over Rows
	// IDs are those that Request.Routes asks for: for each token of the sequence, by layer of experts, the layer's K places in the order of choice;
	// NoExpert where none ran or the token was found in the prefix cache. Later tokens come behind them, and what is there stays.
	IDs []uint16
	K   []int // places of each layer in IDs
}

// NoExpert stands in ExpertStats.IDs for a place that no expert has.
const NoExpert = 1<<16 - 1

// use is what experts did for a sequence. Only the loop's goroutine touches it.
type use struct {
	stats  ExpertStats
	routes bool
	upto   int      // leading tokens that are counted
	ks     []int    // by layer of experts
	width  int      // places of a token
	seen   [][]bool // by layer of experts, by router row
}

// wish checks with how few experts a sequence is to make do, and makes it the sequence's; nil is all.
func (e *Engine) wish(q *sequence, x *model.Experts) error {
	if x == nil {
		return nil
	}
	spec := e.model.Spec()
	line, err := spec.Wish(x)
	if err != nil {
		return fmt.Errorf("%w: experts: %w", ErrRequest, err)
	}
	if q.wish = line; line != nil {
		q.variant += fmt.Sprint(" experts:", line)
	}
	return nil
}

// count lets the loop count what experts do for a sequence, where its request asks for that.
func (e *Engine) count(q *sequence, r *Request) error {
	if !r.Counted {
		return nil
	}
	spec := e.model.Spec()
	if spec.ExpertLayers() == 0 {
		return fmt.Errorf("%w: experts: %w", ErrRequest, &model.ExpertsError{Why: "this model has no experts"})
	}
	q.use = &use{routes: r.Routes}
	for _, l := range spec.Layers {
		if l.Router != nil {
			q.use.ks = append(q.use.ks, l.Router.K)
			q.use.seen = append(q.use.seen, make([]bool, l.Router.Experts))
			q.use.width += l.Router.K
		}
	}
	if q.use.stats.K = q.use.ks; r.Routes && q.limit*q.use.width > mostRoutes {
		return fmt.Errorf("%w: %w: %d tokens with %d experts each, more than %d", ErrRequest, ErrRoutes, q.limit, q.use.width, mostRoutes)
	}
	return nil
}

// used adds what experts did in blocks from to to of a step, those of the sequences that asked.
func (e *Engine) used(step *model.Step, plan []advance, from, to int) {
	for i, a := range plan {
		u := a.seq.use
		if u == nil {
			continue
		}
		first := int(step.Start[i]) + max(0, u.upto-a.seq.computed) // those before were computed for it once already
		last, position := int(step.Start[i+1]), a.seq.computed+a.rows
		if first < last {
			at := 0
			for layer, l := range e.model.Spec().Layers {
				if l.Router == nil {
					continue
				}
				if block := 2*layer + 1; from <= block && block < to {
					e.model.Routed(at, first, last, &e.tally.routed)
					u.add(at, position-(last-first), &e.tally.routed)
				}
				at++
			}
		}
		if to == e.model.Blocks() {
			u.upto = max(u.upto, position)
		}
	}
}

// add counts what layer at of experts did with tokens from one on.
func (u *use) add(at, from int, r *model.Routed) {
	k, rows := u.ks[at], len(r.Mass)
	u.stats.Rows += int64(rows)
	for _, v := range r.Mass {
		u.stats.Mass += float64(v)
	}
	for _, id := range r.IDs {
		if id < 0 {
			u.stats.Skipped++
			continue
		}
		u.stats.Chosen++
		if !u.seen[at][id] {
			u.seen[at][id] = true
			u.stats.Distinct++
		}
	}
	if !u.routes {
		return
	}
	for need := (from + rows) * u.width; len(u.stats.IDs) < need; {
		u.stats.IDs = append(u.stats.IDs, NoExpert)
	}
	place := 0
	for _, before := range u.ks[:at] {
		place += before
	}
	for i, id := range r.IDs {
		if id >= 0 {
			u.stats.IDs[(from+i/k)*u.width+place+i%k] = uint16(id)
		}
	}
}

// tally is when the counts of experts were looked at, and what that needs.
type tally struct {
	routed  model.Routed // scratch of used
	counted time.Time
	stale   bool // steps were made since
}

// countEvery is how old the counts of experts may become while an engine works.
const countEvery = time.Second

// countExperts looks at the device's counts when they are old, and when the engine falls idle.
func (e *Engine) countExperts(stepped bool) {
	t := &e.tally
	if t.stale = t.stale || stepped; !t.stale || stepped && time.Since(t.counted) < countEvery {
		return
	}
	t.counted, t.stale = time.Now(), false
	counts := e.model.ExpertCounts()
	e.unique.look(counts)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.experts, e.scheduler.crowd = counts, e.unique.crowd(e.scheduler.limits.Sequences)
}

// Experts is which experts of each layer were chosen since the model was loaded, as of the last second or of the time when the engine fell idle;
// nil where there are none, or before the first step. Nobody may change it.
func (e *Engine) Experts() []model.ExpertCounts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.experts)
}

// ExpertBytes is model.Model's, between two steps; 0 once the engine is closed.
func (e *Engine) ExpertBytes() int64 {
	e.turn.Lock()
	defer e.turn.Unlock()
	if e.over() {
		return 0
	}
	return e.model.ExpertBytes()
}

// ResizeExperts is model.Model's, between two steps: requests go on, and get the tokens that they would have got. ErrClosed: so is the engine.
func (e *Engine) ResizeExperts(bytes int64) (int64, error) {
	e.turn.Lock()
	defer e.turn.Unlock()
	if e.over() {
		return 0, ErrClosed
	}
	e.tally.stale, e.tally.counted = true, time.Time{} // so that Experts says how many slots there are
	e.loop.kick()
	return e.model.ResizeExperts(bytes)
}
