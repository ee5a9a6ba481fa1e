// Package engine turns requests into batches and batches into tokens: it plans which sequences advance in a step, which pages of the
// model's cache they use, and hands every request its tokens. It knows ids, never strings.
package engine

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/winnow-llm/winnow/model"
)

// Options are what a caller decides about an engine.
type Options struct {
	Queue int  // requests that may wait beyond those that a step holds, before ErrQueueFull; 0 = 256
	Check bool // prove the engine's books after every step, and not only when it falls idle; and each plan of keys before it is read, see model.Prove
	// MaxUnique is how many different experts of a layer a step of those who generate is meant to run at most, 0 = any number: fewer sequences
	// then generate at once, but always one, and others wait for their turn. It is meant for models whose experts are not all in fast memory.
	MaxUnique int
	// Draft says whether steps compute tokens that are foretold for a sequence along with its next one. It changes none of them. A step has room
	// for such rows as far as the model's Limits have more wanted rows than sequences run.
	Draft Drafting
	// Drafter foretells tokens where Draft asks for that; nil = there is none.
	Drafter *Drafter
	// Prefixes keep pages that have no room in the model's memory, and those of engines that are closed; nil = nothing does. Identity is what
	// models have in common whose pages may be exchanged: see model.PageIdentity, and add the program, unless others compute the same bits.
	Prefixes Prefixes
	Identity string
}

const defaultQueue = 256

// Engine serves requests with one model. Its methods may be called from any goroutine.
//
// The mutex guards the scheduler and all its sequences. The loop takes it to plan and to settle a step and leaves it while the device
// works, so nobody waits for a device to ask, cancel or look.
type Engine struct {
	loop  *Loop
	model *model.Model
	check bool
	root  int32 // of the prefix tree, for the model's selectors

	embeddings chan struct{} // has a place for each embedding under way

	turn   sync.Mutex // held while the loop steps the engine
	work   model.Step // the step in hand; guarded by turn, as all below
	parts  parts
	result result
	tally  tally
	unique unique
	keeper *keeper   // nil where pages are kept nowhere else
	leaves []spilled // pages to be kept in this turn

	mu        sync.Mutex
	scheduler *scheduler
	closed    bool
	idle      bool // the last plan was empty
	experts   []model.ExpertCounts
}

// Context is how many tokens a sequence may have: the model's limit, or what all pages together hold where that is less.
func (e *Engine) Context() int { return e.scheduler.context() }

// Generate yields the tokens that follow a prompt, as they come; the last one has Finish and Stats. An error is the last thing yielded.
//
// Leaving the loop, or cancelling ctx, ends the sequence within one step and frees everything. A consumer may be as slow as he
// likes: tokens wait for him. Ranging again asks again.
func (e *Engine) Generate(ctx context.Context, r Request) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		lanes, context := e.laned(&r)
		err := r.check(e.model.Spec().Vocab, context)
		if err != nil {
			yield(Token{}, err)
			return
		}
		r.Alternatives = min(r.Alternatives, e.model.Spec().Vocab) // there are no more ids than that
		q := newSequence(&r, context)
		if err := cmp.Or(e.wish(q, r.Experts), e.read(q, r.Reads), e.count(q, &r)); err != nil {
			yield(Token{}, err)
			return
		}
		q.retains(lanes)
		e.foretell(q, &r)
		leave, err := e.enter(ctx, q)
		if err != nil {
			yield(Token{}, err)
			return
		}
		defer leave()
		for range q.out.signal {
			tokens, done, err := e.collect(q)
			for _, t := range tokens {
				if !yield(t, nil) {
					return
				}
			}
			if err != nil {
				yield(Token{}, err)
			}
			if done {
				return
			}
		}
	}
}

// Scoring asks for the logits that follow given tokens.
type Scoring struct {
	IDs     []int32
	From    int            // the first position whose logits are wanted
	Prompt  int            // so many of the ids are a prompt, and those behind it are read as if they had been generated; 0 = all are
	Experts *model.Experts // with how few experts the ids make do; nil = the model's own
	Reads   *model.Reading // by which selectors they read; nil = everything
}

// Score computes the logits that follow every one of ids from one on, and hands them to see in order: rows x vocab of them, where row i
// follows position first+i. See runs on the caller's goroutine and must not keep the slice. Meanwhile the sequence holds its pages and takes
// part in no step, and others go on. Rows come in chunks of at most the model's Limits.Wanted.
func (e *Engine) Score(ctx context.Context, s Scoring, see func(first int, logits []float32)) error {
	if err := e.checkText(s.IDs); err != nil {
		return err
	}
	if s.Prompt < 0 || s.Prompt > len(s.IDs) || s.From < 0 || s.From >= len(s.IDs) {
		return fmt.Errorf("%w: a prompt of %d and logits from %d on, of %d tokens", ErrRequest, s.Prompt, s.From, len(s.IDs))
	}
	q := newScore(&s)
	if err := cmp.Or(e.wish(q, s.Experts), e.read(q, s.Reads)); err != nil {
		return err
	}
	if most := e.model.Limits().Wanted; q.policy != nil && min(q.policy.Align, q.prompt-s.From) > most {
		return fmt.Errorf("%w: sparse: %d tokens of a prompt are planned together, and %d are scored in a step", ErrRequest, q.policy.Align, most)
	}
	leave, err := e.enter(ctx, q)
	if err != nil {
		return err
	}
	defer leave()
	for range q.out.signal {
		first, logits, done, err := e.look(q)
		if err != nil {
			return err
		}
		if len(logits) > 0 {
			see(first, logits)
			e.resume(q)
		}
		if done {
			return nil
		}
	}
	return nil
}

// Usage is the load at this moment.
func (e *Engine) Usage() Usage {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.scheduler.usage()
}

// Close ends all requests with ErrClosed and waits for the step in hand; then nobody touches the model. Requests that come later are
// refused.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	for _, q := range slices.Concat(e.scheduler.running, e.scheduler.waiting) {
		e.scheduler.abort(q)
		q.close(ErrClosed)
	}
	e.mu.Unlock()
	e.loop.remove(e)
	e.turn.Lock()
	defer e.turn.Unlock()
	e.settle()
	e.closeKeeper()
}

// settle ends what is under way in a closed engine.
func (e *Engine) settle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.scheduler.chunk) > 0 { // nobody will finish it
		e.scheduler.resume()
		e.scheduler.fail()
	}
	e.prove()
}

// enter lets a sequence wait for its turn. What it returns takes the sequence out again, whatever became of it.
func (e *Engine) enter(ctx context.Context, q *sequence) (leave func(), err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	if err := e.scheduler.add(q); err != nil {
		return nil, err
	}
	q.root, q.times.arrived = e.root, time.Now()
	e.loop.kick()
	stop := context.AfterFunc(ctx, func() { e.cancel(q, context.Cause(ctx)) })
	return func() {
		stop()
		e.cancel(q, context.Canceled)
	}, nil
}

// cancel takes a sequence out whose consumer leaves, or is told to by err. It does nothing when all was done.
func (e *Engine) cancel(q *sequence, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if q.out.done {
		return
	}
	e.scheduler.abort(q)
	e.scheduler.counts.Cancelled++
	q.out.tokens = nil
	q.close(err)
	e.loop.kick() // others may use its pages
}

// collect takes what is in a sequence's outbox.
func (e *Engine) collect(q *sequence) (tokens []Token, done bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	tokens, q.out.tokens = q.out.tokens, nil
	return tokens, q.out.done, q.out.err
}

// look is what a score has for its consumer: rows of logits while it is held, which the loop leaves alone until resume.
func (e *Engine) look(q *sequence) (first int, logits []float32, done bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if q.held {
		logits = q.out.logits
	}
	return q.out.first, logits, q.out.done, q.out.err
}

// resume lets a score go on whose consumer has seen the last rows.
func (e *Engine) resume(q *sequence) {
	e.mu.Lock()
	defer e.mu.Unlock()
	q.held = false
	e.loop.kick()
}
