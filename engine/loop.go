package engine

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/winnow-llm/winnow/model"
)

// Loop is the goroutine that steps every engine of one device, one step each in turn, so that two models never work at once. It sleeps
// while none has anything to do.
type Loop struct {
	wake chan struct{} // capacity 1: somebody may have something to do
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	engines []*Engine // replaced, never changed in place
	closed  bool
}

// NewLoop starts the goroutine. Close ends it.
func NewLoop() *Loop {
	l := &Loop{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// Open makes an engine that steps a model. From now on only the loop touches the model, until the engine is closed; closing the model is
// the caller's affair. The engine of a closed loop is closed.
func (l *Loop) Open(m *model.Model, opt Options) *Engine {
	if opt.Queue == 0 {
		opt.Queue = defaultQueue
	}
	e := &Engine{loop: l, model: m, check: opt.Check, scheduler: newScheduler(m.Limits(), opt.Queue)}
	e.scheduler.pool.dense = newDense(m.DensePages())
	e.scheduler.pace.whole = m.ReadsExperts()
	e.scheduler.drafts.how = opt.Draft
	for row := m.LaneRows() - 1; row > 0; row-- {
		e.scheduler.pool.rows = append(e.scheduler.pool.rows, int32(row))
	}
	if e.check {
		m.Prove()
		if opt.Drafter != nil {
			opt.Drafter.Model.Prove()
		}
	}
	if opt.Drafter != nil && (opt.Draft == ByModel || opt.Draft == Always) {
		e.scheduler.drafts.model = newDrafter(opt.Drafter, m.Spec().Vocab)
	}
	e.unique = newUnique(opt.MaxUnique, m.Spec())
	e.scheduler.crowd = e.unique.crowd(e.scheduler.limits.Sequences)
	e.root = e.scheduler.pool.root(m.Fingerprint())
	e.embeddings = make(chan struct{}, 2*e.scheduler.limits.Sequences)
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.closed = l.closed; !e.closed {
		e.openKeeper(&opt)
		l.engines = append(slices.Clone(l.engines), e)
	}
	return e
}

// Close closes all engines and waits for the goroutine to end.
func (l *Loop) Close() {
	l.mu.Lock()
	l.closed = true
	engines := l.engines
	l.mu.Unlock()
	for _, e := range engines {
		e.Close()
	}
	l.kick()
	<-l.done
}

// remove takes an engine out of the round.
func (l *Loop) remove(e *Engine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.engines = slices.DeleteFunc(slices.Clone(l.engines), func(o *Engine) bool { return o == e })
}

// kick wakes the loop. It is called after every change that may let a sequence advance.
func (l *Loop) kick() {
	select {
	case l.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (l *Loop) run() {
	defer close(l.done)
	for {
		l.mu.Lock()
		engines, closed := l.engines, l.closed
		l.mu.Unlock()
		if closed {
			return
		}
		busy := false
		for _, e := range engines {
			busy = e.step() || busy
		}
		if !busy {
			<-l.wake
		}
	}
}

// step computes one step of the engine's sequences, and a part of the chunk, and says whether there was either. A closed engine's model is
// not touched: the loop may still have the engine in its round.
func (e *Engine) step() bool {
	e.turn.Lock()
	defer e.turn.Unlock()
	if e.over() {
		return false
	}
	e.restored()
	e.ponder()
	planned, chunk := e.begin()
	saved := e.keeper != nil && e.keep(e.leaves, 0) > 0
	started := time.Now()
	if err := e.pack(); err != nil && planned {
		e.end(&e.work, nil, err)
		return true
	}
	if planned {
		e.model.Batch().Fill(e.model.Queue(), &e.work)
		e.model.Forward(e.model.Batch())
		e.used(&e.work, e.scheduler.plan, 0, e.model.Blocks())
		e.unique.ran(len(e.work.IDs))
		err := e.readBy(&e.work, e.scheduler.plan, 0, e.model.Blocks())
		var out *result
		if err == nil {
			out, err = e.results(&e.work, e.scheduler.plan)
		}
		e.scheduler.took(&e.work, time.Since(started), chunk)
		e.end(&e.work, out, err)
	}
	if chunk {
		e.further(planned)
	}
	e.countExperts(planned || chunk)
	if planned || chunk {
		took := time.Since(started)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.scheduler.counts.Turn.add(took.Seconds() + e.scheduler.drafts.spent.Seconds())
		if d := e.scheduler.drafts.model; d != nil {
			d.total += took
		}
	}
	return planned || chunk || saved
}

func (e *Engine) over() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

// begin plans a step and writes it to e.work, and a chunk that is new to e.parts. It says whether there is a step, and a chunk.
func (e *Engine) begin() (planned, chunk bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.scheduler
	fresh := len(s.chunk) == 0
	plan := s.next()
	e.fetch()
	e.leaves = e.endangered()
	planned, chunk = len(plan) > 0, len(s.chunk) > 0
	if !planned && !chunk {
		if !e.idle {
			e.idle = true
			e.prove()
		}
		return false, false
	}
	e.idle = false
	s.fill(&e.work, plan)
	if fresh && chunk {
		s.fill(&e.parts.step, s.chunk)
		e.parts.block = 0
	}
	now := time.Now()
	for _, list := range [][]advance{plan, s.chunk} {
		for _, a := range list {
			if a.seq.times.started.IsZero() {
				a.seq.times.started = now
			}
		}
	}
	return planned, chunk
}

// parts is the chunk under way.
type parts struct {
	step     model.Step
	block    int       // the next one
	residual []float32 // rows x dim: what passes to it
}

// further computes a part of the chunk: some blocks while others generate, else all that are left.
func (e *Engine) further(beside bool) {
	p, q, b, m := &e.parts, e.model.Queue(), e.model.Batch(), e.model
	rows := len(p.step.IDs)
	b.Fill(q, &p.step)
	if p.block > 0 {
		model.WriteF32(q, m.Residual(rows), p.residual)
	}
	var out *result
	var err error
	pace, started := &e.scheduler.pace, time.Now()
	begun := started // the block in hand
	from := p.block
	p.block = m.Part(b, p.block, func(next int) bool {
		if err = q.Sync(); err != nil {
			return false
		}
		now := time.Now()
		pace.block(next-1, rows, now.Sub(begun))
		begun = now
		return !beside || pace.more(next, rows, now.Sub(started))
	})
	if err == nil {
		e.used(&p.step, e.scheduler.chunk, from, p.block)
		err = e.readBy(&p.step, e.scheduler.chunk, from, p.block)
	}
	switch {
	case err != nil:
	case p.block < m.Blocks():
		p.residual = resize(p.residual, rows*m.Spec().Dim)
		model.ReadF32(q, m.Residual(rows), p.residual)
		if err = q.Sync(); err == nil {
			return
		}
	default:
		e.unique.ran(rows)
		out, err = e.results(&p.step, e.scheduler.chunk)
	}
	e.mu.Lock()
	e.scheduler.resume()
	e.mu.Unlock()
	e.end(&p.step, out, err)
}

// result is what the device says of a step's wanted rows. The slices are used again in the next step.
type result struct {
	ids   []int32   // one a wanted row; empty in a step that samples nothing
	best  []int32   // model.MostAlternatives a wanted row; empty when nobody asked
	probs []float32 // 1 + model.MostAlternatives a wanted row; likewise

	sampling time.Duration // that choosing the ids took
}

// results is what a step brings whose network has run. Only the loop's goroutine calls it, without the engine's mutex: the sequences in the
// plan keep their tokens and pages until its end, and the step was copied.
func (e *Engine) results(step *model.Step, plan []advance) (*result, error) {
	q, b, out, n := e.model.Queue(), e.model.Batch(), &e.result, len(step.Draws)
	out.ids, out.best, out.probs = resize(out.ids, n), resize(out.best, 0), resize(out.probs, 0)
	if out.sampling = 0; n > 0 {
		if err := q.Sync(); err != nil { // so that the time is the sampling's alone
			return out, err
		}
		started := time.Now()
		q.Run(&b.Sample)
		model.ReadI32(q, b.Sample.IDs, out.ids)
		out.sampling = time.Since(started)
	}
	row, asked := 0, false
	for _, a := range plan {
		asked = asked || a.want > 0 && a.seq.alternatives >= 0
		if a.seq.every && a.want > 0 {
			a.seq.out.logits = resize(a.seq.out.logits, a.want*b.Logits.Cols)
			model.ReadF32(q, b.Logits.Slice(row, row+a.want), a.seq.out.logits)
		}
		row += a.want
	}
	readSums(e.model, step)
	e.scheduler.drafts.model.watch(e.model, step, plan)
	if asked {
		out.best, out.probs = resize(out.best, n*model.MostAlternatives), resize(out.probs, n*(1+model.MostAlternatives))
		model.ReadI32(q, b.Sample.Best, out.best)
		model.ReadF32(q, b.Sample.Probs, out.probs)
	}
	return out, q.Sync()
}

// end settles the step in hand and hands out what it brought.
func (e *Engine) end(step *model.Step, out *result, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	plan := e.scheduler.plan
	if err != nil {
		e.scheduler.fail()
		for _, a := range plan {
			if !a.seq.out.done {
				e.scheduler.counts.Failed++
			}
			a.seq.close(fmt.Errorf("%w: %d rows of %d sequences: %w", ErrStep, len(step.IDs), len(plan), err))
		}
	} else {
		e.scheduler.commit(out.ids)
		e.scheduler.drafts.model.feed(plan)
		now, row := time.Now(), 0
		for _, a := range plan {
			if last := a.seq.times.last; !last.IsZero() && a.got > 0 {
				e.scheduler.counts.gap(now.Sub(last), e.scheduler.pace.alone.at)
			}
			for i := 1; i < a.got; i++ { // those that were drafted come with the one before
				e.scheduler.counts.gap(0, 0)
			}
			a.seq.deliver(a, out, row, now)
			row += a.want
		}
	}
	if e.check {
		e.prove()
	}
}

// prove panics when the scheduler's books are wrong.
func (e *Engine) prove() {
	if err := cmp.Or(e.scheduler.check(), e.scheduler.drafts.model.check()); err != nil {
		panic("winnow: bug: engine: " + err.Error())
	}
}

// resize is a slice of n values, in v's memory where that is enough.
func resize[T any](v []T, n int) []T { return slices.Grow(v[:0], n)[:n] }
