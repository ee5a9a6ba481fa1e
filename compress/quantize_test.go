package compress

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// quantised writes a checkpoint in other formats and opens the file.
func quantised(t *testing.T, c *store.Checkpoint, q Quantization) (*store.Checkpoint, Quantized) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "out.gguf")
	said, err := Quantize(t.Context(), c, path, q)
	if err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("files beside the result: %v, %v", files, err)
	}
	out, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	if out.Size() != said.Bytes {
		t.Errorf("%d bytes of tensors, %d were said", out.Size(), said.Bytes)
	}
	return out, said
}

// values are a tensor's numbers.
func values(t store.Tensor) []float32 {
	out := make([]float32, numbers(t))
	t.Format.Decode(out, t.Data)
	return out
}

// encoded is what is stored of values in a format, row by row.
func encoded(f *quant.Format, values []float32) []byte {
	raw := make([]byte, f.RowBytes(len(values)))
	f.Encode(raw, values)
	return raw
}

func TestUniform(t *testing.T) {
	c := openDemo(t)
	out, said := quantised(t, c, Quantization{To: quant.Q4_K, Threads: 3})
	for _, name := range c.Names() {
		from, to := c.Tensors[name], out.Tensors[name]
		want := from.Format
		switch {
		case name == "token_embd.weight":
			want = quant.Q6_K
		case strings.Contains(name, "ffn_down_exps"):
			want = quant.Q5_0
		case from.Format == quant.Q8_0:
			want = quant.Q4_K
		}
		if to.Format != want || !reflect.DeepEqual(to.Shape, from.Shape) {
			t.Fatalf("%s: %v of %v, want %s of %v", name, to.Format, to.Shape, want, from.Shape)
		}
		expected := from.Data
		if want != from.Format {
			expected = encoded(want, values(from))
		}
		if !bytes.Equal(to.Data, expected) {
			t.Errorf("%s: not what is encoded directly", name)
		}
	}
	if len(out.Names()) != len(c.Names()) {
		t.Errorf("%d tensors of %d", len(out.Names()), len(c.Names()))
	}
	if want := map[string]int{"Q4_K as Q5_0": 6}; !reflect.DeepEqual(said.Replaced, want) {
		t.Errorf("replaced %v, want %v", said.Replaced, want)
	}
	for key, value := range c.Meta {
		if key == "general.file_type" {
			value = uint32(14)
		}
		if !reflect.DeepEqual(out.Meta[key], value) {
			t.Errorf("key %s is %v, want %v", key, out.Meta[key], value)
		}
	}
}

// TestNothingGrows: a quantised tensor keeps its format where another takes as much, and vectors, norms and routers are F32.
func TestNothingGrows(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	c := made(t, random(r, "blk.0.attn_q.weight", quant.Q4_0, 8, 256), random(r, "blk.0.attn_norm.weight", quant.F16, 256),
		random(r, "blk.0.ffn_gate_inp.weight", quant.BF16, 4, 256), random(r, "blk.0.attn_q.bias", quant.F32, 8),
		random(r, "blk.1.ffn_gate_inp.weight", quant.Q8_0, 4, 256),
		random(r, "output.weight", quant.BF16, 8, 256), random(r, "blk.0.attn_k.weight", quant.F32, 8, 48))
	out, said := quantised(t, c, Quantization{To: quant.Q4_K})
	for name, want := range map[string]*quant.Format{
		"blk.0.attn_q.weight": quant.Q4_0, "blk.0.attn_norm.weight": quant.F32, "blk.0.ffn_gate_inp.weight": quant.F32,
		"blk.0.attn_q.bias": quant.F32, "blk.1.ffn_gate_inp.weight": quant.Q8_0, "output.weight": quant.Q6_K, "blk.0.attn_k.weight": quant.F16,
	} {
		got := out.Tensors[name]
		if got.Format != want {
			t.Errorf("%s is %v, want %s", name, got.Format, want)
		} else if want == quant.F32 && !reflect.DeepEqual(values(got), values(c.Tensors[name])) {
			t.Errorf("%s has other values", name)
		}
	}
	if want := map[string]int{"Q4_K as F16": 1}; !reflect.DeepEqual(said.Replaced, want) {
		t.Errorf("replaced %v, want %v", said.Replaced, want)
	}
	if out.Meta.Has("split.count") || out.Meta["general.name"] != "made" {
		t.Errorf("keys %v", out.Meta)
	}
}

// experts checks that every expert of a layer is found through the map, encoded from its own weights, and gives the formats of its parts.
func checkExperts(t *testing.T, c, out *store.Checkpoint, layer int, want func(e, part int) *quant.Format) {
	t.Helper()
	table := out.Tensors[fmt.Sprintf("blk.%d.ffn_exps_map", layer)]
	for i, p := range parts {
		stack := c.Tensors[fmt.Sprintf("blk.%d.ffn_%s_exps.weight", layer, p)]
		if n := stack.Shape[0]; !reflect.DeepEqual(table.Shape, []int{n, 2}) || table.Format != quant.I32 {
			t.Fatalf("layer %d: map is %v of %v", layer, table.Format, table.Shape)
		}
		if out.Has(stack.Name) {
			t.Errorf("%s is there, and so are banks", stack.Name)
		}
		for e := range stack.Shape[0] {
			b, row := int32(binary.LittleEndian.Uint32(table.Data[8*e:])), int32(binary.LittleEndian.Uint32(table.Data[8*e+4:]))
			f := want(e, i)
			if f == nil {
				if b != -1 || row != -1 {
					t.Errorf("layer %d: expert %d was dropped and is at %d, %d", layer, e, b, row)
				}
				continue
			}
			bank, err := out.Tensor(fmt.Sprintf("blk.%d.ffn_%s_exps.q%d.weight", layer, p, b))
			if err != nil {
				t.Fatal(err)
			}
			if bank.Format != f {
				t.Fatalf("layer %d, expert %d: %s is %s, want %s", layer, e, p, bank.Format, f)
			}
			from := e
			if m := merged[layer]; len(m) > 0 && e == m[1] {
				from = m[0]
			}
			expected := part(stack, from).Data
			if f != stack.Format {
				expected = encoded(f, values(part(stack, from)))
			}
			if !bytes.Equal(part(bank, int(row)).Data, expected) {
				t.Errorf("layer %d, expert %d: %s through the map is not what is encoded directly", layer, e, p)
			}
		}
	}
}

// merged is by layer what the policy of TestPolicyBanks merges.
var merged = map[int][]int{4: {2, 6}}

func TestPolicyBanks(t *testing.T) {
	c := openDemo(t)
	p := &moe.Overlay{Format: 1, Bits: map[int]moe.OverlayBits{
		0: {Default: "Q4_K"}, // all alike: stacks, as in any file
		1: {Default: "Q3_K", Over: map[int]string{1: "Q6_K", 5: "Q8_0", 6: "Q6_K"}},
		2: {Default: "Q2_K", Over: map[int]string{3: "Q4_0"}},
		4: {Default: "Q4_K", Over: map[int]string{0: "Q5_K"}},
	}, Layers: map[int]moe.OverlayLayer{3: {Drop: []int{2, 7}}, 4: {Merge: [][]int{merged[4]}}}, Tensors: map[string]string{"blk.1.attn_q.weight": "Q5_K"}}
	out, said := quantised(t, c, Quantization{Policy: p, Threads: 2})

	f := func(names ...string) (out []*quant.Format) {
		for _, n := range names {
			out = append(out, quant.ByName(n))
		}
		return out
	}
	q6, q3 := f("Q6_K", "Q6_K", "Q8_0"), f("Q3_K", "Q3_K", "IQ4_NL")
	checkExperts(t, c, out, 1, func(e, i int) *quant.Format {
		return [][]*quant.Format{q3, q6, q3, q3, q3, f("Q8_0", "Q8_0", "Q8_0"), q6, q3}[e][i]
	})
	checkExperts(t, c, out, 2, func(e, i int) *quant.Format {
		if e == 3 {
			return quant.Q4_0
		}
		return f("Q2_K", "Q2_K", "IQ4_NL")[i]
	})
	checkExperts(t, c, out, 3, func(e, i int) *quant.Format {
		if e == 2 || e == 7 {
			return nil
		}
		return quant.Q8_0
	})
	checkExperts(t, c, out, 4, func(e, i int) *quant.Format {
		if e == 0 {
			return f("Q5_K", "Q5_K", "Q5_1")[i]
		}
		return f("Q4_K", "Q4_K", "Q5_0")[i]
	})
	for name, want := range map[string]string{
		"blk.0.ffn_gate_exps.weight": "Q4_K", "blk.0.ffn_down_exps.weight": "Q5_0", "blk.5.ffn_up_exps.weight": "Q8_0",
		"blk.1.attn_q.weight": "Q5_K", "blk.2.attn_q.weight": "Q8_0", "token_embd.weight": "Q8_0", "blk.1.ffn_gate_inp.weight": "F32",
	} {
		if got := out.Tensors[name].Format; got == nil || got.Name != want {
			t.Errorf("%s is %v, want %s", name, got, want)
		}
	}
	if n := len(out.Tensors["blk.4.ffn_gate_exps.q0.weight"].Shape); n != 3 || out.Tensors["blk.4.ffn_gate_exps.q0.weight"].Shape[0] != 6 {
		t.Errorf("bank 0 of layer 4 has shape %v, want the 6 experts of Q4_K", out.Tensors["blk.4.ffn_gate_exps.q0.weight"].Shape)
	}
	if said.Replaced["Q5_K as Q5_1"] != 1 || said.Replaced["Q2_K as IQ4_NL"] != 1 {
		t.Errorf("replaced %v", said.Replaced)
	}
}

func TestQuantizeIsDeterministic(t *testing.T) {
	dir, files := t.TempDir(), [2][]byte{}
	p := &moe.Overlay{Format: 1, Bits: map[int]moe.OverlayBits{1: {Default: "Q4_0", Over: map[int]string{1: "IQ4_NL", 4: "Q5_0"}}}}
	for i, threads := range []int{1, 5} {
		last := int64(0)
		path := filepath.Join(dir, "out.gguf") // the second takes the place of the first
		_, err := Quantize(t.Context(), openDemo(t), path, Quantization{Policy: p, Threads: threads, Replace: true, See: func(done, total int64) {
			if done <= last || done > total {
				t.Errorf("%d bytes of %d after %d", done, total, last)
			}
			last = done
		}})
		if err != nil {
			t.Fatal(err)
		}
		if files[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("1 and 5 goroutines write different files")
	}
}

func TestQuantizeRefuses(t *testing.T) {
	bits := func(layer int, b moe.OverlayBits) Quantization {
		return Quantization{Policy: &moe.Overlay{Format: 1, Bits: map[int]moe.OverlayBits{layer: b}}}
	}
	change := func(l moe.OverlayLayer) Quantization {
		return Quantization{Policy: &moe.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{1: l}}}
	}
	for name, tt := range map[string]struct {
		q    Quantization
		want error
	}{
		"nothing":          {Quantization{}, ErrWritable},
		"both":             {Quantization{To: quant.Q4_0, Policy: &moe.Overlay{}}, ErrWritable},
		"a format of ours": {Quantization{To: quant.W4G32}, ErrWritable},
		"integers":         {Quantization{To: quant.I32}, ErrWritable},
		"no such layer":    {bits(6, moe.OverlayBits{Default: "Q4_0"}), moe.ErrOverlay},
		"no such expert":   {bits(1, moe.OverlayBits{Default: "Q4_0", Over: map[int]string{8: "Q5_0"}}), moe.ErrOverlay},
		"no such format":   {bits(1, moe.OverlayBits{Default: "Q4_0", Over: map[int]string{7: "Q55"}}), moe.ErrOverlay},
		"five formats": {bits(1, moe.OverlayBits{Default: "Q4_0", Over: map[int]string{0: "Q5_0", 1: "Q5_1", 2: "Q4_1", 3: "Q8_0"}}),
			moe.ErrOverlay},
		"dropped twice":    {change(moe.OverlayLayer{Drop: []int{1, 1}}), moe.ErrOverlay},
		"dropped, merged":  {change(moe.OverlayLayer{Drop: []int{1}, Merge: [][]int{{0, 1}}}), moe.ErrOverlay},
		"negative":         {change(moe.OverlayLayer{Drop: []int{-1}}), moe.ErrOverlay},
		"fewer than used":  {change(moe.OverlayLayer{Drop: []int{0, 1, 2, 3, 4, 5, 6}}), moe.ErrOverlay},
		"another top k":    {change(moe.OverlayLayer{TopK: 1}), moe.ErrOverlay},
		"no such tensor":   {Quantization{Policy: &moe.Overlay{Tensors: map[string]string{"x": "Q4_0"}}}, moe.ErrOverlay},
		"a norm quantised": {Quantization{Policy: &moe.Overlay{Tensors: map[string]string{"blk.0.attn_norm.weight": "Q4_0"}}}, moe.ErrOverlay},
	} {
		dir := t.TempDir()
		if _, err := Quantize(t.Context(), openDemo(t), filepath.Join(dir, "x.gguf"), tt.q); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("%s: left %v, %v", name, files, err)
		}
	}
}

func TestQuantizeCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	path := filepath.Join(t.TempDir(), "x.gguf")
	if err := os.WriteFile(path, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Quantize(ctx, openDemo(t), path, Quantization{To: quant.Q4_0}); !errors.Is(err, store.ErrExists) {
		t.Errorf("%v, want ErrExists", err)
	}
	_, err := Quantize(ctx, openDemo(t), path, Quantization{To: quant.Q4_0, Replace: true, See: func(done, total int64) {
		if done > total/2 {
			cancel()
		}
	}})
	if raw, err := os.ReadFile(path); err != nil || string(raw) != "before" {
		t.Errorf("the file in place is %d bytes, %v", len(raw), err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("left %v, %v", files, err)
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want Canceled", err)
	}
}

// TestValuesAsFloats: with As, a file has the numbers that the formats leave, of formats too that no GGUF can hold.
func TestValuesAsFloats(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 1))
	c := made(t, append(smallExperts(r), random(r, "blk.0.attn_q.weight", quant.F32, 4, 64))...)
	rounded := func(f *quant.Format, values []float32) []float32 {
		out := make([]float32, len(values))
		f.Decode(out, encoded(f, values))
		return out
	}
	check := func(got store.Tensor, f *quant.Format, from []float32) {
		t.Helper()
		if got.Format != quant.F32 || !reflect.DeepEqual(values(got), rounded(f, from)) {
			t.Errorf("%s is %s, and not what %s leaves", got.Name, got.Format, f)
		}
	}
	out, _ := quantised(t, c, Quantization{To: quant.W2G32, As: quant.F32})
	for _, name := range c.Names() {
		check(out.Tensors[name], quant.W2G32, values(c.Tensors[name]))
	}
	p := &moe.Overlay{Format: 1, Tensors: map[string]string{"blk.0.attn_q.weight": "W4G32"},
		Bits: map[int]moe.OverlayBits{0: {Default: "W2G32", Over: map[int]string{4: "W3G32"}}}}
	out, _ = quantised(t, c, Quantization{Policy: p, As: quant.F32})
	check(out.Tensors["blk.0.attn_q.weight"], quant.W4G32, values(c.Tensors["blk.0.attn_q.weight"]))
	up := c.Tensors["blk.0.ffn_up_exps.weight"]
	check(out.Tensors["blk.0.ffn_up_exps.q1.weight"], quant.W3G32, values(part(up, 4)))
	check(part(out.Tensors["blk.0.ffn_up_exps.q0.weight"], 0), quant.W2G32, values(part(up, 0)))

	for name, tt := range map[string]struct {
		q    Quantization
		want error
	}{
		"a policy of formats without a type": {Quantization{Policy: p}, ErrWritable},
		"a format without a type":            {Quantization{To: quant.W2G32}, ErrWritable},
		"as a quantised format":              {Quantization{To: quant.Q4_K, As: quant.Q8_0}, ErrWritable},
		"as integers":                        {Quantization{To: quant.Q4_K, As: quant.I32}, ErrWritable},
		"integers as floats":                 {Quantization{To: quant.I32, As: quant.F32}, ErrWritable},
	} {
		if _, err := Quantize(t.Context(), c, filepath.Join(t.TempDir(), "x.gguf"), tt.q); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}
