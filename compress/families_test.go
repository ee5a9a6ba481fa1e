package compress_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// TestFamilies drops an expert of each group of each layer of the small models beside the repository: what Winnow runs gives the same bits as
// the whole model in which the experts are masked.
func TestFamilies(t *testing.T) {
	var paths []string
	for _, pattern := range []string{"../../shared/models/tiny/*", "../../shared/models/tiny/*/model.gguf", "../../shared/models/tiny-gguf/*/model.gguf"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	if len(paths) == 0 {
		t.Skip("../../shared/models/tiny is not there")
	}
	cut := 0
	for _, path := range paths {
		c, err := store.Open(path)
		if err != nil {
			t.Logf("%s: skipped, %v", path, err)
			continue
		}
		defer c.Close()
		o := overlay(map[int]moe.OverlayLayer{})
		for layer := range 8 { // those that have no experts are refused one by one
			drop := []int{2}
			if strings.Contains(path, "deepseek") {
				drop = []int{2, 5, 11, 14}
			}
			one := overlay(map[int]moe.OverlayLayer{layer: {Drop: drop}})
			out := filepath.Join(t.TempDir(), "one")
			err := compress.Apply(t.Context(), c, one, compress.Writing{Out: out})
			if errors.Is(err, store.ErrUnsupported) {
				t.Logf("%s: skipped, %v", path, err)
				break
			}
			if err == nil {
				o.Layers[layer] = one.Layers[layer]
			} else if !strings.Contains(err.Error(), "has no experts") {
				t.Errorf("%s: %v", path, err)
			}
			if err := os.RemoveAll(out); err != nil {
				t.Fatal(err)
			}
		}
		if len(o.Layers) == 0 {
			continue
		}
		small := apply(t, c, o, compress.Writing{For: compress.Anyone})
		cut++
		spec, err := model.Describe(c)
		if err != nil {
			t.Logf("%s: written, and not run: %v", path, err)
			continue
		}
		routed := masking{tensor.Reference(), overlay(map[int]moe.OverlayLayer{})}
		n := 0
		for _, l := range spec.Layers { // routers are counted by layers of experts
			if l.Router != nil {
				routed.o.Layers[n] = o.Layers[slices.Max(keysOf(o.Layers))]
				n++
			}
		}
		if got, want := logits(t, small, tensor.Reference()), logits(t, c, routed); !slices.Equal(got, want) {
			t.Errorf("%s: logits differ from those of the masked model", path)
		} else {
			t.Logf("%s: equal", path)
		}
	}
	if cut < 3 {
		t.Errorf("%d models were cut", cut)
	}
}

func keysOf(layers map[int]moe.OverlayLayer) (out []int) {
	for layer := range layers {
		out = append(out, layer)
	}
	return out
}
