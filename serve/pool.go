package serve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
)

// PoolOptions are what an operator decides about a pool.
type PoolOptions struct {
	Models    Catalogue
	Memory    int64           // most bytes that loaded models take together; 0 = no limit
	MaxLoaded int             // most models loaded at once; 0 = no limit
	KeepAlive time.Duration   // how long a model stays that nobody asks for; 0 or below = for ever
	LoadWait  time.Duration   // how long a request waits for its model to be loaded, or for room; 0 = as long as its client does
	Pinned    []string        // names of models that are never unloaded
	Check     bool            // the pool checks its books after every change
	Cache     *Cache          // of the models, to be counted; nil = none
	Prefixes  *store.Prefixes // likewise
}

// Listing is a model of a pool, as it is now.
type Listing struct {
	Name    string
	Created time.Time
	Size    int64  // bytes of its files
	Digest  string // as its Source's
	Loaded  bool
	Context int            // tokens; 0 unless it is loaded
	Spec    model.Spec     // the zero Spec unless it is loaded
	Engine  engine.Usage   // likewise
	Experts []ExpertCounts // which were chosen since it was loaded; nil unless it is loaded and has some
	Profile *ExpertProfile // how they were chosen when it was profiled; nil = nobody says
	Memory  int64          // bytes that it takes in memory, weights, cache and buffers; likewise
	Expires time.Time      // when it is unloaded if nobody asks; zero = never, or not loaded
}

// Pool is several models by name. A model is loaded when it is first asked for, and unloaded when nobody has asked for a while or when
// another one needs the room, which the one that was not asked for the longest leaves first. None is unloaded while a lease of it is out.
// One that fails to load leaves the others as they are. Names of the same weights share one loaded model. Its methods may be called from
// any goroutine.
type Pool struct {
	opt PoolOptions

	mu       sync.Mutex
	closed   bool
	pinned   map[string]bool        // names, as the operator and as sources spell them
	slots    map[string]*slot       // by Source.key: what is loaded, on its way in or out, or waited for
	queue    []*slot                // those that wait for room, in the order in which they were asked for
	failures map[string]loadFailure // by Source.key
	counters Counters               // those that only grow
	unclosed error                  // the first failure to close a model
	resizing sync.Mutex             // held while a model gets another size
	busy     sync.WaitGroup         // leases, loads and closings
}

// Counters are what a pool has done, and what its models take now.
type Counters struct {
	Loads    int64         // that succeeded
	Failures int64         // loads that did not
	Unloads  int64         //
	Loading  time.Duration // that all loads took together
	Loaded   int           // models that are loaded
	Waiting  int           // requests that wait for a model
	Memory   int64         // bytes that models take, those on their way in and out too
	Budget   int64         // bytes that they may take together; 0 = no limit
}

// loadFailure is why a model could not be loaded, and when.
type loadFailure struct {
	err error
	at  time.Time
}

// patience is how long a model that failed to load is not tried again.
const patience = 5 * time.Second

// NewPool makes a pool. Nothing is loaded yet.
func NewPool(opt PoolOptions) *Pool {
	if opt.KeepAlive <= 0 {
		opt.KeepAlive = -1
	}
	p := &Pool{opt: opt, pinned: map[string]bool{}, slots: map[string]*slot{}, failures: map[string]loadFailure{}}
	for _, name := range opt.Pinned {
		p.pinned[name] = true
	}
	return p
}

// Acquire finds a model by name, "" for the default, and waits until it is loaded. It stays open at least until its lease is released.
// The error is ErrNoModel, ErrLoad, ErrTooLarge, ErrBusy after LoadWait, ErrClosed or the context's cause. A load that has begun goes on
// when ctx ends.
func (p *Pool) Acquire(ctx context.Context, name string) (*Lease, error) {
	source, err := p.opt.Models.Find(name)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	w, err := p.ask(name, &source)
	if err != nil {
		return nil, err
	}
	l := &Lease{}
	select {
	case <-w.ready:
		err = w.err
	default:
		err = p.wait(ctx, w)
		l.Loading = max(1, time.Since(started))
	}
	if err != nil {
		return nil, err
	}
	l.slot = w.slot
	l.release = sync.OnceFunc(func() { p.release(w.slot, l.keep) })
	if l.Model, err = w.model.As(&source); err != nil {
		l.Release()
		return nil, fmt.Errorf("%w: %s: %w", ErrLoad, source.Name, err)
	}
	return l, nil
}

// ask gives a lease if the model is there, and else lines up for it.
func (p *Pool) ask(name string, source *Source) (*waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if p.pinned[name] {
		p.pinned[source.Name] = true
	}
	key := source.key()
	p.disown(source.Name, key)
	defer p.settle()
	if f, ok := p.failures[key]; ok && time.Since(f.at) < patience {
		return nil, f.err
	}
	s := p.slots[key]
	if s == nil {
		s = &slot{key: key, names: map[string]Source{}}
		p.slots[key] = s
	}
	s.source, s.names[source.Name] = *source, *source
	w := &waiter{slot: s, ready: make(chan struct{})}
	s.waiters = append(s.waiters, w)
	p.advance() // which may find that somebody else has waited long enough for this model's room
	switch {
	case s.stage == loaded && s.leaving == nil:
		p.serve(s)
	case s.stage != loading && !slices.Contains(p.queue, s):
		s.since = time.Now()
		p.queue = append(p.queue, s)
		if s.stage == absent && !s.weighed {
			p.weigh(s)
		}
	}
	return w, nil
}

// wait waits until a waiter has its lease, or says why it will not.
func (p *Pool) wait(ctx context.Context, w *waiter) error {
	var late <-chan time.Time
	if p.opt.LoadWait > 0 {
		timer := time.NewTimer(p.opt.LoadWait)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-w.ready:
		return w.err
	case <-ctx.Done():
	case <-late:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.model != nil || w.err != nil { // meanwhile
		return w.err
	}
	s := w.slot
	s.waiters = slices.DeleteFunc(s.waiters, func(o *waiter) bool { return o == w })
	defer p.settle()
	if ctx.Err() != nil {
		return fmt.Errorf("wait for %s to load: %w", s.source.Name, context.Cause(ctx))
	}
	if s.stage == loading {
		return fmt.Errorf("%w: %s is still being loaded", ErrBusy, s.source.Name)
	}
	return fmt.Errorf("%w: no room for %s beside the models in use", ErrBusy, s.source.Name)
}

// release takes a lease back. keep is what its holder wishes for the time after; nil = nothing.
func (p *Pool) release(s *slot, keep *time.Duration) {
	defer p.busy.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	s.leases--
	s.used = time.Now()
	if keep != nil {
		s.keep = *keep
	}
	p.rest(s)
	p.settle()
}

// Unload unloads a model at once, or as soon as nobody uses it. It does not wait for that. The error is ErrNoModel or ErrPinned; a model
// that is not loaded is none.
func (p *Pool) Unload(name string) error {
	source, err := p.opt.Models.Find(name)
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.settle()
	if err != nil {
		return p.abandon(name, err)
	}
	s := p.slots[source.key()]
	switch {
	case s == nil || s.stage != loaded && s.stage != loading:
		return nil
	case p.pins(s):
		return fmt.Errorf("%w: %s", ErrPinned, s.source.Name)
	}
	s.keep = 0
	p.rest(s)
	return nil
}

// abandon is Unload for a name that the catalogue does not have any more, which err says: what is loaded under it stays only where the same
// weights have another name.
func (p *Pool) abandon(name string, err error) error {
	for _, s := range p.slots {
		for known := range s.names {
			switch {
			case !SameName(known, name):
				continue
			case p.pins(s):
				return fmt.Errorf("%w: %s", ErrPinned, known)
			}
			p.disown(known, "")
			return nil
		}
	}
	return err
}

// List describes all models, the default first.
func (p *Pool) List() ([]Listing, error) {
	sources, err := p.opt.Models.List()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Listing, len(sources))
	for i := range sources {
		out[i] = p.listing(&sources[i])
	}
	return out, nil
}

// Loaded describes the models that are loaded, each under the name that it was last asked for by.
func (p *Pool) Loaded() (out []Listing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(p.slots)) {
		if l := p.listing(&p.slots[key].source); l.Loaded {
			out = append(out, l)
		}
	}
	return out
}

// listing describes a source. The mutex is held.
func (p *Pool) listing(source *Source) Listing {
	l := Listing{Name: source.Name, Created: source.Created, Size: source.Size, Digest: source.Digest}
	if s := p.slots[source.key()]; s != nil && s.stage == loaded && !p.closed {
		l.Loaded, l.Spec, l.Context, l.Engine = true, s.model.Spec(), s.model.Context(), s.model.Usage()
		l.Memory, l.Expires, l.Experts = s.need, p.expires(s), s.model.Experts()
		l.Profile = s.model.Profile()
	}
	return l
}

// Ready says whether all pinned models are loaded.
func (p *Pool) Ready() bool {
	for _, name := range p.opt.Pinned {
		source, err := p.opt.Models.Find(name)
		if err != nil || !p.has(source.key()) {
			return false
		}
	}
	return true
}

func (p *Pool) has(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.slots[key]
	return s != nil && s.stage == loaded
}

// Counters are those of this moment.
func (p *Pool) Counters() Counters {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counters
	c.Budget = p.opt.Memory
	c.Memory, _ = p.taken((*slot).booked)
	for _, s := range p.slots {
		c.Waiting += len(s.waiters)
		if s.stage == loaded {
			c.Loaded++
		}
	}
	return c
}

// Close refuses further requests, waits until no model is in use or being loaded, and closes all. A second Close does nothing.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	for _, s := range p.slots {
		s.halt()
		s.refuse(ErrClosed)
	}
	p.queue = nil
	p.mu.Unlock()
	p.busy.Wait()
	errs := []error{p.unclosed}
	for _, s := range p.slots {
		if s.model != nil {
			errs = append(errs, s.model.Close())
		}
	}
	return errors.Join(errs...)
}
