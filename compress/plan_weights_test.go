package compress

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
)

func openedDemo(t *testing.T) (*store.Checkpoint, model.Spec) {
	t.Helper()
	c, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	return c, described(t, c)
}

func described(t *testing.T, c *store.Checkpoint) model.Spec {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	spec, err := model.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// whole is all of an expert, piece after piece.
func whole(t *testing.T, w *Weights, layer, expert int) (all []float32) {
	t.Helper()
	for piece := range w.Chunks(layer) {
		before := len(all)
		var err error
		if all, err = w.Chunk(all, layer, expert, piece); err != nil {
			t.Fatal(err)
		}
		if n := len(all) - before; n < 1 || n > chunkValues {
			t.Errorf("piece %d has %d values", piece, n)
		}
	}
	return all
}

func TestWeightsOfStackedExperts(t *testing.T) {
	c, spec := openedDemo(t)
	w := NewWeights(c, spec)
	for _, layer := range []int{0, 5, 0} {
		for e := range 8 {
			var want []float32
			for _, part := range []string{"gate", "up", "down"} {
				stack := c.Tensors[fmt.Sprintf("blk.%d.ffn_%s_exps.weight", layer, part)]
				all := make([]float32, 8*128*256)
				stack.Format.Decode(all, stack.Data)
				want = append(want, all[e*128*256:][:128*256]...)
			}
			if got := whole(t, w, layer, e); !slices.Equal(got, want) {
				t.Errorf("layer %d, expert %d: other weights than the file's", layer, e)
			}
		}
	}
	if rows, err := w.Router(3); err != nil || len(rows) != 8*256 {
		t.Error(len(rows), err)
	}
	if n, err := w.Bytes(2); err != nil || n != 3*128*256/32*34 { // Q8_0
		t.Error(n, err)
	}
}

func TestWeightsOfSingleExperts(t *testing.T) {
	c, err := store.Open("../model/testdata/qwen3_moe")
	if err != nil {
		t.Fatal(err)
	}
	spec := described(t, c)
	w := NewWeights(c, spec)
	for e := range spec.Layers[1].Router.Experts {
		var want []float32
		for _, part := range []string{"gate", "up", "down"} {
			one := c.Tensors[fmt.Sprintf("model.layers.1.mlp.experts.%d.%s_proj.weight", e, part)]
			all := make([]float32, spec.Dim*spec.Layers[1].ExpertWidth)
			one.Format.Decode(all, one.Data)
			want = append(want, all...)
		}
		if got := whole(t, w, 1, e); !slices.Equal(got, want) {
			t.Errorf("expert %d: other weights than the file's", e)
		}
	}
}

func TestWeightsThatContradictTheSpec(t *testing.T) {
	c, spec := openedDemo(t)
	spec.Layers[2].ExpertWidth = 64
	w := NewWeights(c, spec)
	if _, err := w.Chunk(nil, 2, 0, 0); !errors.Is(err, model.ErrSpec) || !strings.Contains(err.Error(), `"blk.2.ffn_gate_exps.weight"`) {
		t.Error(err)
	}
	spec.Dim = 100
	if _, err := NewWeights(c, spec).Router(1); !errors.Is(err, model.ErrSpec) {
		t.Error(err)
	}
}

func TestSTUNOfTheDemo(t *testing.T) {
	c, spec := openedDemo(t)
	var last Plan
	for _, keep := range []float64{0.9, 0.75, 0.5, 0.3} {
		p, err := STUN(In{Spec: spec, Weights: NewWeights(c, spec), Keep: keep, Model: c.Fingerprint()})
		if err != nil || leaving(p) != 48-(In{Keep: keep}).staying(48) {
			t.Fatal(p, err)
		}
		for l, o := range p.Overlay.Layers {
			if err := p.Overlay.Check(l, *spec.Layers[l].Router, spec.Layers[l].Map); err != nil {
				t.Error(err)
			}
			if !subset(last.Overlay.Layers[l].Drop, o.Drop) {
				t.Errorf("keep %v: layer %d drops %v, of more %v", keep, l, o.Drop, last.Overlay.Layers[l].Drop)
			}
		}
		last = p
	}
	if len(last.Average) == 0 {
		t.Error("at 0.3 no layer of 8 experts is down to 2")
	}
}
