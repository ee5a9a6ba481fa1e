package compress_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

func packedFolder(t testing.TB, c *store.Checkpoint, q compress.Quantization) *store.Checkpoint {
	t.Helper()
	out := filepath.Join(t.TempDir(), "packed")
	if _, err := compress.Quantize(t.Context(), c, out, q); err != nil {
		t.Fatal(err)
	}
	return opened(t, out)
}

// floatsOf are a tensor's values.
func floatsOf(t store.Tensor) []float32 {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	out := make([]float32, n)
	t.Format.Decode(out, t.Data)
	return out
}

// mixedBits gives experts of a layer 4 and 8 bits, and leaves some as they are.
var mixedBits = moe.Overlay{
	Format: 1, Bits: map[int]moe.OverlayBits{
		0: {Default: "Q4_0", Over: map[int]string{1: "Q8_0", 6: "BF16"}}, 1: {Default: "Q8_0", Over: map[int]string{0: "F32", 7: "Q4_0"}},
	},
	Tensors: map[string]string{"model.layers.2.self_attn.q_proj.weight": "Q4_0"},
}

// TestQuantizeFolder packs experts each in its own width. The folder gives the very logits of the folder as it was in which the weights are those
// that were packed: natively and in F32, where they are plain floats.
func TestQuantizeFolder(t *testing.T) {
	c := opened(t, fixture)
	packed := packedFolder(t, c, compress.Quantization{Policy: &mixedBits})
	var blocks, floats []store.Tensor
	widths := map[string]int{}
	for _, name := range packed.Names() {
		m, err := packed.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		widths[m.Format.Name]++
		was, err := c.Tensor(name)
		if err != nil || !slices.Equal(was.Shape, m.Shape) {
			t.Fatal(name, m.Shape, err)
		}
		if !packed.Packed(name) {
			continue
		}
		got, want := floatsOf(m), floatsOf(was)
		most := float32(0)
		for _, v := range want {
			most = max(most, v, -v)
		}
		for i := range got {
			if d := got[i] - want[i]; max(d, -d) > most/7 {
				t.Fatalf("%s: value %d is %v, was %v", name, i, got[i], want[i])
			}
		}
		blocks = append(blocks, m)
		plain := store.Tensor{Name: name, Format: quant.F32, Shape: m.Shape, Data: make([]byte, 4*len(got))}
		quant.F32.Encode(plain.Data, got)
		floats = append(floats, plain)
	}
	if widths["Q4_0"] != 3*(6+1)+1 || widths["Q8_0"] != 3*(1+6) || widths["F32"] != 3 {
		t.Errorf("tensors by format: %v", widths)
	}
	for _, d := range devices(t) {
		if got, want := logits(t, packed, d), logits(t, c.With(nil, blocks), d); !slices.Equal(got, want) {
			t.Errorf("%s: other logits than of the same blocks", d.Name())
		}
	}
	if got, want := logits(t, packed, tensor.Reference()), logits(t, c.With(nil, floats), tensor.Reference()); !slices.Equal(got, want) {
		t.Error("other logits than of the same weights in F32")
	}
}

// TestQuantizeFolderSays checks what config.json says: each packed matrix is a target once and is not ignored, all others are ignored, and what
// was there before is still there.
func TestQuantizeFolderSays(t *testing.T) {
	c := opened(t, fixture)
	for what, q := range map[string]compress.Quantization{"policy": {Policy: &mixedBits}, "one format": {To: quant.Q8_0}} {
		packed := packedFolder(t, c, q)
		var config struct {
			Experts      int `json:"num_experts"`
			Quantization struct {
				Method string `json:"quant_method"`
				Format string
				Groups map[string]struct {
					Targets []string
					Weights struct {
						Bits  int `json:"num_bits"`
						Group int `json:"group_size"`
					}
				} `json:"config_groups"`
				Ignore []string
			} `json:"quantization_config"`
		}
		if err := json.Unmarshal(packed.Files["config.json"], &config); err != nil || config.Experts != 8 {
			t.Fatal(what, config, err)
		}
		said := config.Quantization
		if said.Method != "compressed-tensors" || said.Format != "pack-quantized" {
			t.Errorf("%s: %+v", what, said)
		}
		matches := func(targets []string, module string) bool {
			return slices.ContainsFunc(targets, func(target string) bool {
				re, ok := strings.CutPrefix(target, "re:")
				return target == module || ok && regexp.MustCompile(re).MatchString(module)
			})
		}
		for _, name := range packed.Names() {
			m := packed.Tensors[name]
			if len(m.Shape) < 2 {
				continue
			}
			module, bits := strings.TrimSuffix(name, ".weight"), 0
			for _, g := range said.Groups {
				if matches(g.Targets, module) || slices.Equal(g.Targets, []string{"Linear"}) && !matches(said.Ignore, module) {
					bits += g.Weights.Bits
				}
			}
			want := map[*quant.Format]int{quant.Q4_0: 4, quant.Q8_0: 8}[m.Format]
			if bits != want || matches(said.Ignore, module) != (want == 0) {
				t.Errorf("%s: %s is %s, and said to have %d bits", what, name, m.Format, bits)
			}
		}
	}
}

// TestPackedFolderPruned drops experts of a packed folder: the codes are copied. Where config.json names experts by their numbers it is refused.
func TestPackedFolderPruned(t *testing.T) {
	c := packedFolder(t, opened(t, fixture), compress.Quantization{To: quant.Q4_0})
	o := overlay(map[int]moe.OverlayLayer{0: {Drop: []int{7, 2}}, 1: {Drop: []int{0, 1}}, 2: {Drop: []int{3, 4}}})
	small := apply(t, c, o, compress.Writing{For: compress.Anyone})
	if got, want := logits(t, small, tensor.Reference()), logits(t, c, masking{tensor.Reference(), o}); !slices.Equal(got, want) {
		t.Error("logits differ from those of the masked model")
	}
	refused := func(what string, c *store.Checkpoint, o moe.Overlay, w compress.Writing) {
		w.Out = filepath.Join(t.TempDir(), "out")
		if err := compress.Apply(t.Context(), c, o, w); !errors.Is(err, store.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("mixed", packedFolder(t, opened(t, fixture), compress.Quantization{Policy: &mixedBits}), o, compress.Writing{})
	means := overlay(map[int]moe.OverlayLayer{0: {Merge: [][]int{{1, 2}}}})
	refused("means of codes", c, means, compress.Writing{Merging: compress.Average})
}

func TestQuantizeFolderRefuses(t *testing.T) {
	c := opened(t, fixture)
	narrow := opened(t, folderWith(t, `{"num_experts":1,"num_experts_per_tok":1}`, store.NewSafetensors{Tensors: []store.NewTensor{
		numbered("model.layers.0.mlp.gate.weight", 1, 40), numbered("model.layers.0.mlp.experts.0.up_proj.weight", 2, 40),
	}}, map[string]string{}))
	bits := func(layer int, b moe.OverlayBits) *moe.Overlay {
		return &moe.Overlay{Format: 1, Bits: map[int]moe.OverlayBits{layer: b}}
	}
	for _, r := range []struct {
		name string
		c    *store.Checkpoint
		q    compress.Quantization
		err  error
		text string
	}{
		{"6 bits", c, compress.Quantization{Policy: bits(1, moe.OverlayBits{Default: "Q4_0", Over: map[int]string{3: "Q6_K"}})}, compress.ErrWritable, `layer 1, expert 3: compress: no format to quantise to: "Q6_K"`},
		{"5 bits by default", c, compress.Quantization{Policy: bits(2, moe.OverlayBits{Default: "Q5_0"})}, compress.ErrWritable, `layer 2: compress: no format to quantise to: "Q5_0"`},
		{"2 bits for all", c, compress.Quantization{To: quant.W2G32}, compress.ErrWritable, "W2G32"},
		{"a layer too many", c, compress.Quantization{Policy: bits(3, moe.OverlayBits{Default: "Q4_0"})}, moe.ErrOverlay, "layer 3"},
		{"an expert too many", c, compress.Quantization{Policy: bits(0, moe.OverlayBits{Default: "Q4_0", Over: map[int]string{8: "Q8_0"}})}, moe.ErrOverlay, "expert 8 is none of 8"},
		{"a tensor that is not there", c, compress.Quantization{Policy: &moe.Overlay{Format: 1, Tensors: map[string]string{"x.weight": "Q4_0"}}}, moe.ErrOverlay, "x.weight"},
		{"a norm", c, compress.Quantization{Policy: &moe.Overlay{Format: 1, Tensors: map[string]string{"model.norm.weight": "Q4_0"}}}, moe.ErrOverlay, "model.norm.weight"},
		{"dropped experts", c, compress.Quantization{Policy: &moe.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{1: {Drop: []int{1}}}}}, moe.ErrOverlay, "layer 1"},
		{"another model's policy", c, compress.Quantization{Policy: &moe.Overlay{Format: 1, Model: strings.Repeat("0", 64)}}, moe.ErrOverlay, "model"},
		{"values as floats", c, compress.Quantization{To: quant.Q4_0, As: quant.F32}, compress.ErrWritable, ""},
		{"in place of a folder", c, compress.Quantization{To: quant.Q4_0, Replace: true}, compress.ErrWritable, ""},
		{"rows of 40", narrow, compress.Quantization{To: quant.Q4_0}, store.ErrUnsupported, "rows of 40 values"},
		{"quantised already", packedFolder(t, c, compress.Quantization{To: quant.Q4_0}), compress.Quantization{To: quant.Q8_0}, store.ErrUnsupported, "quantised already"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		_, err := compress.Quantize(t.Context(), r.c, out, r.q)
		if !errors.Is(err, r.err) || !strings.Contains(err.Error(), r.text) {
			t.Errorf("%s: %v", r.name, err)
		}
		if _, err := os.Lstat(out); err == nil {
			t.Errorf("%s: something was written", r.name)
		}
	}
}

// TestBitsOfAFolder chooses formats for a folder within a budget and writes it.
func TestBitsOfAFolder(t *testing.T) {
	c := opened(t, fixture)
	units, err := compress.Measure(t.Context(), c, nil, compress.Measurement{})
	if err != nil {
		t.Fatal(err)
	}
	var values, bytes int64
	kinds := map[compress.Kind]int{}
	for _, u := range units {
		values += u.Values
		kinds[u.Kind]++
	}
	if kinds[compress.Expert] != 3*8 || kinds[compress.Attention] != 3*4 || len(kinds) != 2 {
		t.Fatalf("units by kind: %v", kinds)
	}
	budget := values * 7 / 8
	chosen, err := compress.Allocate(units, budget, 3)
	if err != nil {
		t.Fatal(err)
	}
	policy := compress.Policy(units, chosen, "ours")
	policy.Model = c.Fingerprint()
	packed := packedFolder(t, c, compress.Quantization{Policy: policy})
	widths := map[string]int{}
	for _, u := range units {
		for _, name := range u.Names {
			m := packed.Tensors[name]
			bytes += m.Bytes()
			widths[m.Format.Name]++
		}
	}
	if bytes > budget || bytes < budget*9/10 || widths["Q4_0"] == 0 || widths["Q8_0"] == 0 || len(widths) != 2 {
		t.Errorf("%d bytes of %d, formats %v", bytes, budget, widths)
	}
	if _, err := compress.Measure(t.Context(), packed, nil, compress.Measurement{}); !errors.Is(err, store.ErrUnsupported) {
		t.Errorf("a packed folder: %v", err)
	}
}
