package compress_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/modeltest"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// layouts are the ways in which the demo's experts can be stored too.
var layouts = map[string]func(*store.Checkpoint) *store.Checkpoint{"fused": modeltest.Fused, "separate": modeltest.Separate}

// written is a checkpoint as a file.
func written(t testing.TB, c *store.Checkpoint) *store.Checkpoint {
	t.Helper()
	path := filepath.Join(t.TempDir(), "written.gguf")
	if err := store.WriteGGUF(t.Context(), path, modeltest.File(c), nil); err != nil {
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

// same says whether two checkpoints have the same tensors.
func same(t testing.TB, what string, got, want *store.Checkpoint) {
	t.Helper()
	if !slices.Equal(got.Names(), want.Names()) {
		t.Errorf("%s: tensors %v, want %v", what, got.Names(), want.Names())
		return
	}
	for name, w := range want.Tensors {
		if g := got.Tensors[name]; g.Format != w.Format || !slices.Equal(g.Shape, w.Shape) || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("%s: %s is %s %v, want %s %v, or holds other bytes", what, name, g.Format, g.Shape, w.Format, w.Shape)
		}
	}
}

// Experts are taken out of every layout as they are out of stacks: the smaller file has the same bytes, gives the same logits, which are those of
// the overlay at load, and is the same when it is written again.
func TestLayoutsAreSliced(t *testing.T) {
	ragged := overlay(map[int]moe.OverlayLayer{0: {Drop: []int{1, 6}}, 2: {Drop: []int{0, 3, 4, 7}}, 5: {Drop: []int{7}}})
	for name, as := range layouts {
		whole := written(t, as(demoModel(t)))
		if name == "fused" { // rows share experts by a map, which experts by themselves have no place for
			merged := overlay(map[int]moe.OverlayLayer{1: {Merge: [][]int{{3, 1}, {4, 7, 5}}, Drop: []int{2}}})
			same(t, "fused, merged", apply(t, whole, merged, compress.Writing{}), as(apply(t, demoModel(t), merged, compress.Writing{})))
		}
		for _, o := range []moe.Overlay{pruned(), ragged} {
			small, stacked := apply(t, whole, o, compress.Writing{}), apply(t, demoModel(t), o, compress.Writing{})
			same(t, name, small, as(stacked))
			d := tensor.Reference()
			want := logits(t, stacked, d)
			if got := logits(t, small, d); !slices.Equal(got, want) {
				t.Errorf("%s: other logits than the slice of stacks", name)
			}
			again := apply(t, small, overlay(nil), compress.Writing{Out: filepath.Join(t.TempDir(), "again.gguf")})
			one, err := os.ReadFile(small.Path)
			if err != nil {
				t.Fatal(err)
			}
			two, err := os.ReadFile(again.Path)
			if err != nil || !bytes.Equal(one, two) {
				t.Errorf("%s: a smaller file that is written again differs (%v)", name, err)
			}
		}
		merged := overlay(map[int]moe.OverlayLayer{1: {Merge: [][]int{{3, 1}, {4, 7, 5}}}})
		d := tensor.Reference()
		if !slices.Equal(logits(t, apply(t, whole, merged, compress.Writing{}), d), logits(t, apply(t, demoModel(t), merged, compress.Writing{}), d)) {
			t.Errorf("%s: merged experts give other logits", name)
		}
	}
}

// Plans read the same weights from every layout.
func TestWeightsOfLayouts(t *testing.T) {
	of := func(c *store.Checkpoint) (out []byte) {
		spec, err := model.Describe(c)
		if err != nil {
			t.Fatal(err)
		}
		w := compress.NewWeights(c, spec)
		for layer := range 6 {
			for e := range 8 {
				gate, up, down, err := w.Matrices(layer, e)
				if err != nil {
					t.Fatal(err)
				}
				out = append(append(append(out, gate.Raw()...), up.Raw()...), down.Raw()...)
			}
		}
		return out
	}
	want := of(demoModel(t))
	for name, as := range layouts {
		if !bytes.Equal(of(as(demoModel(t))), want) {
			t.Errorf("%s: other weights than those of stacks", name)
		}
	}
}

// One format for all is written of every layout; formats by expert need stacks, and without them are refused by name.
func TestLayoutsAreQuantised(t *testing.T) {
	quantized := func(c *store.Checkpoint) []float32 {
		t.Helper()
		path := filepath.Join(t.TempDir(), "q.gguf")
		if _, err := compress.Quantize(t.Context(), c, path, compress.Quantization{To: quant.Q4_0}); err != nil {
			t.Fatal(err)
		}
		out, err := store.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		return logits(t, out, tensor.Reference())
	}
	want := quantized(demoModel(t))
	for name, as := range layouts {
		c := written(t, as(demoModel(t)))
		if !slices.Equal(quantized(c), want) {
			t.Errorf("%s: other logits than those of quantised stacks", name)
		}
		if _, err := compress.Measure(t.Context(), c, nil, compress.Measurement{Rows: 8}); !errors.Is(err, store.ErrUnsupported) {
			t.Errorf("%s: formats are measured: %v", name, err)
		}
		policy := moe.Overlay{Format: 1, Bits: map[int]moe.OverlayBits{1: {Default: "Q4_0"}}}
		_, err := compress.Quantize(t.Context(), c, filepath.Join(t.TempDir(), "p.gguf"), compress.Quantization{Policy: &policy})
		if !errors.Is(err, moe.ErrOverlay) {
			t.Errorf("%s: a policy is followed: %v", name, err)
		}
	}
}
