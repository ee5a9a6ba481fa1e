package serve

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/tensor"
)

var errBroken = errors.New("broken")

// A model is loaded once, however many ask; one that cannot be loaded is tried again after a while and leaves the others alone.
func TestPool(t *testing.T) {
	loop := engine.NewLoop()
	defer loop.Close()
	var loads atomic.Int32
	p := NewPool(PoolOptions{Models: Sources{
		{Name: "a", Size: 7, Created: time.Unix(5, 0), Open: func() (*Model, error) {
			loads.Add(1)
			time.Sleep(20 * time.Millisecond)
			return Open("a", checkpoint(t, stories), Options{Device: tensor.Reference(), Loop: loop, DType: model.Float32, Sequences: 2})
		}},
		{Name: "b", Open: func() (*Model, error) { return nil, errBroken }},
		{Name: "hostile", Open: func() (*Model, error) { panic("winnow: bug: on purpose") }},
	}})
	var all sync.WaitGroup
	for _, name := range []string{"a", "", "a", "b"} {
		all.Go(func() {
			m, err := p.Acquire(t.Context(), name)
			if name == "b" {
				if !errors.Is(err, ErrLoad) || !errors.Is(err, errBroken) {
					t.Errorf("b: %v", err)
				}
				return
			}
			if err != nil || m.Name() != "a" {
				t.Errorf("%q: %v", name, err)
				return
			}
			m.Release()
			m.Release()
		})
	}
	all.Wait()
	if n := loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
	if _, err := p.Acquire(t.Context(), "c"); !errors.Is(err, ErrNoModel) {
		t.Errorf("c: %v", err)
	}
	if _, err := p.Acquire(t.Context(), "hostile"); !errors.Is(err, ErrLoad) {
		t.Errorf("hostile: %v", err)
	}
	l, err := p.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(l) != 3 || l[0].Name != "a" || !l[0].Loaded || l[0].Size != 7 || l[0].Spec.Vocab != 512 || l[0].Context != 512 || l[1].Loaded {
		t.Errorf("%+v", l)
	}
	m, err := p.Acquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- p.Close() }()
	select {
	case <-closed:
		t.Error("closed while a model was in use")
	case <-time.After(10 * time.Millisecond):
	}
	if _, err := p.Acquire(t.Context(), "a"); !errors.Is(err, ErrClosed) {
		t.Errorf("while it closes: %v", err)
	}
	m.Release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// Who waits for a load can leave; the load goes on, and a failed one is repeated when patience is over.
func TestPoolPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loads := 0
		p := NewPool(PoolOptions{Models: Sources{{Name: "a", Open: func() (*Model, error) {
			loads++
			time.Sleep(time.Minute)
			return nil, errBroken
		}}}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Acquire(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: %v", err)
		}
		for i, wait := range []time.Duration{0, 0, patience} {
			time.Sleep(wait)
			if _, err := p.Acquire(t.Context(), "a"); !errors.Is(err, ErrLoad) {
				t.Errorf("try %d: %v", i, err)
			}
		}
		if loads != 2 {
			t.Errorf("%d loads", loads)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}
