package serve

import (
	"fmt"
	"slices"
)

// check proves the pool's books. The mutex is held.
func (p *Pool) check() error {
	var excess int64
	memory, models := p.taken((*slot).booked)
	for key, s := range p.slots {
		if err := p.checkSlot(s); err != nil || s.key != key {
			return fmt.Errorf("%s of key %s: %w", s.source.Name, key, err)
		}
		excess += s.excess
	}
	if p.opt.Memory > 0 && memory > p.opt.Memory+excess {
		return fmt.Errorf("models take %d bytes of %d, and %d more than was known", memory, p.opt.Memory, excess)
	}
	if p.opt.MaxLoaded > 0 && models > p.opt.MaxLoaded {
		return fmt.Errorf("%d models are loaded, %d may be", models, p.opt.MaxLoaded)
	}
	for i, s := range p.queue {
		if p.slots[s.key] != s || len(s.waiters) == 0 || s.stage == loading || slices.Contains(p.queue[:i], s) {
			return fmt.Errorf("%s is in the queue by mistake", s.source.Name)
		}
	}
	return nil
}

func (p *Pool) checkSlot(s *slot) error {
	queued := slices.Contains(p.queue, s)
	switch {
	case (s.model != nil) != (s.stage == loaded):
		return fmt.Errorf("has a model in stage %d", s.stage)
	case s.leases < 0 || s.leases > 0 && s.stage != loaded:
		return fmt.Errorf("has %d leases in stage %d", s.leases, s.stage)
	case len(s.waiters) > 0 && !queued && s.stage != loading:
		return fmt.Errorf("has %d who wait and is not in the queue", len(s.waiters))
	case len(s.waiters) > 0 && s.stage == loaded && s.leaving == nil:
		return fmt.Errorf("is loaded and lets %d wait", len(s.waiters))
	case s.stage == absent && len(s.waiters) == 0 && !p.closed:
		return fmt.Errorf("is remembered for nobody")
	case s.leaving != nil && (len(p.queue) == 0 || p.queue[0] != s.leaving) && !p.closed:
		return fmt.Errorf("leaves for nobody")
	case s.timer != nil && (!s.idle() || p.pins(s)):
		return fmt.Errorf("is about to be unloaded, with %d leases in stage %d", s.leases, s.stage)
	case s.idle() && s.timer == nil && s.keep >= 0 && !p.pins(s) && !p.closed:
		return fmt.Errorf("is idle for ever")
	}
	return nil
}
