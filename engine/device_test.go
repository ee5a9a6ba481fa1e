package engine_test

import (
	"context"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// sparse are the selectors that the models of these tests have; small enough that short prompts leave keys out.
var sparse = []model.Selection{{Name: "streaming", Knobs: []float32{64}, Params: map[string]float64{"sink": 64}}}

// many are all selectors that need neither gates nor a pattern of heads, likewise.
var many = []model.Selection{
	sparse[0],
	{Name: "xattention", Knobs: []float32{0.3}, Params: map[string]float64{"lead": 128}},
	{Name: "anchor", Knobs: []float32{0}, Params: map[string]float64{"lead": 128}},
	{Name: "flexprefill", Knobs: []float32{0.3}, Params: map[string]float64{"group": 128, "budget": 128}},
	{Name: "minference", Params: map[string]float64{"group": 128, "columns": 30, "diagonals": 50}},
	{Name: "s2", Knobs: []float32{1}, Params: map[string]float64{"stride": 4, "dense_every": 0}},
	{Name: "quest", Knobs: []float32{64}, Params: map[string]float64{"dense_layers": 0}},
}

// start opens the embedded model, in its own formats, on the fastest kernels that this machine has.
func start(t *testing.T, lim model.Limits) *engine.Engine {
	t.Helper()
	return startAs(t, model.Options{Limits: lim, Sparse: sparse})
}

// startAs is start with options of the model.
func startAs(t *testing.T, opt model.Options) *engine.Engine {
	t.Helper()
	e, _ := keeping(t, opt, nil)
	return e
}

// keeping is such an engine whose pages are kept outside too; nil = they are not. Its model is closed by what it returns, or with the test.
func keeping(t *testing.T, opt model.Options, to engine.Prefixes) (e *engine.Engine, end func()) {
	t.Helper()
	return opened(t, opt, engine.Options{Prefixes: to})
}

// opened is such an engine with options of its own.
func opened(t *testing.T, opt model.Options, o engine.Options) (e *engine.Engine, end func()) {
	t.Helper()
	d, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return openedOn(t, d, opt, o)
}

// openedOn is such an engine on a device, which it closes.
func openedOn(t *testing.T, d tensor.Device, opt model.Options, o engine.Options) (e *engine.Engine, end func()) {
	t.Helper()
	c, err := store.OpenBytes("demo", demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(c, model.Placement{Device: d}, opt)
	if err != nil {
		t.Fatal(err)
	}
	o.Check = true
	if o.Identity, err = m.PageIdentity(); err != nil {
		t.Fatal(err)
	}
	loop := engine.NewLoop()
	end = sync.OnceFunc(func() {
		loop.Close()
		m.Close()
		if closer, ok := d.(io.Closer); ok {
			if err := closer.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(end)
	return loop.Open(m, o), end
}

// answer is a whole generation, or the error that ended it.
func answer(e *engine.Engine, r engine.Request) (tokens []engine.Token, err error) {
	for tok, err := range e.Generate(context.Background(), r) {
		if err != nil {
			return tokens, err
		}
		tok.Stats = nil
		tokens = append(tokens, tok)
	}
	return tokens, nil
}

// Kernels give a request the same tokens and log-probabilities, bit for bit, alone, among fifteen others, in chunks and after a
// prefix hit.
func TestKernelsKeepRowsIndependent(t *testing.T) {
	requests := make([]engine.Request, 16)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range requests {
		prompt := make([]int32, 1+i*23)
		for j := range prompt {
			prompt[j] = r.Int32N(4000)
		}
		requests[i] = engine.Request{Prompt: prompt, MaxTokens: 12, Alternatives: 3,
			Sampling: engine.Sampling{Temperature: 0.9, TopP: 0.95, Seed: uint64(i)},
			Experts:  []*model.Experts{nil, {TopK: []int{1}}, {MinP: 0.6}, nil, {Mass: 0.7}, {SkipBeta: 0.8}}[i%6], Counted: i%3 == 1}
	}
	lim := model.Limits{Rows: 512, Sequences: 16, Wanted: 16, Pages: 160, Context: 512}
	together, crowd := start(t, lim), make([][]engine.Token, len(requests))
	var wg sync.WaitGroup
	for i, r := range requests {
		wg.Go(func() {
			var err error
			if crowd[i], err = answer(together, r); err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	lim.Rows = 37
	chunked := start(t, lim)
	for i, r := range requests {
		for name, e := range map[string]*engine.Engine{"alone, after a hit on its own prompt": together, "alone, in chunks": chunked} {
			got, err := answer(e, r)
			if err != nil {
				t.Fatalf("request %d %s: %v", i, name, err)
			}
			if !reflect.DeepEqual(got, crowd[i]) {
				t.Errorf("request %d %s: %+v, want what it got among others: %+v", i, name, got, crowd[i])
			}
		}
	}
	if hits := together.Usage().Cached; hits == 0 {
		t.Error("no prompt was found in the prefix cache")
	}
}

// So do embeddings.
func TestKernelsKeepEmbeddingsIndependent(t *testing.T) {
	lim := model.Limits{Rows: 512, Sequences: 16, Wanted: 16, Pages: 160, Context: 512}
	together := start(t, lim)
	lim.Rows = 37
	chunked := start(t, lim)
	r := rand.New(rand.NewPCG(5, 6))
	texts, crowd := make([][]int32, 16), make([][]float32, 16)
	var wg sync.WaitGroup
	for i := range texts {
		for range 1 + 23*i {
			texts[i] = append(texts[i], r.Int32N(4000))
		}
		wg.Go(func() {
			var err error
			if crowd[i], _, err = together.Embed(t.Context(), texts[i], engine.MeanPooling); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, ids := range texts {
		for name, e := range map[string]*engine.Engine{"alone": together, "alone, in chunks": chunked} {
			got, _, err := e.Embed(t.Context(), ids, engine.MeanPooling)
			if err != nil || !slices.Equal(got, crowd[i]) {
				t.Errorf("text %d %s has other bits than among others, %v", i, name, err)
			}
		}
	}
}
