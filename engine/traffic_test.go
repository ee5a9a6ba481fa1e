package engine_test

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/store"
)

var (
	traffic = flag.Duration("traffic", 2*time.Second, "how long TestTraffic lets clients come and go")
	seed    = flag.Uint64("seed", 1, "what TestTraffic draws from")
)

// TestTraffic lets clients come and go where pages are in memory alone.
func TestTraffic(t *testing.T) { bustle(t, nil) }

// TestTrafficOfKeptPages does the same where pages are kept on a disk that has room for some.
func TestTrafficOfKeptPages(t *testing.T) {
	disk, err := store.OpenPrefixes(t.TempDir(), 4<<20, func(line string) { t.Error(line) })
	if err != nil {
		t.Fatal(err)
	}
	if u := bustle(t, disk); u.Restored == 0 || u.Missing == 0 || disk.Counts().Pages == 0 {
		t.Errorf("nothing was kept, or restored: %+v, %+v", u, disk.Counts())
	}
}

// bustle lets four times as many clients as there are places ask at random for a while, with all priorities, on kernels. Some leave
// early, some are told to, some score prompts or embed them. Whoever stays gets bit for bit what he got alone. The books are proved after every step,
// and in the end nobody holds a page; that no goroutine is left TestMain sees.
func bustle(t *testing.T, to engine.Prefixes) engine.Usage {
	lim := model.Limits{Rows: 64, Sequences: 4, Wanted: 8, Pages: 14, Context: 512}
	r := rand.New(rand.NewPCG(*seed, 0))
	all, want := make([]engine.Request, 24), make([][]engine.Token, 24)
	quiet := start(t, lim)
	for i := range all {
		all[i] = drawn(r)
		var err error
		if want[i], err = answer(quiet, all[i]); err != nil {
			t.Fatalf("seed %d, request %d alone: %v", *seed, i, err)
		}
	}
	e, _ := keeping(t, model.Options{Limits: lim, Sparse: sparse}, to)
	var clients sync.WaitGroup
	var whole, left, refused atomic.Int64
	until := time.Now().Add(*traffic)
	for c := range 4 * lim.Sequences {
		clients.Go(func() {
			r := rand.New(rand.NewPCG(*seed, uint64(1+c)))
			for time.Now().Before(until) && !t.Failed() {
				i := r.IntN(len(all))
				req := all[i]
				req.Priority = r.IntN(4) - 1
				got, err := visit(e, req, r)
				switch {
				case err == nil && len(got) == len(want[i]) && reflect.DeepEqual(got, want[i]):
					whole.Add(1)
				case err == nil && len(got) < len(want[i]) && reflect.DeepEqual(got, want[i][:len(got)]), errors.Is(err, context.Canceled):
					left.Add(1)
				case errors.Is(err, engine.ErrQueueFull):
					refused.Add(1)
				default:
					t.Errorf("seed %d, client %d, request %d: %v, %d tokens of %d: %+v", *seed, c, i, err, len(got), len(want[i]), got)
				}
			}
		})
	}
	clients.Wait()
	if _, err := answer(e, engine.Request{Prompt: []int32{1}, MaxTokens: 1, Alternatives: -1}); err != nil {
		t.Error(err)
	}
	u := e.Usage()
	if u.Running+u.Waiting+u.PagesUsed != 0 || whole.Load() == 0 || left.Load() == 0 || u.Preempted == 0 || u.Cached == 0 {
		t.Errorf("seed %d: %d whole, %d left, %+v", *seed, whole.Load(), left.Load(), u)
	}
	t.Logf("%d answers are whole, %d were left, %d refused; %d preemptions, %d steps, %d pages restored",
		whole.Load(), left.Load(), refused.Load(), u.Preempted, u.Steps, u.Restored)
	return u
}

// drawn is a request at random; prompts come in three families that begin alike.
func drawn(r *rand.Rand) engine.Request {
	family := r.Int32N(3)
	prompt := make([]int32, 1+r.IntN(300))
	for i := range prompt {
		if prompt[i] = int32(i*i+int(family)*100) % 2000; i >= 64*int(family) {
			prompt[i] = r.Int32N(2000)
		}
	}
	q := engine.Request{Prompt: prompt, MaxTokens: 1 + r.IntN(100), Alternatives: r.IntN(3) - 1}
	if r.IntN(2) == 0 {
		q.Sampling = engine.Sampling{
			Temperature: 1, TopK: 50, TypicalP: 0.95, Seed: r.Uint64(), Repetition: 1.1, Frequency: 0.1, Bias: []engine.Bias{{ID: 5, Add: 1}},
		}
	}
	if r.IntN(3) == 0 {
		q.Experts, q.Counted = []*model.Experts{{}, {TopK: []int{1}}, {MinP: 0.5}}[r.IntN(3)], r.IntN(2) == 0
	}
	if r.IntN(3) == 0 {
		q.Reads = &readings[r.IntN(8)]
	}
	return q
}

// visit asks for an answer and takes all of it, or leaves after some tokens, or is told to stop, or only scores the prompt.
func visit(e *engine.Engine, q engine.Request, r *rand.Rand) (got []engine.Token, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stay := 1 + r.IntN(2*q.MaxTokens)
	switch r.IntN(8) {
	case 0:
		defer time.AfterFunc(time.Duration(r.IntN(50))*time.Millisecond, cancel).Stop()
	case 1:
		err := e.Score(ctx, engine.Scoring{IDs: q.Prompt}, func(first int, _ []float32) {
			if first > 64 && stay%2 == 0 {
				cancel()
			}
		})
		if err == nil {
			err = context.Canceled // it brings no answer
		}
		return nil, err
	case 2:
		_, _, err := e.Embed(ctx, q.Prompt, []engine.Pooling{engine.MeanPooling, engine.LastPooling}[r.IntN(2)])
		if err == nil {
			err = context.Canceled
		}
		return nil, err
	}
	for tok, err := range e.Generate(ctx, q) {
		if err != nil {
			return got, err
		}
		tok.Stats = nil
		if got = append(got, tok); len(got) == stay {
			break
		}
	}
	return got, nil
}
