package serve

import (
	"context"
	"errors"
	"fmt"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
)

// ResizeExperts gives the experts of a model so many bytes of memory from now on, and says what they take of them, in whole experts. The model
// is loaded first if it is not. Its requests go on, and get the answers that they would have got. What it gives back, models that wait for room get.
//
// The error is one of Acquire's; ErrTooLarge where the pool's models would take more than they may, for which none is unloaded; a RequestError
// where the model's experts are all loaded, or where not even those of a token would have room.
func (p *Pool) ResizeExperts(ctx context.Context, name string, bytes int64) (int64, error) {
	l, err := p.Acquire(ctx, name)
	if err != nil {
		return 0, err
	}
	defer l.Release()
	p.resizing.Lock()
	defer p.resizing.Unlock()
	before := l.engine.ExpertBytes()
	more := max(0, bytes-before)
	if err := p.book(l.slot, more); err != nil {
		return before, err
	}
	took, err := l.engine.ResizeExperts(bytes)
	if errors.Is(err, engine.ErrClosed) {
		took = before
	}
	p.unbook(l.slot, more-(took-before))
	switch {
	case errors.Is(err, engine.ErrClosed):
		return took, fmt.Errorf("%w: %s", ErrClosed, l.Name())
	case errors.Is(err, model.ErrAllLoaded):
		return took, &RequestError{Param: "expert_memory", Why: "is of models that do not have all experts loaded", Err: err}
	case errors.Is(err, model.ErrExpertBytes):
		return took, &RequestError{Param: "expert_memory", Why: "is too little", Err: err}
	case err != nil:
		return took, fmt.Errorf("resize the experts of %s: %w", l.Name(), err)
	}
	return took, nil
}

// book takes room for a model that becomes larger.
func (p *Pool) book(s *slot, more int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.need += more; more > 0 && p.opt.Memory > 0 {
		if taken, _ := p.taken((*slot).booked); taken > p.opt.Memory {
			s.need -= more
			return tooLarge(s.source.Name, s.need+more, p.opt.Memory-(taken-s.need-more))
		}
	}
	return nil
}

// unbook gives back room that a model does not take after all.
func (p *Pool) unbook(s *slot, less int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.need -= less
	p.settle()
}
