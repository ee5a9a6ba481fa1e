package serve

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"
)

// slot is what became of some weights. Guarded by the pool's mutex.
type slot struct {
	key     string
	source  Source            // that it was last asked for
	names   map[string]Source // those with these weights that were asked for; empty = the catalogue has moved on
	stage   stage
	model   *Model        // while it is loaded
	weighed bool          // need is known
	need    int64         // bytes: an estimate at first, and what it takes once it was loaded
	part    int64         // bytes of need that it may hold together with others, as its source says
	excess  int64         // bytes that the estimate was too low by
	leases  int           // that are out
	waiters []*waiter     // oldest first
	since   time.Time     // when it began to wait for room
	leaving *slot         // that it makes room for: further requests wait, so that it becomes idle; nil = it stays
	keep    time.Duration // how long it stays when nobody asks; below 0 = for ever
	used    time.Time     // when a lease was last given or taken back
	timer   *time.Timer   // while it is idle and will be unloaded; else nil
}

// stage is where a model is on its way in and out of memory.
type stage int

const (
	absent stage = iota
	loading
	loaded
	closing
)

// waiter is a request that waits for its model.
type waiter struct {
	slot  *slot
	ready chan struct{} // closed when it has its lease, or an error
	model *Model
	err   error
}

// booked says whether a slot takes of the pool's memory.
func (s *slot) booked() bool { return s.stage != absent }

// taken is what those slots that count take together. Weights of a mapping that several hold count as often, but never for more than all
// that the mapping has.
func (p *Pool) taken(counts func(*slot) bool) (bytes int64, models int) {
	parts, whole := map[string]int64{}, map[string]int64{}
	for _, s := range p.slots {
		if !counts(s) {
			continue
		}
		bytes, models = bytes+s.need, models+1
		if with := s.source.Sharing; with.Mapping != "" {
			parts[with.Mapping] += s.part
			whole[with.Mapping] = max(whole[with.Mapping], with.Whole, s.part)
		}
	}
	for mapping, sum := range parts {
		bytes -= max(0, sum-whole[mapping])
	}
	return bytes, models
}

// idle says whether it could be unloaded now.
func (s *slot) idle() bool { return s.stage == loaded && s.leases == 0 }

// halt stops the clock of an idle model.
func (s *slot) halt() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// refuse tells all who wait why they wait in vain.
func (s *slot) refuse(err error) {
	for _, w := range s.waiters {
		w.err = err
		close(w.ready)
	}
	s.waiters = nil
}

// serve gives a lease to all who wait. The model is loaded.
func (p *Pool) serve(s *slot) {
	for _, w := range s.waiters {
		s.halt()
		s.leases++
		s.used = time.Now()
		p.busy.Add(1)
		w.model = s.model
		close(w.ready)
	}
	s.waiters = nil
}

// pins says whether a model is never unloaded.
func (p *Pool) pins(s *slot) bool {
	for name := range s.names {
		if p.pinned[name] {
			return true
		}
	}
	return false
}

// expires is when a model is unloaded if nobody asks; zero = never.
func (p *Pool) expires(s *slot) time.Time {
	switch {
	case p.pins(s) || s.keep < 0:
		return time.Time{}
	case s.leases > 0:
		return time.Now().Add(s.keep)
	}
	return s.used.Add(s.keep)
}

// disown notes that a name means the weights of key, and no others any more.
func (p *Pool) disown(name, key string) {
	for _, s := range p.slots {
		if _, has := s.names[name]; s.key == key || !has {
			continue
		}
		if delete(s.names, name); s.source.Name == name && len(s.names) > 0 {
			s.source = s.names[slices.Min(slices.Collect(maps.Keys(s.names)))]
		}
		p.rest(s)
	}
}

// rest decides what becomes of a model that is idle: it is unloaded, now or later, or stays.
func (p *Pool) rest(s *slot) {
	if !s.idle() || p.closed {
		return
	}
	s.halt()
	left := s.keep - time.Since(s.used)
	switch {
	case s.leaving != nil || len(s.names) == 0:
		p.unload(s)
	case p.pins(s) || s.keep < 0:
	case left <= 0:
		p.unload(s)
	default:
		s.timer = time.AfterFunc(left, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.rest(s)
			p.settle()
		})
	}
}

// unload begins to close an idle model.
func (p *Pool) unload(s *slot) {
	s.halt()
	m := s.model
	s.stage, s.model, s.leaving = closing, nil, nil
	p.counters.Unloads++
	p.busy.Go(func() {
		err := m.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		if err != nil && p.unclosed == nil {
			p.unclosed = fmt.Errorf("unload %s: %w", m.Name(), err)
		}
		s.stage = absent
		p.settle()
	})
}

// settle is the end of every change.
func (p *Pool) settle() {
	p.advance()
	if p.opt.Check {
		if err := p.check(); err != nil {
			panic("winnow: bug: serve: pool: " + err.Error())
		}
	}
}

// advance loads the models that wait for room, in order, as far as there is some: none overtakes another, so that a large one gets its
// turn though small ones keep coming.
func (p *Pool) advance() {
	if p.closed {
		return
	}
	p.evict(nil) // an estimate may have been too low
	for {
		p.tidy()
		if len(p.queue) == 0 {
			return
		}
		s := p.queue[0]
		if s.stage != absent || !s.weighed {
			return // until it is closed, or weighed
		}
		if err := p.never(s); err != nil {
			p.fail(s, err)
			continue
		}
		if p.evict(s); !p.fits(s) {
			return // until a model is idle, or closed
		}
		p.queue = p.queue[1:]
		p.load(s)
	}
}

// tidy forgets what nobody waits for. Models that were to leave for somebody who has got his room, or gave up, stay.
func (p *Pool) tidy() {
	p.queue = slices.DeleteFunc(p.queue, func(s *slot) bool { return len(s.waiters) == 0 })
	for _, s := range p.slots {
		if s.leaving != nil && (len(p.queue) == 0 || p.queue[0] != s.leaving) {
			s.leaving = nil
			p.serve(s)
			p.rest(s)
		}
		if s.stage == absent && len(s.waiters) == 0 {
			delete(p.slots, s.key)
		}
	}
	p.queue = slices.DeleteFunc(p.queue, func(s *slot) bool { return len(s.waiters) == 0 })
}

// evict unloads idle models, the one that was not used for the longest first, until a further one has room, nil = none, or none is left. For
// who has waited long, models in use are told to leave too.
func (p *Pool) evict(s *slot) {
	overdue := s != nil && time.Since(s.since) >= p.fairness()
	for p.over(s) {
		v := p.oldest((*slot).idle)
		if v == nil && overdue {
			v = p.oldest(func(s *slot) bool { return s.stage == loaded && s.leaving == nil })
		}
		switch {
		case v == nil:
			return
		case v.idle():
			p.unload(v)
		default:
			v.leaving = s
		}
	}
}

// mostPatience is after how much waiting somebody's wish for room comes before that of the models in use to go on, at the latest.
const mostPatience = 30 * time.Second

func (p *Pool) fairness() time.Duration {
	if p.opt.LoadWait > 0 {
		return min(p.opt.LoadWait/2, mostPatience)
	}
	return mostPatience
}

// oldest finds the slot that was not used for the longest, among those that may be unloaded and meet a condition.
func (p *Pool) oldest(is func(*slot) bool) (oldest *slot) {
	for _, s := range p.slots {
		if is(s) && !p.pins(s) && (oldest == nil || cmp.Or(s.used.Compare(oldest.used), cmp.Compare(s.key, oldest.key)) < 0) {
			oldest = s
		}
	}
	return oldest
}

// over says whether a further model, nil = none, is more than the limits allow, beside those that will stay.
func (p *Pool) over(s *slot) bool {
	return p.exceeds(s, func(o *slot) bool { return o.stage == loading || o.stage == loaded && o.leaving == nil })
}

// fits says whether a model can be loaded now.
func (p *Pool) fits(s *slot) bool {
	return !p.exceeds(s, (*slot).booked)
}

// never says why a model can never be loaded: it is too large for the limits, alone or beside pinned ones.
func (p *Pool) never(s *slot) error {
	pinned := func(o *slot) bool { return o != s && o.stage != absent && p.pins(o) }
	if !p.exceeds(s, pinned) {
		return nil
	}
	left, models := p.opt.Memory, p.opt.MaxLoaded
	for _, o := range p.slots {
		if pinned(o) {
			left, models = left-o.need, models-1
		}
	}
	if p.opt.MaxLoaded > 0 && models < 1 {
		return fmt.Errorf("%w: %s: as many models are pinned as may be loaded: %d", ErrTooLarge, s.source.Name, p.opt.MaxLoaded)
	}
	return tooLarge(s.source.Name, s.need, left)
}

func tooLarge(name string, need, left int64) error {
	return fmt.Errorf("%w: %s takes %d bytes, %d are allowed", ErrTooLarge, name, need, max(0, left))
}

// exceeds says whether a slot, with those that count, is more than the limits allow.
func (p *Pool) exceeds(s *slot, counts func(*slot) bool) bool {
	need, models := p.taken(func(o *slot) bool { return o == s || counts(o) })
	return p.opt.Memory > 0 && need > p.opt.Memory || p.opt.MaxLoaded > 0 && models > p.opt.MaxLoaded
}

// weigh finds how much room a model needs, before it is loaded.
func (p *Pool) weigh(s *slot) {
	source := s.source
	if p.opt.Memory <= 0 || source.Memory == nil {
		s.need, s.weighed = source.Size, true
		return
	}
	p.busy.Go(func() {
		need, err := guarded(source.Memory)
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case p.closed || p.slots[s.key] != s:
			return // nobody waits any more
		case err != nil:
			p.counters.Failures++
			p.fail(s, fmt.Errorf("%w: %s: %w", ErrLoad, source.Name, err))
		default:
			s.need, s.part, s.weighed = max(0, need), source.Sharing.Part, true
		}
		p.settle()
	})
}

// load begins to load a model, whose room is booked from now on.
func (p *Pool) load(s *slot) {
	s.stage, s.keep = loading, p.opt.KeepAlive
	source := s.source
	p.busy.Go(func() {
		started := time.Now()
		m, err := guarded(source.Open)
		switch {
		case err != nil:
			err = fmt.Errorf("%w: %s: %w", ErrLoad, source.Name, err)
		case p.opt.Memory > 0 && m.memory > p.opt.Memory:
			err = errors.Join(tooLarge(source.Name, m.memory, p.opt.Memory), m.Close())
		}
		took := time.Since(started)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.counters.Loading += took
		if err != nil {
			p.counters.Failures++
			s.stage = absent
			p.fail(s, err)
			p.settle()
			return
		}
		p.counters.Loads++
		expected, _ := p.taken((*slot).booked)
		s.stage, s.model, s.used = loaded, m, time.Now()
		s.need, s.part = m.memory, m.shareable
		actual, _ := p.taken((*slot).booked)
		s.excess = max(0, actual-expected)
		if !p.closed {
			p.serve(s)
		}
		p.rest(s)
		p.settle()
	})
}

// fail gives up a model for a while.
func (p *Pool) fail(s *slot, err error) {
	for key, f := range p.failures {
		if time.Since(f.at) >= patience {
			delete(p.failures, key)
		}
	}
	p.failures[s.key] = loadFailure{err, time.Now()}
	s.refuse(err)
}

// guarded calls what reads a model's files. A file that makes it panic is one model's failure, not the process's.
func guarded[T any](read func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("winnow: bug: loading has failed: %v\n%s", p, debug.Stack())
		}
	}()
	return read()
}
