package engine

import (
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
	e.root = e.scheduler.pool.root(m.Fingerprint())
	e.scheduler.pace.stride = min(firstStride, m.Limits().Rows)
	e.embeddings = make(chan struct{}, 2*e.scheduler.limits.Sequences)
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.closed = l.closed; !e.closed {
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

// step computes one step of the engine's sequences and says whether there was one.
func (e *Engine) step() bool {
	e.turn.Lock()
	defer e.turn.Unlock()
	if !e.begin() {
		return false
	}
	started := time.Now()
	out, err := e.compute()
	e.end(out, err, time.Since(started))
	return true
}

// begin plans a step and writes it to e.work.
func (e *Engine) begin() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	plan := e.scheduler.next()
	if len(plan) == 0 {
		if !e.idle {
			e.idle = true
			e.prove()
		}
		return false
	}
	e.idle = false
	now := time.Now()
	for _, a := range plan {
		if a.seq.times.started.IsZero() {
			a.seq.times.started = now
		}
	}
	e.scheduler.fill(&e.work)
	return true
}

// result is what the device says of a step's wanted rows. The slices are used again in the next step.
type result struct {
	ids   []int32   // one a wanted row; empty in a step that samples nothing
	best  []int32   // model.MostAlternatives a wanted row; empty when nobody asked
	probs []float32 // 1 + model.MostAlternatives a wanted row; likewise
}

// compute runs the planned step on the device. Only the loop's goroutine calls it, without the engine's mutex: the sequences in the step
// keep their tokens and pages until its end, and the work was copied.
func (e *Engine) compute() (*result, error) {
	q, b, out, n := e.model.Queue(), e.model.Batch(), &e.result, len(e.work.Draws)
	b.Fill(q, &e.work)
	logits := e.model.Forward(b)
	out.ids, out.best, out.probs = resize(out.ids, n), resize(out.best, 0), resize(out.probs, 0)
	if n > 0 {
		q.Run(&b.Sample)
		model.ReadI32(q, b.Sample.IDs, out.ids)
	}
	row, asked := 0, false
	for _, a := range e.scheduler.plan {
		asked = asked || a.want > 0 && a.seq.alternatives >= 0
		if a.seq.every && a.want > 0 {
			a.seq.out.logits = resize(a.seq.out.logits, a.want*logits.Cols)
			model.ReadF32(q, logits.Slice(row, row+a.want), a.seq.out.logits)
		}
		row += a.want
	}
	readSums(e.model, &e.work)
	if asked {
		out.best, out.probs = resize(out.best, n*model.MostAlternatives), resize(out.probs, n*(1+model.MostAlternatives))
		model.ReadI32(q, b.Sample.Best, out.best)
		model.ReadF32(q, b.Sample.Probs, out.probs)
	}
	return out, q.Sync()
}

// end settles the step in hand, which took so long, and hands out what it brought.
func (e *Engine) end(out *result, err error, took time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	plan := e.scheduler.plan
	e.scheduler.timed(took)
	if err != nil {
		e.scheduler.fail()
		for _, a := range plan {
			if !a.seq.out.done {
				e.scheduler.counts.Failed++
			}
			a.seq.close(fmt.Errorf("%w: %d rows of %d sequences: %w", ErrStep, len(e.work.IDs), len(plan), err))
		}
	} else {
		e.scheduler.commit(out.ids)
		now, row := time.Now(), 0
		for _, a := range plan {
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
	if err := e.scheduler.check(); err != nil {
		panic("winnow: bug: engine: " + err.Error())
	}
}

// resize is a slice of n values, in v's memory where that is enough.
func resize[T any](v []T, n int) []T { return slices.Grow(v[:0], n)[:n] }
