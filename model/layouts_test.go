package model_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/modeltest"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// layouts are the ways in which a checkpoint of stacked experts can store them too.
var layouts = map[string]func(*testing.T, *store.Checkpoint) *store.Checkpoint{
	"fused":    func(_ *testing.T, c *store.Checkpoint) *store.Checkpoint { return modeltest.Fused(c) },
	"separate": func(_ *testing.T, c *store.Checkpoint) *store.Checkpoint { return modeltest.Separate(c) },
	"banks":    func(t *testing.T, c *store.Checkpoint) *store.Checkpoint { return banked(t, c, &moe.Overlay{}) },
	"fused in banks": func(t *testing.T, c *store.Checkpoint) *store.Checkpoint {
		return modeltest.Fused(banked(t, c, &moe.Overlay{}))
	},
}

// onDisk is a checkpoint as a file of it is read, so that experts are mapped.
func onDisk(t *testing.T, c *store.Checkpoint) *store.Checkpoint {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := store.WriteGGUF(context.Background(), path, modeltest.File(c), nil); err != nil {
		t.Fatal(err)
	}
	out, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := out.Close(); err != nil {
			t.Error(err)
		}
	})
	return out
}

// Stacked, fused, separate and banked experts give the very same logits: all of them, some of them, one by one, and with room for a few.
func TestLayoutsGiveTheSameLogits(t *testing.T) {
	whole := openDemo(t)
	for name, as := range layouts {
		c := onDisk(t, as(t, whole))
		for _, d := range devices(t) {
			for what, opt := range map[string]model.Options{
				"": {}, "apart": {Apart: true}, "overlay": {Overlay: ragged}, "overlay, apart": {Overlay: ragged, Apart: true},
				"f32": {DType: model.Float32}, "some resident": {ExpertBytes: 4 << 20}, "overlay, some resident": {ExpertBytes: 4 << 20, Overlay: ragged},
			} {
				want, got := overlaid(t, whole, d, opt), overlaid(t, c, d, opt)
				if !slices.Equal(got, want) {
					t.Errorf("%s: %s, %s: the logits are off by %g", d.Name(), name, what, apart(got, want))
				}
			}
		}
	}
}

// What is weighed and read of each layout is the same.
func TestLayoutsReadTheSameShare(t *testing.T) {
	whole, opt := openDemo(t), model.Options{Overlay: ragged}
	sum := func(c *store.Checkpoint) (bytes float64) {
		s, err := opt.Describe(c)
		if err != nil {
			t.Fatal(err)
		}
		left, err := s.Left(c)
		if err != nil {
			t.Fatal(err)
		}
		for name, w := range c.Tensors {
			share, some := left[name]
			if !some {
				share = 1
			}
			if !strings.HasSuffix(name, "exps_map") {
				bytes += share * float64(len(w.Data))
			}
		}
		return bytes
	}
	want := sum(whole)
	for name, as := range layouts {
		if got := sum(as(t, whole)); got != want {
			t.Errorf("%s: %v bytes are read, want %v", name, got, want)
		}
	}
}

// Layouts that contradict the router or themselves are refused by an error that names the tensor.
func TestLayoutsRefuse(t *testing.T) {
	gone := func(name string) func(*store.Checkpoint) {
		return func(c *store.Checkpoint) { delete(c.Tensors, name) }
	}
	as := func(name string, f *quant.Format, shape ...int) func(*store.Checkpoint) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		return func(c *store.Checkpoint) {
			c.Tensors[name] = store.Tensor{Name: name, Format: f, Shape: shape, Data: make([]byte, n/f.Block*f.Bytes)}
		}
	}
	width := func(c *store.Checkpoint) { c.Meta["qwen3moe.expert_feed_forward_length"] = uint32(7) }
	for _, test := range []struct {
		name, layout string
		change       func(*store.Checkpoint)
		names        string
		is           error
	}{
		{"no expert 2", "separate", gone("blk.1.ffn_up.2.weight"), "blk.1.ffn_up.2.weight", store.ErrNoTensor},
		{"no expert 0", "separate", gone("blk.1.ffn_gate.0.weight"), "blk.1.ffn_gate.0.weight", store.ErrNoTensor},
		{"no last expert", "separate", gone("blk.1.ffn_down.3.weight"), "blk.1.ffn_down.3.weight", store.ErrNoTensor},
		{"an expert too many", "separate", as("blk.1.ffn_down.4.weight", quant.F32, 8, 6), "blk.1.ffn_down.4.weight", model.ErrSpec},
		{"shape of one", "separate", as("blk.1.ffn_down.1.weight", quant.F32, 6, 8), "blk.1.ffn_down.1.weight", model.ErrSpec},
		{"a matrix folded", "separate", as("blk.1.ffn_gate.1.weight", quant.F32, 2, 3, 8), "blk.1.ffn_gate.1.weight", model.ErrSpec},
		{"formats mixed", "separate", as("blk.1.ffn_up.3.weight", quant.BF16, 6, 8), "blk.1.ffn_up.3.weight", model.ErrAssumption},
		{"stack beside", "separate", as("blk.1.ffn_down_exps.weight", quant.F32, 4, 8, 6), "blk.1.ffn_down_exps.weight", model.ErrSpec},
		{"map beside", "separate", as("blk.1.ffn_exps_map", quant.I32, 4, 2), "blk.1.ffn_exps_map", model.ErrSpec},
		{"width contradicts", "separate", width, "blk.1.ffn_gate.0.weight", model.ErrSpec},
		{"gate alone", "fused", as("blk.1.ffn_gate_up_exps.weight", quant.F32, 4, 6, 8), "blk.1.ffn_gate_up_exps.weight", model.ErrSpec},
		{"odd rows", "fused", as("blk.1.ffn_gate_up_exps.weight", quant.F32, 4, 13, 8), "blk.1.ffn_gate_up_exps.weight", model.ErrSpec},
		{"rows of others", "fused", as("blk.1.ffn_gate_up_exps.weight", quant.F32, 8, 6, 8), "blk.1.ffn_gate_up_exps.weight", model.ErrSpec},
		{"experts too few", "fused", as("blk.1.ffn_gate_up_exps.weight", quant.F32, 3, 12, 8), "blk.1.ffn_gate_up_exps.weight", model.ErrSpec},
		{"gate beside", "fused", as("blk.1.ffn_gate_exps.weight", quant.F32, 4, 6, 8), "blk.1.ffn_gate_exps.weight", model.ErrSpec},
		{"no down", "fused", gone("blk.1.ffn_down_exps.weight"), "blk.1.ffn_down_exps.weight", store.ErrNoTensor},
		{"width contradicts", "fused", width, "blk.1.ffn_gate_up_exps.weight", model.ErrSpec},
		{"stack folded", "stacked", as("blk.1.ffn_up_exps.weight", quant.F32, 2, 12, 8), "blk.1.ffn_up_exps.weight", model.ErrSpec},
	} {
		t.Run(test.layout+": "+test.name, func(t *testing.T) {
			c := checkpoint()
			switch test.layout {
			case "separate":
				c = modeltest.Separate(c)
			case "fused":
				c = modeltest.Fused(c)
			}
			if err := load(c); err != nil {
				t.Fatal(err)
			}
			c.Meta = maps.Clone(c.Meta)
			test.change(c)
			if err := load(c); !errors.Is(err, test.is) || !strings.Contains(err.Error(), fmt.Sprintf("%q", test.names)) {
				t.Errorf("got %v, want %v that names %s", err, test.is, test.names)
			}
		})
	}
}

// A file in the words of ollama's converter is the model that it is in ours, and what was repaired is said.
func TestDialect(t *testing.T) {
	whole := openDemo(t)
	want := logitsOf(t, whole, []int32{1, 20, 300, 7})
	d := modeltest.Separate(whole)
	arch := d.Meta["general.architecture"].(string) + "."
	norm, ok := d.Meta[arch+"expert_weights_norm"]
	if !ok {
		norm = true
	}
	delete(d.Meta, arch+"expert_weights_norm")
	delete(d.Meta, arch+"expert_feed_forward_length")
	d.Meta[arch+"norm_top_k_prob"], d.Meta[arch+"feed_forward_length"] = norm, uint32(9999)
	for name, w := range maps.Clone(d.Tensors) {
		if other := strings.Replace(name, ".attn_output.", ".attn_out.", 1); other != name {
			delete(d.Tensors, name)
			w.Name = other
			d.Tensors[other] = w
		}
	}
	if got := logitsOf(t, d, []int32{1, 20, 300, 7}); !slices.Equal(got, want) {
		t.Errorf("the logits are off by %g", apart(got, want))
	}
	s, err := model.Describe(d)
	if err != nil {
		t.Fatal(err)
	}
	if said := strings.Join(s.Repairs, "\n"); len(s.Repairs) != 3 || !strings.Contains(said, "attn_out") || !strings.Contains(said, "norm_top_k_prob") ||
		!strings.Contains(said, "expert_feed_forward_length") {
		t.Errorf("repaired: %q", s.Repairs)
	}
	d.Meta[arch+"norm_top_k_prob"] = false
	if s, err = model.Describe(d); err != nil || s.Layers[0].Router.Norm {
		t.Errorf("norm_top_k_prob is not read: %v", err)
	}
	if s, err = model.Describe(whole); err != nil || len(s.Repairs) != 0 {
		t.Errorf("a file that says everything is repaired: %q %v", s.Repairs, err)
	}
}

// Numbers that a file leaves out are those of its tensors.
func TestWidthsByTensors(t *testing.T) {
	c := checkpoint()
	delete(c.Meta, "qwen3moe.feed_forward_length")
	delete(c.Meta, "qwen3moe.expert_feed_forward_length")
	c.Meta["qwen3moe.rope.scaling.type"], c.Meta["qwen3moe.rope.scaling.factor"] = "yarn", float32(4)
	s, err := model.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	if s.Layers[0].Width != 12 || s.Layers[1].ExpertWidth != 6 || len(s.Repairs) != 3 {
		t.Errorf("widths of %d and %d, repaired %q", s.Layers[0].Width, s.Layers[1].ExpertWidth, s.Repairs)
	}
	if err := load(c); err != nil {
		t.Error(err)
	}
}
