package serve

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
)

// Source is a model that a pool can load.
type Source struct {
	Name    string
	Created time.Time              // of its files
	Size    int64                  // bytes of its weights; 0 = not known
	Open    func() (*Model, error) // loads it; called once at a time
}

// Listing is a model of a pool, as it is now.
type Listing struct {
	Name    string
	Created time.Time
	Size    int64
	Loaded  bool
	Context int          // tokens; 0 unless it is loaded
	Spec    model.Spec   // the zero Spec unless it is loaded
	Engine  engine.Usage // likewise
}

// Pool is several models by name. A model is loaded when it is first asked for and stays; one that fails to load leaves the others
// as they are. Its methods may be called from any goroutine.
type Pool struct {
	slots []*slot // in the order of the sources: the first is the default

	mu     sync.Mutex
	closed bool
	busy   sync.WaitGroup // models in use, and loads under way
}

// slot is one source and what became of it. Guarded by the pool's mutex.
type slot struct {
	Source
	model  *Model
	loaded chan struct{} // while it is being loaded: closed at the end; else nil
	err    error         // why the last load failed
	failed time.Time     // when it did
}

// patience is how long a model that failed to load is not tried again.
const patience = 5 * time.Second

// NewPool makes a pool of sources. The first is the model of requests that name none. Nothing is loaded yet.
func NewPool(sources []Source) *Pool {
	p := &Pool{}
	seen := map[string]bool{}
	for _, s := range sources {
		if !seen[s.Name] {
			seen[s.Name] = true
			p.slots = append(p.slots, &slot{Source: s})
		}
	}
	return p
}

// Acquire finds a model by name, "" for the default, and waits until it is loaded. It stays open at least until release is called,
// which may be done more than once. The error is ErrNoModel, ErrLoad, ErrClosed or the context's. A load goes on when ctx ends.
func (p *Pool) Acquire(ctx context.Context, name string) (m *Model, release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.find(name)
	if s == nil {
		return nil, nil, fmt.Errorf("%w: %.200q", ErrNoModel, name)
	}
	for s.model == nil {
		if p.closed {
			return nil, nil, ErrClosed
		}
		if s.err != nil && time.Since(s.failed) < patience {
			return nil, nil, fmt.Errorf("%w: %s: %w", ErrLoad, s.Name, s.err)
		}
		if s.loaded == nil {
			p.load(s)
		}
		loaded := s.loaded
		p.mu.Unlock()
		select {
		case <-loaded:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, nil, fmt.Errorf("wait for %s to load: %w", s.Name, err)
		}
	}
	if p.closed {
		return nil, nil, ErrClosed
	}
	p.busy.Add(1)
	return s.model, sync.OnceFunc(p.busy.Done), nil
}

func (p *Pool) find(name string) *slot {
	for _, s := range p.slots {
		if s.Name == name || name == "" {
			return s
		}
	}
	return nil
}

// load starts to load a slot. The mutex is held.
func (p *Pool) load(s *slot) {
	s.loaded, s.err = make(chan struct{}), nil
	p.busy.Go(func() {
		m, err := s.open()
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
func (p *Pool) List() []Listing {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Listing, len(p.slots))
	for i, s := range p.slots {
		out[i] = Listing{Name: s.Name, Created: s.Created, Size: s.Size}
		if s.model != nil && !p.closed {
			out[i].Loaded, out[i].Spec, out[i].Context = true, s.model.Spec(), s.model.Context()
			out[i].Engine = s.model.Usage()
		}
	}
	return out
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
