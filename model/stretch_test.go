package model_test

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// stretched is the rotary embedding and the context of a checkpoint under options.
func stretched(t *testing.T, c *store.Checkpoint, opt model.Options) (model.Rope, int) {
	t.Helper()
	s, err := opt.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	return s.Layers[len(s.Layers)-1].Rope, s.Context
}

func near(got []float32, want []float64) bool {
	return slices.EqualFunc(got, want, func(a float32, b float64) bool { return math.Abs(float64(a)-b) <= 1e-6*b })
}

// The checkpoint is made for 128 tokens and turns two pairs of a head: by 1 and by 10000^(-1/2) radians a token.
func TestRopeScaling(t *testing.T) {
	yarn := func(c *store.Checkpoint) {
		c.Meta["qwen3moe.rope.scaling.type"], c.Meta["qwen3moe.rope.scaling.factor"] = "yarn", float32(2)
		c.Meta["qwen3moe.rope.scaling.original_context_length"] = uint32(64)
	}
	divisors := func(c *store.Checkpoint) {
		raw := make([]byte, 8)
		quant.F32.Encode(raw, []float32{1, 8})
		c.Tensors["rope_freqs.weight"] = store.Tensor{Name: "rope_freqs.weight", Format: quant.F32, Shape: []int{2}, Data: raw}
	}
	linear := func(c *store.Checkpoint) { c.Meta["qwen3moe.rope.scale_linear"] = float32(4) }
	for _, test := range []struct {
		name    string
		file    func(*store.Checkpoint) // nil = stretches nothing
		by      model.RopeScaling
		longest int // sequence that is loaded for
		freq    []float64
		scale   float64
		context int
	}{
		{"nothing", nil, model.RopeScaling{}, 0, []float64{1, 0.01}, 1, 128},
		{"none", nil, model.RopeScaling{Kind: "none"}, 0, []float64{1, 0.01}, 1, 128},
		{"base", nil, model.RopeScaling{Base: 1e6}, 0, []float64{1, 0.001}, 1, 128},
		{"linear", nil, model.RopeScaling{Kind: "linear", Factor: 4}, 0, []float64{0.25, 0.0025}, 1, 512},
		{"linear, of less", nil, model.RopeScaling{Kind: "linear", Factor: 2.5, Original: 100}, 0, []float64{0.4, 0.004}, 1, 250},
		{"linear and base", nil, model.RopeScaling{Kind: "linear", Factor: 2, Base: 1e6}, 0, []float64{0.5, 0.0005}, 1, 256},
		// 10000 * (2*256/128 - 1)^(4/2) is 300 squared.
		{"dynamic", nil, model.RopeScaling{Kind: "dynamic", Factor: 2}, 0, []float64{1, 1. / 300}, 1, 256},
		// 10000 * (2*192/128 - 1)^2 is 200 squared.
		{"dynamic, not all of it", nil, model.RopeScaling{Kind: "dynamic", Factor: 2}, 192, []float64{1, 1. / 200}, 1, 256},
		{"dynamic, not needed", nil, model.RopeScaling{Kind: "dynamic", Factor: 2}, 128, []float64{1, 0.01}, 1, 256},
		// Pair 0 turns 20 times in 128 tokens and pair 1 a fifth of once: the ramp from -0.1 to 0.65, in whole pairs 0 to 1.
		{"yarn", nil, model.RopeScaling{Kind: "yarn", Factor: 4}, 0, []float64{1, 0.0025}, 1.1386294, 512},
		{"yarn by 1", nil, model.RopeScaling{Kind: "yarn", Factor: 1}, 0, []float64{1, 0.01}, 1, 128},
		{"yarn in the file", yarn, model.RopeScaling{}, 0, []float64{1, 0.005}, 1.0693147, 128},
		{"yarn in the file, none", yarn, model.RopeScaling{Kind: "none"}, 0, []float64{1, 0.01}, 1, 64},
		{"yarn in the file, more of it", yarn, model.RopeScaling{Kind: "yarn", Factor: 4}, 0, []float64{1, 0.0025}, 1.1386294, 256},
		{"linear in the file", linear, model.RopeScaling{Kind: "none"}, 0, []float64{1, 0.01}, 1, 128},
		{"linear in the file, dynamic", linear, model.RopeScaling{Kind: "dynamic", Factor: 2}, 0, []float64{1, 1. / 300}, 1, 256},
		{"divisors", divisors, model.RopeScaling{Kind: "none"}, 0, []float64{1, 0.00125}, 1, 128},
		{"divisors, linear", divisors, model.RopeScaling{Kind: "linear", Factor: 2}, 0, []float64{0.5, 0.000625}, 1, 256},
	} {
		c := checkpoint()
		if test.file != nil {
			test.file(c)
		}
		got, context := stretched(t, c, model.Options{Rope: test.by, Limits: model.Limits{Context: test.longest}})
		if !near(got.Freq, test.freq) || math.Abs(float64(got.Scale)-test.scale) > 1e-6 || context != test.context {
			t.Errorf("%s: frequencies %v, scale %v, context %d; want %v, %v, %d", test.name, got.Freq, got.Scale, context, test.freq, test.scale, test.context)
		}
	}
}

// The ramp of YaRN over the 32 pairs of the demo's heads, were it made for 2048 tokens by a base of 10000: pair(t) is 64 ln(2048/(2 pi t)) / (2 ln 10000),
// which is 8.06 for 32 turns and 20.1 for one, in whole pairs 8 and 21.
func TestYarnRamp(t *testing.T) {
	got, context := stretched(t, openDemo(t), model.Options{Rope: model.RopeScaling{Kind: "yarn", Factor: 8, Original: 2048, Base: 10000}})
	if len(got.Freq) != 32 {
		t.Fatalf("%d pairs", len(got.Freq))
	}
	var want []float64
	for i := range 32 {
		f := math.Pow(10000, -float64(i)/32)
		switch {
		case i >= 21:
			f /= 8
		case i > 8:
			f *= 1 - 7./8*float64(i-8)/13
		}
		want = append(want, f)
	}
	if !near(got.Freq, want) || context != 16384 || math.Abs(float64(got.Scale)-1.2079442) > 1e-6 {
		t.Errorf("frequencies %v, want %v; scale %v; context %d", got.Freq, want, got.Scale, context)
	}
}

// What of a scaling cannot be is refused by an error that names the field, before anything is loaded.
func TestRopeScalingRefuses(t *testing.T) {
	for _, test := range []struct {
		by    model.RopeScaling
		field string
	}{
		{model.RopeScaling{Kind: "longrope", Factor: 2}, "rope_scaling"},
		{model.RopeScaling{Kind: "YARN", Factor: 2}, "rope_scaling"},
		{model.RopeScaling{Kind: "linear"}, "rope_scale"},
		{model.RopeScaling{Kind: "linear", Factor: 0.5}, "rope_scale"},
		{model.RopeScaling{Kind: "yarn", Factor: -4}, "rope_scale"},
		{model.RopeScaling{Kind: "yarn", Factor: math.NaN()}, "rope_scale"},
		{model.RopeScaling{Kind: "dynamic", Factor: math.Inf(1)}, "rope_scale"},
		{model.RopeScaling{Kind: "linear", Factor: 1 << 23}, "rope_scale"}, // too long a context
		{model.RopeScaling{Kind: "none", Factor: 2}, "rope_scale"},
		{model.RopeScaling{Factor: 2}, "rope_scale"},
		{model.RopeScaling{Factor: math.NaN()}, "rope_scale"},
		{model.RopeScaling{Original: 64}, "yarn_orig_ctx"},
		{model.RopeScaling{Kind: "yarn", Factor: 2, Original: -1}, "yarn_orig_ctx"},
		{model.RopeScaling{Kind: "yarn", Factor: 2, Original: 1 << 30}, "yarn_orig_ctx"},
		{model.RopeScaling{Base: math.NaN()}, "rope_freq_base"},
		{model.RopeScaling{Base: math.Inf(1)}, "rope_freq_base"},
		{model.RopeScaling{Base: -1}, "rope_freq_base"},
		{model.RopeScaling{Base: 1}, "rope_freq_base"},
	} {
		opt := model.Options{Rope: test.by, Limits: limits}
		_, err := opt.Describe(checkpoint())
		_, also := model.Load(checkpoint(), model.Placement{Device: tensor.Reference()}, opt)
		for _, err := range []error{err, also} {
			if wrong, ok := errors.AsType[*model.RopeError](err); !ok || wrong.Field != test.field {
				t.Errorf("%+v: got %v, want an error of %s", test.by, err, test.field)
			}
		}
	}
}

// A scaling changes what a model computes, dynamic only where sequences may be longer than the model was made for, and one that a file asks for is the same.
// Models that turn keys in different ways share no cache.
func TestRopeScalingOfLogits(t *testing.T) {
	c, ids := openDemo(t), []int32{1, 20, 300, 7, 7, 250, 9, 44, 31, 5}
	prints := map[string]bool{}
	of := func(c *store.Checkpoint, by model.RopeScaling, longest int) []float32 {
		t.Helper()
		lim := model.Limits{Rows: 16, Sequences: 1, Wanted: 16, Pages: 1, Context: longest}
		m, err := model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{Limits: lim, Rope: by})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		prints[m.Fingerprint()] = true
		return run(m, ids, 0)
	}
	plain, own := of(c, model.RopeScaling{}, 64), 0
	if s, err := model.Describe(c); err != nil {
		t.Fatal(err)
	} else {
		own = s.Context
	}
	yarn := model.RopeScaling{Kind: "yarn", Factor: 4}
	slowed := of(c, yarn, 64)
	if slices.Equal(slowed, plain) || slices.Equal(of(c, model.RopeScaling{Kind: "linear", Factor: 4}, 64), slowed) {
		t.Error("a scaling changes nothing")
	}
	dynamic := model.RopeScaling{Kind: "dynamic", Factor: 4}
	if !slices.Equal(of(c, dynamic, 64), plain) || slices.Equal(of(c, dynamic, 2*own), plain) {
		t.Error("dynamic does not go by the longest sequence")
	}
	if len(prints) != 5 {
		t.Errorf("%d models have fingerprints %v", 5, prints)
	}
	asked := c.With(store.Meta{"qwen3moe.rope.scaling.type": "yarn", "qwen3moe.rope.scaling.factor": float32(4),
		"qwen3moe.rope.scaling.original_context_length": uint32(own)}, nil)
	if !slices.Equal(of(asked, model.RopeScaling{}, 64), slowed) {
		t.Error("the same YaRN in a file gives other logits")
	}
	if !slices.Equal(of(asked, model.RopeScaling{Kind: "none"}, 64), plain) {
		t.Error("none leaves the file's YaRN")
	}
}

// Llama 3's frequencies belong to the model: they stay, and are slowed further. Dynamic scaling of a file begins behind its context.
func TestRopeScalingOfConfigs(t *testing.T) {
	c, err := store.Open("testdata/llama_tied")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	with := func(scaling string) *store.Checkpoint {
		out := c.With(nil, nil)
		out.Files = maps.Clone(c.Files)
		out.Files["config.json"] = bytes.Replace(c.Files["config.json"], []byte(`"rope_scaling": null`), []byte(`"rope_scaling": `+scaling), 1)
		return out
	}
	plain, own := stretched(t, c, model.Options{})
	llama3 := with(`{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":64}`)
	theirs, _ := stretched(t, llama3, model.Options{})
	if slices.Equal(theirs.Freq, plain.Freq) {
		t.Fatal("llama3 is not read")
	}
	if got, context := stretched(t, llama3, model.Options{Rope: model.RopeScaling{Kind: "none"}}); !slices.Equal(got.Freq, theirs.Freq) || context != own {
		t.Errorf("none: %v, context %d, want %v, %d", got.Freq, context, theirs.Freq, own)
	}
	var half []float64
	for _, f := range theirs.Freq {
		half = append(half, float64(f)/2)
	}
	if got, context := stretched(t, llama3, model.Options{Rope: model.RopeScaling{Kind: "linear", Factor: 2}}); !near(got.Freq, half) || context != 2*own {
		t.Errorf("linear: %v, context %d, want %v, %d", got.Freq, context, half, 2*own)
	}
	if got, context := stretched(t, with(`{"type":"dynamic","factor":4}`), model.Options{}); !slices.Equal(got.Freq, plain.Freq) || context != own {
		t.Errorf("dynamic: %v, context %d, want %v, %d", got.Freq, context, plain.Freq, own)
	}
}
