package engine

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/winnow-llm/winnow/model"
)

// embedded is what an engine makes of each text, pooled in both ways, all asked for at once.
func embedded(t *testing.T, e *Engine, texts [][]int32) map[Pooling][][]float32 {
	t.Helper()
	out := map[Pooling][][]float32{MeanPooling: make([][]float32, len(texts)), LastPooling: make([][]float32, len(texts))}
	var wg sync.WaitGroup
	for p, vectors := range out {
		for i, ids := range texts {
			wg.Go(func() {
				var err error
				if vectors[i], _, err = e.Embed(t.Context(), ids, p); err != nil {
					t.Errorf("%s of text %d: %v", p, i, err)
				}
			})
		}
	}
	wg.Wait()
	return out
}

// texts are the prompts of requests.
func texts(n int) (out [][]int32) {
	for _, r := range requests(n) {
		out = append(out, r.Prompt)
	}
	return out
}

// TestEmbeddingsAreIndependent: a text gets the same bits alone, among others and among generations, in chunks of any size, after hits in
// the prefix cache, and after it lost its pages; and generations get what they get without embeddings.
func TestEmbeddingsAreIndependent(t *testing.T) {
	all, answers := texts(7), requests(6)
	answered := alone(t, answers)
	want := map[Pooling][][]float32{}
	for _, p := range []Pooling{MeanPooling, LastPooling} {
		for _, ids := range all {
			e, _ := open(t, ample)
			v, _, err := e.Embed(t.Context(), ids, p)
			if err != nil {
				t.Fatal(err)
			}
			want[p] = append(want[p], v)
			e.Close()
		}
	}
	if slices.Equal(want[MeanPooling][1], want[LastPooling][1]) || !slices.Equal(want[MeanPooling][0], want[LastPooling][0]) {
		t.Error("of one token the mean is the last, of five it is not")
	}
	for name, lim := range map[string]model.Limits{
		"ample":      ample,
		"odd chunks": {Rows: 37, Sequences: 12, Wanted: 12, Pages: 20, Context: 256},
		"row by row": {Rows: 1, Sequences: 1, Wanted: 1, Pages: 100, Context: 256},
		"few pages":  {Rows: 64, Sequences: 12, Wanted: 12, Pages: 4, Context: 256},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := open(t, lim)
			var wg sync.WaitGroup
			wg.Go(func() {
				for i, got := range together(t, e, answers) {
					if err := same(got, answered[i]); err != nil {
						t.Errorf("request %d: %v", i, err)
					}
				}
			})
			for round := range 2 { // the second one finds the first in the cache
				for p, vectors := range embedded(t, e, all) {
					for i, v := range vectors {
						if !slices.Equal(v, want[p][i]) {
							t.Errorf("round %d: %s of text %d, %d tokens, has other bits than alone", round, p, i, len(all[i]))
						}
					}
				}
			}
			wg.Wait()
			empty(t, e)
		})
	}
}

// TestEmbedWithoutLogits: steps of embeddings alone compute no logits, a mean computes all its rows again, the last state only what the
// cache does not have.
func TestEmbedWithoutLogits(t *testing.T) {
	e, s := open(t, ample)
	logits := 0
	s.atSync = func() error {
		logits += len(e.work.Want)
		return nil
	}
	ids := texts(7)[6]
	for _, c := range []struct {
		pooling Pooling
		rows    int64
	}{{LastPooling, 130}, {MeanPooling, 130}, {LastPooling, 2}} {
		before := e.Usage().Rows
		if _, _, err := e.Embed(t.Context(), ids, c.pooling); err != nil {
			t.Fatal(err)
		}
		if rows := e.Usage().Rows - before; rows != c.rows || logits != 0 {
			t.Errorf("%s: %d rows computed, want %d; logits of %d", c.pooling, rows, c.rows, logits)
		}
	}
}

// TestEmbedPreempted lets a generation take the pages of an embedding that is half done.
func TestEmbedPreempted(t *testing.T) {
	r := requests(6)[5]
	r.Prompt, r.MaxTokens = r.Prompt[:63], 100
	ids := texts(7)[6][:100]
	e, _ := open(t, ample)
	want, _, err := e.Embed(t.Context(), ids, MeanPooling)
	if err != nil {
		t.Fatal(err)
	}
	e, s := open(t, model.Limits{Rows: 2, Sequences: 2, Wanted: 2, Pages: 4, Context: 256})
	var wg sync.WaitGroup
	s.atSync = sync.OnceValue(func() error { // once the generation is under way
		wg.Go(func() {
			got, _, err := e.Embed(t.Context(), ids, MeanPooling)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("other bits than alone, %v", err)
			}
		})
		return nil
	})
	if _, err := collect(e.Generate(t.Context(), r)); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if e.Usage().Preempted == 0 {
		t.Error("nobody was preempted")
	}
	empty(t, e)
}

// TestEmbedMany: however many texts come at once, none is refused, and the queue has room for others.
func TestEmbedMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := open(t, model.Limits{Rows: 8, Sequences: 2, Wanted: 2, Pages: 4, Context: 100})
		goOn := make(chan bool)
		s.atSync = func() error {
			<-goOn
			return nil
		}
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				if _, _, err := e.Embed(t.Context(), []int32{int32(i), 7, 8}, MeanPooling); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if u := e.Usage(); u.Running+u.Waiting != 4 {
			t.Errorf("%d run and %d wait, want twice as many as a step holds", u.Running, u.Waiting)
		}
		wg.Go(func() {
			if _, err := collect(e.Generate(t.Context(), Request{Prompt: []int32{3}, MaxTokens: 1, Alternatives: -1})); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		close(goOn)
		wg.Wait()
		empty(t, e)
	})
}

// TestEmbedCancelled ends embeddings in every place that they can be in: in a step, in the queue, and before it.
func TestEmbedCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := open(t, model.Limits{Rows: 16, Sequences: 1, Wanted: 1, Pages: 4, Context: 256})
		goOn := make(chan bool)
		s.atSync = func() error {
			<-goOn
			return nil
		}
		errs := make(chan error)
		var cancels []context.CancelFunc
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			cancels = append(cancels, cancel)
			go func() {
				_, _, err := e.Embed(ctx, make([]int32, 60), MeanPooling)
				errs <- err
			}()
			synctest.Wait()
		}
		if u := e.Usage(); u.Running != 1 || u.Waiting != 1 {
			t.Errorf("%+v", u)
		}
		for i := range cancels { // the last one first
			cancels[2-i]()
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("embedding %d: %v", 2-i, err)
			}
		}
		if u := e.Usage(); u.Running != 1 || u.PagesUsed == 0 || u.Waiting != 0 || u.Cancelled != 2 {
			t.Errorf("pages are given back while the device writes them: %+v", u)
		}
		goOn <- true
		synctest.Wait()
		if u := e.Usage(); u.Running != 0 || u.PagesUsed != 0 || u.Steps != 1 || len(e.embeddings) != 0 {
			t.Errorf("left: %+v", u)
		}
	})
}

func TestEmbedRefusals(t *testing.T) {
	e, s := open(t, model.Limits{Rows: 200, Sequences: 2, Wanted: 2, Pages: 2, Context: 256})
	for _, c := range []struct {
		ids     []int32
		pooling Pooling
		want    error
	}{
		{nil, MeanPooling, ErrRequest}, {[]int32{-1}, MeanPooling, ErrRequest}, {[]int32{320}, LastPooling, ErrRequest},
		{[]int32{1}, "", ErrRequest}, {[]int32{1}, "cls", ErrRequest}, {make([]int32, 129), MeanPooling, ErrContext},
	} {
		if _, _, err := e.Embed(t.Context(), c.ids, c.pooling); !errors.Is(err, c.want) {
			t.Errorf("%d ids, %q: %v", len(c.ids), c.pooling, err)
		}
	}
	if v, _, err := e.Embed(t.Context(), make([]int32, 128), LastPooling); err != nil || len(v) != e.model.Spec().Dim {
		t.Errorf("a full context: %d values, %v", len(v), err)
	}
	broken := errors.New("the device is on fire")
	s.atSync = func() error { return broken }
	if _, _, err := e.Embed(t.Context(), []int32{1}, MeanPooling); !errors.Is(err, ErrStep) || !errors.Is(err, broken) {
		t.Errorf("a failed step: %v", err)
	}
	e.Close()
	if _, _, err := e.Embed(t.Context(), []int32{1}, MeanPooling); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestMeanIsOfAllTokens compares the mean of a text with the last states of all its beginnings.
func TestMeanIsOfAllTokens(t *testing.T) {
	e, _ := open(t, ample)
	ids := texts(3)[2]
	mean, _, err := e.Embed(t.Context(), ids, MeanPooling)
	if err != nil {
		t.Fatal(err)
	}
	sum := make([]float64, len(mean))
	for n := range ids {
		last, _, err := e.Embed(t.Context(), ids[:n+1], LastPooling)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range last {
			sum[i] += float64(v)
		}
	}
	for i, v := range mean {
		if want := sum[i] / float64(len(ids)); math.Abs(float64(v)-want) > 1e-6 {
			t.Fatalf("value %d is %v, want %v", i, v, want)
		}
	}
}
