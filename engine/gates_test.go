package engine_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
)

// randomGates are gates of a kind for the embedded model, as training begins with them.
func randomGates(t *testing.T, kind model.GateKind) *model.Gates {
	t.Helper()
	c, err := store.OpenBytes("demo", demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := model.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	g := &model.Gates{Kind: kind, Pairs: spec.Layers[0].Rope.Pairs, Layer: make([]model.GateLayer, len(spec.Layers))}
	if g.Heads, err = model.GateSizes(&spec); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	normal := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(0.05 * random.NormFloat64())
		}
		return v
	}
	for i := range g.Layer {
		g.Layer[i].Key = normal(g.KeyHeads() * 3 * g.Heads.Dim * g.Heads.Width)
		if n := g.QueryInputs(); n > 0 {
			g.Layer[i].Query = normal(g.KeyHeads() * n * g.Heads.Width)
		}
	}
	return g
}

// Requests that read what gates choose get in one batch, in chunks and after prefix hits the bits that they get alone. With a threshold of
// nothing, and with a budget for everything, these are those of a model that reads all keys. All that holds where full pages are pruned too.
func TestGatesAreIndependent(t *testing.T) {
	for _, kv := range []string{"f16", "mustafar-70"} {
		t.Run(kv, func(t *testing.T) { gatesAreIndependent(t, kv) })
	}
}

func gatesAreIndependent(t *testing.T, kv string) {
	opt := model.Options{
		KVType: kv,
		Sparse: []model.Selection{
			{Name: "seer", Knobs: []float32{0.2}, Params: map[string]float64{"sink": 0, "last_block_dense": 0}}, {Name: "seer_decode", Knobs: []float32{64}},
		},
		Gates: []*model.Gates{randomGates(t, model.SeerPrefill), randomGates(t, model.SeerDecode)},
	}
	nothing, everything := float32(0), float32(512)
	all := []model.Reading{
		{}, {Prefill: "seer"}, {Decode: "seer_decode"}, {Prefill: "seer", Decode: "seer_decode"}, {Prefill: "seer", PrefillKnob: &nothing},
		{Decode: "seer_decode", DecodeKnob: &everything},
	}
	opt.Limits = model.Limits{Rows: 512, Sequences: 1, Wanted: 1, Pages: 8, Context: 512}
	alone := startAs(t, opt)
	opt.Limits = model.Limits{Rows: 96, Sequences: 6, Wanted: 6, Pages: 40, Context: 512}
	together := startAs(t, opt)
	want, differ := make([][]engine.Token, len(all)), map[string]bool{}
	ask := func(i int) engine.Request {
		return engine.Request{Prompt: long(330), MaxTokens: 40, Alternatives: 3, Reads: &all[i]}
	}
	for i := range all {
		var err error
		if want[i], err = answer(alone, ask(i)); err != nil {
			t.Fatal(err)
		}
		differ[fmt.Sprint(want[i][1].Logprob)] = true
	}
	if len(differ) != 4 {
		t.Errorf("of 6 readings, of which 2 read everything, %d differ", len(differ))
	}
	for _, i := range []int{4, 5} {
		if !reflect.DeepEqual(want[i], want[0]) {
			t.Errorf("reading %d has everything, and gets other tokens than a dense one", i)
		}
	}
	var wait sync.WaitGroup
	for range 2 {
		for i := range all {
			wait.Go(func() {
				if got, err := answer(together, ask(i)); err != nil || !reflect.DeepEqual(got, want[i]) {
					t.Errorf("reading %d: %v, %d tokens, other than alone", i, err, len(got))
				}
			})
		}
	}
	wait.Wait()
	if u := together.Usage(); u.KeysRead >= u.KeysVisible {
		t.Errorf("%+v: nothing was left out", u.Selected)
	}
}
