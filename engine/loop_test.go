package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/tensor"
)

// empty proves that nothing is left of any request. The request that it makes itself ends in a step after all that came before.
func empty(t *testing.T, e *Engine) {
	t.Helper()
	if _, err := collect(e.Generate(t.Context(), Request{Prompt: []int32{1}, MaxTokens: 1, Alternatives: -1})); err != nil {
		t.Error(err)
	}
	if u := e.Usage(); u.Running+u.Waiting+u.PagesUsed != 0 {
		t.Errorf("left: %+v", u)
	}
}

// TestCancelInPlace ends requests in every place that they can be in: waiting, and catching up with a step in hand.
func TestCancelInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := open(t, model.Limits{Rows: 16, Sequences: 1, Wanted: 1, Pages: 4, Context: 256})
		goOn, steps := make(chan bool), 0
		s.atSync = func() error {
			if steps++; steps == 2 {
				<-goOn
			}
			return nil
		}
		long := Request{Prompt: make([]int32, 60), MaxTokens: 50, Alternatives: -1}
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		errs := make(chan error)
		ask := func(ctx context.Context) {
			_, err := collect(e.Generate(ctx, long))
			errs <- err
		}
		go ask(first)
		synctest.Wait() // its second chunk is in hand
		go ask(second)
		synctest.Wait()
		if u := e.Usage(); u.Running != 1 || u.Waiting != 1 {
			t.Errorf("%+v", u)
		}
		cancelSecond()
		if err := <-errs; !errors.Is(err, context.Canceled) || e.Usage().Waiting != 0 {
			t.Errorf("cancelled while waiting: %v, %+v", err, e.Usage())
		}
		cancelFirst()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled in a step: %v", err)
		}
		if u := e.Usage(); u.Running != 1 || u.PagesUsed == 0 || u.Cancelled != 2 {
			t.Errorf("pages are given back while the device writes them: %+v", u)
		}
		goOn <- true
		synctest.Wait()
		if u := e.Usage(); u.Running != 0 || u.PagesUsed != 0 || u.Steps != 2 {
			t.Errorf("it went on: %+v", u)
		}
	})
}

// TestCancelUnderWay ends requests that generate, by leaving the loop and by the context.
func TestCancelUnderWay(t *testing.T) {
	e, _ := open(t, model.Limits{Rows: 16, Sequences: 1, Wanted: 1, Pages: 4, Context: 256})
	long := Request{Prompt: make([]int32, 60), MaxTokens: 50, Alternatives: -1}
	for range e.Generate(t.Context(), long) { // left after its first token
		break
	}
	empty(t, e)
	if u := e.Usage(); u.Cancelled != 1 || u.Generated >= 50 {
		t.Errorf("%+v", u)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	for _, err := range e.Generate(ctx, long) {
		if cancel(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		n++
	}
	if n >= 50 {
		t.Errorf("%d tokens came", n)
	}
	empty(t, e)
	if err := e.Score(ctx, Scoring{IDs: long.Prompt}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	if err := e.Score(ctx, Scoring{IDs: long.Prompt}, func(int, []float32) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	empty(t, e)
}

// TestStepFails: whoever took part in a failed step gets its error, and nobody else.
func TestStepFails(t *testing.T) {
	e, s := open(t, ample)
	broken := errors.New("the device is on fire")
	var syncs atomic.Int32 // two a step: before its tokens are chosen and at its end
	s.atSync = func() error {
		if syncs.Add(1) == 5 {
			return broken
		}
		return nil
	}
	r := requests(6)[5]
	r.MaxTokens = 10
	tokens, err := collect(e.Generate(t.Context(), r))
	if !errors.Is(err, ErrStep) || !errors.Is(err, broken) || len(tokens) != 2 {
		t.Errorf("%d tokens, %v", len(tokens), err)
	}
	again, err := collect(e.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	if err := same(again[:2], tokens); err != nil {
		t.Error(err)
	}
	empty(t, e)
	if u := e.Usage(); u.Failed != 1 {
		t.Errorf("%+v", u)
	}
}

func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{Device: tensor.Reference()}
		m := load(t, model.Limits{Rows: 8, Sequences: 1, Wanted: 1, Pages: 2, Context: 100}, s)
		goOn := make(chan bool)
		s.atSync = func() error {
			<-goOn
			return nil
		}
		l := NewLoop()
		t.Cleanup(l.Close)
		e := l.Open(m, Options{Queue: 2, Check: true})
		r := Request{Prompt: []int32{3}, MaxTokens: 1, Alternatives: -1}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := collect(e.Generate(t.Context(), r)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // one is in a step, two wait
		if _, err := collect(e.Generate(t.Context(), r)); !errors.Is(err, ErrQueueFull) {
			t.Errorf("one too many: %v", err)
		}
		close(goOn)
		wg.Wait()
		empty(t, e)
	})
}

func TestClose(t *testing.T) {
	e, _ := open(t, ample)
	n := 0
	_, err := collect(func(yield func(Token, error) bool) {
		for tok, err := range e.Generate(t.Context(), Request{Prompt: []int32{1}, MaxTokens: 200, Alternatives: -1}) {
			if n++; n == 1 {
				e.Close()
				e.Close()
			}
			if !yield(tok, err) {
				return
			}
		}
	})
	if !errors.Is(err, ErrClosed) || n > 200 {
		t.Errorf("%d tokens, %v", n, err)
	}
	if _, err := collect(e.Generate(t.Context(), Request{Prompt: []int32{1}})); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := e.Score(t.Context(), Scoring{IDs: []int32{1}}, nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	e.loop.Close()
	e.loop.Close()
	late := e.loop.Open(load(t, ample, tensor.Reference()), Options{})
	if _, err := collect(late.Generate(t.Context(), Request{Prompt: []int32{1}})); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestTwoEngines: one loop steps both, and closing one leaves the other.
func TestTwoEngines(t *testing.T) {
	all := requests(4)
	want := alone(t, all)
	one, two := load(t, ample, tensor.Reference()), load(t, ample, tensor.Reference())
	l := NewLoop()
	t.Cleanup(l.Close)
	engines := []*Engine{l.Open(one, Options{Check: true}), l.Open(two, Options{Check: true})}
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() {
			got, err := collect(engines[i%2].Generate(t.Context(), r))
			if err = errors.Join(err, same(got, want[i])); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	engines[0].Close()
	empty(t, engines[1])
}

// TestStorm lets many come and leave at any time.
func TestStorm(t *testing.T) {
	e, _ := open(t, model.Limits{Rows: 24, Sequences: 4, Wanted: 6, Pages: 5, Context: 256})
	all := requests(7)
	var wg sync.WaitGroup
	var full, done atomic.Int32
	for i := range 100 {
		wg.Go(func() {
			r := all[i%len(all)]
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n := 0
			for _, err := range e.Generate(ctx, r) {
				switch {
				case errors.Is(err, ErrQueueFull):
					full.Add(1)
				case err != nil && !errors.Is(err, context.Canceled):
					t.Error(err)
				}
				if n++; n == i%6 {
					if i%2 == 0 {
						break
					}
					cancel()
				}
			}
			done.Add(1)
		})
	}
	wg.Wait()
	empty(t, e)
	if u := e.Usage(); done.Load() != 100 || full.Load() == 0 || u.Generated == 0 {
		t.Error(fmt.Sprintf("%d done, %d refused", done.Load(), full.Load()), u)
	}
}

// The loop may come to an engine that was closed after the round began, when its model is gone.
func TestClosedEngineLeavesItsModel(t *testing.T) {
	e, _ := open(t, ample)
	if _, err := collect(e.Generate(t.Context(), requests(1)[0])); err != nil {
		t.Fatal(err)
	}
	e.Close()
	e.turn.Lock()
	e.tally.stale, e.model = true, nil
	e.turn.Unlock()
	if e.step() {
		t.Error("a closed engine steps")
	}
}
