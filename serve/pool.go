package serve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
)

// PoolOptions are what an operator decides about a pool.
type PoolOptions struct {
	Models Catalogue
}

// Listing is a model of a pool, as it is now.
type Listing struct {
	Name    string
	Created time.Time
	Size    int64  // bytes of its files
	Digest  string // as its Source's
	Loaded  bool
	Context int          // tokens; 0 unless it is loaded
	Spec    model.Spec   // the zero Spec unless it is loaded
	Engine  engine.Usage // likewise
	Memory  int64        // bytes that it takes in memory, weights, cache and buffers; likewise
	Expires time.Time    // when it is unloaded if nobody asks; zero = never, or not loaded
}

// Pool is several models by name. A model is loaded when it is first asked for; one that fails to load leaves the others
// as they are. Names of the same weights share one loaded model. Its methods may be called from any goroutine.
type Pool struct {
	opt PoolOptions

	mu     sync.Mutex
	closed bool
	slots  map[string]*slot // by Source.Weights
	busy   sync.WaitGroup   // models in use, and loads under way
}

// slot is what became of some weights. Guarded by the pool's mutex.
type slot struct {
	source Source // that it is loaded for
	model  *Model
	loaded chan struct{} // while it is being loaded: closed at the end; else nil
	err    error         // why the last load failed
	failed time.Time     // when it did
}

// patience is how long a model that failed to load is not tried again.
const patience = 5 * time.Second

// NewPool makes a pool. Nothing is loaded yet.
func NewPool(opt PoolOptions) *Pool { return &Pool{opt: opt, slots: map[string]*slot{}} }

// Acquire finds a model by name, "" for the default, and waits until it is loaded. It stays open at least until its lease is released.
// The error is ErrNoModel, ErrLoad, ErrClosed or the context's. A load goes on when ctx ends.
func (p *Pool) Acquire(ctx context.Context, name string) (*Lease, error) {
	source, err := p.opt.Models.Find(name)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	l, err := p.acquire(ctx, &source)
	if err == nil && l.Loading > 0 {
		l.Loading = time.Since(started)
	}
	return l, err
}

func (p *Pool) acquire(ctx context.Context, source *Source) (*Lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.slots[source.weights()]
	if s == nil {
		s = &slot{source: *source}
		p.slots[source.weights()] = s
	}
	lease := &Lease{}
	for s.model == nil {
		if p.closed {
			return nil, ErrClosed
		}
		if s.err != nil && time.Since(s.failed) < patience {
			return nil, fmt.Errorf("%w: %s: %w", ErrLoad, source.Name, s.err)
		}
		if s.loaded == nil {
			p.load(s, source)
		}
		lease.Loading = 1
		loaded := s.loaded
		p.mu.Unlock()
		select {
		case <-loaded:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("wait for %s to load: %w", source.Name, err)
		}
	}
	if p.closed {
		return nil, ErrClosed
	}
	var err error
	if lease.Model, err = s.model.as(source); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrLoad, source.Name, err)
	}
	p.busy.Add(1)
	lease.release = sync.OnceFunc(p.busy.Done)
	return lease, nil
}

// load starts to load a slot. The mutex is held.
func (p *Pool) load(s *slot, source *Source) {
	s.loaded, s.err = make(chan struct{}), nil
	p.busy.Go(func() {
		m, err := source.open()
		p.mu.Lock()
		defer p.mu.Unlock()
		s.model, s.err, s.failed = m, err, time.Now()
		close(s.loaded)
		s.loaded = nil
	})
}

// open loads a model. A file that makes the loader panic is one model's failure, not the process's.
func (s *Source) open() (m *Model, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("winnow: bug: loading has failed: %v\n%s", p, debug.Stack())
		}
	}()
	return s.Open()
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

// Loaded describes the models that are loaded, each under the name that it was loaded for.
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
	if s := p.slots[source.weights()]; s != nil && s.model != nil && !p.closed {
		l.Loaded, l.Spec, l.Context, l.Engine = true, s.model.Spec(), s.model.Context(), s.model.Usage()
	}
	return l
}

// Close refuses further requests, waits until no model is in use or being loaded, and closes all. A second Close does nothing.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	p.busy.Wait()
	var errs []error
	for _, s := range p.slots {
		if s.model != nil {
			errs = append(errs, s.model.Close())
		}
	}
	return errors.Join(errs...)
}
