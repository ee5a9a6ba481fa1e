package model_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// pth writes tensors of F32 as torch.save does.
func pth(t *testing.T, path string, shapes map[string][]int, random *rand.Rand) {
	t.Helper()
	p := bytes.NewBufferString("\x80\x02}(")
	text := func(s string) {
		p.WriteString("X")
		p.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
		p.WriteString(s)
	}
	number := func(n int) { p.Write(binary.LittleEndian.AppendUint32([]byte("J"), uint32(n))) }
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	entry := func(name string, raw []byte) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
		if err == nil {
			_, err = w.Write(raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	at := 0
	for _, name := range slices.Sorted(maps.Keys(shapes)) { // in an order, or random would give other weights each time
		n, shape := 1, shapes[name]
		for _, d := range shape {
			n *= d
		}
		raw := make([]byte, 4*n)
		for i := range n {
			binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(float32(random.NormFloat64())))
		}
		entry(fmt.Sprint("data/", at), raw)
		text(name)
		p.WriteString("ctorch._utils\n_rebuild_tensor_v2\n((")
		text("storage")
		p.WriteString("ctorch\nFloatStorage\n")
		text(fmt.Sprint(at))
		text("cpu")
		number(n)
		p.WriteString("tQK\x00(")
		for _, d := range shape {
			number(d)
		}
		p.WriteString("t(")
		for i := range shape {
			stride := 1
			for _, d := range shape[i+1:] {
				stride *= d
			}
			number(stride)
		}
		p.WriteString("t\x89ccollections\nOrderedDict\n)RtR")
		at++
	}
	p.WriteString("u.")
	entry("data.pkl", p.Bytes())
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// gateShapes are those of published gates for testdata/llama_tied: 3 layers, 4 heads, 1 key-value head, of 16.
func gateShapes(kind model.GateKind) map[string][]int {
	out := map[string][]int{}
	for l := range 3 {
		part := func(name string, shape ...int) {
			out[fmt.Sprintf("model.layers.%d.self_attn.attn_gate.%s.weight", l, name)] = shape
		}
		if kind == model.SeerPrefill {
			part("mask_linear_k", 4, 48, 16)
			continue
		}
		part("attngate_linear_q", 1, 4, 16, 16)
		part("attngate_linear_k", 1, 48, 16)
		part("attngate_qnorm", 16)
		part("attngate_knorm", 16)
	}
	return out
}

func openTied(t *testing.T) *store.Checkpoint {
	t.Helper()
	c, err := store.Open("testdata/llama_tied")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// asGGUF is testdata/llama_tied as converters write llamas: rows of q and k interleaved, so that neighbours turn together.
func asGGUF(t *testing.T, c *store.Checkpoint) *store.Checkpoint {
	t.Helper()
	g := store.NewGGUF{Meta: store.Meta{
		"general.architecture": "llama", "llama.block_count": uint32(3), "llama.embedding_length": uint32(64), "llama.context_length": uint32(512),
		"llama.attention.head_count": uint32(4), "llama.attention.head_count_kv": uint32(1), "llama.feed_forward_length": uint32(96),
		"llama.attention.layer_norm_rms_epsilon": float32(1e-5), "llama.rope.freq_base": float32(10000),
	}}
	names := []string{"token_embd.weight", "output_norm.weight"}
	for l := range 3 {
		for _, part := range []string{"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"} {
			names = append(names, fmt.Sprintf("blk.%d.%s.weight", l, part))
		}
	}
	for _, name := range names {
		w, err := model.Tensor(c, name)
		if err != nil {
			t.Fatal(err)
		}
		data := w.Data
		if strings.Contains(name, "attn_q.") || strings.Contains(name, "attn_k.") {
			data = nil
			size := len(w.Data) / w.Shape[0]
			for r := range w.Shape[0] {
				from := r/16*16 + r%16/2 + r%2*8
				data = append(data, w.Data[from*size:(from+1)*size]...)
			}
		}
		g.Tensors = append(g.Tensors, store.NewTensor{Name: name, Format: w.Format, Shape: w.Shape, Pieces: slices.Values([][]byte{data})})
	}
	path := filepath.Join(t.TempDir(), "tied.gguf")
	if err := store.WriteGGUF(t.Context(), path, g, nil); err != nil {
		t.Fatal(err)
	}
	out, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	return out
}

// gateScores are those of layer 1 for the last token, or the last whole block, of 200 tokens: of each head of the gate, of each of 3 blocks.
func gateScores(t *testing.T, c *store.Checkpoint, g *model.Gates) []float32 {
	t.Helper()
	var q, k []float32
	d := tensor.Observed(tensor.Reference(), func(op tensor.Op, read func(tensor.Mat) []byte) {
		if l, ok := op.(*tensor.Linear); ok && strings.HasPrefix(l.W.Name, "blk.1.attn_") {
			values := tensor.HostMat("", quant.F32, l.Y.Rows, l.Y.Cols, read(l.Y)).F32()
			switch l.W.Name {
			case "blk.1.attn_q.weight":
				q = values
			case "blk.1.attn_k.weight":
				k = values
			}
		}
	})
	m, err := model.Load(c, model.Placement{Device: d}, model.Options{DType: model.Float32, Limits: model.Limits{Rows: 200, Sequences: 1, Wanted: 1, Context: 200, Pages: 4}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var step model.Step
	step.Reset()
	for i := range 200 {
		step.IDs = append(step.IDs, int32(i*i%509))
	}
	step.Start, step.Past, step.Pages = append(step.Start, 200), append(step.Past, 0), append(step.Pages, []int32{0, 1, 2, 3})
	m.Batch().Fill(m.Queue(), &step)
	m.Forward(m.Batch())
	if err := m.Queue().Sync(); err != nil {
		t.Fatal(err)
	}
	gate, rope := g.Gate(1), m.Spec().Layers[1].Rope
	finish := func(v, norm []float32, pos int) []float32 {
		if norm != nil {
			n := tensor.Norm{X: tensor.FromF32(1, 16, v), W: tensor.FromF32(1, 16, norm), Y: tensor.FromF32(1, 16, v), Groups: 1, Eps: 1e-6}
			n.Reference()
		}
		a := tensor.Angles{Pos: tensor.FromI32(1, 1, []int32{int32(pos)}), Freq: tensor.FromF32(1, 8, rope.Freq), Y: tensor.FromF32(1, 16, make([]float32, 16)), Scale: rope.Scale}
		a.Reference()
		r := tensor.Rope{X: tensor.FromF32(1, 16, v), Angles: a.Y, Heads: 1, Pairs: rope.Pairs}
		r.Reference()
		return v
	}
	project := func(x, w []float32) []float32 {
		out := make([]float32, 16)
		for i, v := range x {
			for o := range out {
				out[o] += v * w[i*16+o]
			}
		}
		return out
	}
	norms := func(m tensor.Mat) []float32 {
		if m.Present() {
			return m.F32()
		}
		return nil
	}
	var out []float32
	for h := range g.KeyHeads() {
		var query []float32
		if g.Kind == model.SeerDecode {
			query = finish(project(q[199*64:], gate.Query.F32()), norms(gate.QueryNorm), 199)
		} else {
			query = make([]float32, 16)
			for r := 128; r < 192; r++ {
				for i := range query {
					query[i] += q[r*64+h*16+i] / 64
				}
			}
			finish(query, nil, 128)
		}
		for b := range 3 {
			pool := make([]float32, 48)
			for i := range 16 {
				pool[i], pool[16+i] = k[b*64*16+i], k[b*64*16+i]
				for r := b * 64; r < b*64+64; r++ {
					v := k[r*16+i]
					pool[i], pool[16+i], pool[32+i] = max(pool[i], v), min(pool[16+i], v), pool[32+i]+v/64
				}
			}
			key := finish(project(pool, gate.Key.F32()[h*48*16:]), norms(gate.KeyNorm), 64*b)
			s := float32(0)
			for i, v := range query {
				s += v * key[i] / 4
			}
			out = append(out, s)
		}
	}
	return out
}

// Published gates score the same in a folder, whose heads turn halves, and in a GGUF, whose heads turn neighbours; in the wrong order they would
// not.
func TestGatesOfBothContainers(t *testing.T) {
	folder := openTied(t)
	file := asGGUF(t, folder)
	for _, kind := range []model.GateKind{model.SeerPrefill, model.SeerDecode} {
		dir := t.TempDir()
		pth(t, filepath.Join(dir, "attn_gate_weights.pth"), gateShapes(kind), rand.New(rand.NewPCG(1, 2)))
		imported, err := model.ImportGates(dir, folder)
		if err != nil {
			t.Fatal(err)
		}
		again, err := model.ImportGates(filepath.Join(dir, "attn_gate_weights.pth"), file)
		if err != nil || !reflect.DeepEqual(imported, again) {
			t.Fatalf("%s: another import for a GGUF: %v", kind, err)
		}
		path := filepath.Join(dir, "gates.gguf")
		if err := model.WriteGates(t.Context(), path, imported, quant.F32); err != nil {
			t.Fatal(err)
		}
		ofFolder, err := model.OpenGates(path, folder)
		if err != nil {
			t.Fatal(err)
		}
		ofFile, err := model.OpenGates(path, file)
		if err != nil {
			t.Fatal(err)
		}
		want, got, wrong := gateScores(t, folder, ofFolder), gateScores(t, file, ofFile), gateScores(t, file, ofFolder)
		close := func(a, b []float32) bool {
			return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Abs(float64(x-y)) < 1e-4*(1+math.Abs(float64(y))) })
		}
		if !close(got, want) || close(wrong, want) {
			t.Errorf("%s: %v in a folder, %v in a GGUF, %v in the wrong order", kind, want, got, wrong)
		}
		ofFile.Published(8)
		if !reflect.DeepEqual(ofFile.Layer, imported.Layer) || ofFile.Pairs != imported.Pairs {
			t.Errorf("%s: there and back is another gate", kind)
		}
	}
}

// tied are gates of a kind for testdata/llama_tied.
func tied(t *testing.T, c *store.Checkpoint, kind model.GateKind) *model.Gates {
	t.Helper()
	path := filepath.Join(t.TempDir(), "w.pth")
	pth(t, path, gateShapes(kind), rand.New(rand.NewPCG(1, 2)))
	g, err := model.ImportGates(path, c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGatesOfAnotherModel(t *testing.T) {
	c := openTied(t)
	for field, change := range map[string]func(g *model.Gates){
		"layers is 2, the model's is 3":          func(g *model.Gates) { g.Layer = g.Layer[:2] },
		"query heads is 8":                       func(g *model.Gates) { g.Heads.Query = 8; grow(g, 2, 1) },
		"key-value heads is 2":                   func(g *model.Gates) { g.Heads.KV = 2; grow(g, 1, 2) },
		"head size is 32":                        func(g *model.Gates) { g.Heads.Dim = 32; grow(g, 2, 2) },
		`base model is 000000000000 ("another")`: func(g *model.Gates) { g.Base, g.Name = strings.Repeat("0", 64), "another" },
	} {
		g := tied(t, c, model.SeerDecode)
		change(g)
		path := filepath.Join(t.TempDir(), "g.gguf")
		if err := model.WriteGates(t.Context(), path, g, quant.F32); err != nil {
			t.Fatal(err)
		}
		_, err := model.OpenGates(path, c)
		var ge *model.GateError
		if !errors.As(err, &ge) || !errors.Is(err, model.ErrGates) || ge.File != path || !strings.Contains(err.Error(), field) || !strings.HasSuffix(err.Error(), "gate for another model") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// grow makes queries and keys larger.
func grow(g *model.Gates, query, key int) {
	for i := range g.Layer {
		g.Layer[i].Query, g.Layer[i].Key = slices.Repeat(g.Layer[i].Query, query), slices.Repeat(g.Layer[i].Key, key)
	}
}

// A file holds what was written, in each format as exactly as that can.
func TestGatesFile(t *testing.T) {
	c := openTied(t)
	for _, f := range []*quant.Format{quant.F32, quant.F16, quant.BF16} {
		g := tied(t, c, model.SeerDecode)
		g.Name, g.Facts = "tied", []model.Fact{{"steps", "7"}}
		path := filepath.Join(t.TempDir(), "g.gguf")
		for range 2 { // the second replaces the first
			if err := model.WriteGates(t.Context(), path, g, f); err != nil {
				t.Fatal(err)
			}
		}
		for i := range g.Layer {
			for _, v := range [][]float32{g.Layer[i].Query, g.Layer[i].Key} {
				raw := make([]byte, len(v)*f.Bytes)
				f.Encode(raw, v)
				f.Decode(v, raw)
			}
		}
		g.Half = f == quant.BF16
		got, err := model.ReadGates(path)
		if err != nil || !reflect.DeepEqual(got, g) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestGatesFileHostile(t *testing.T) {
	c := openTied(t)
	path := filepath.Join(t.TempDir(), "g.gguf")
	if err := model.WriteGates(t.Context(), path, tied(t, c, model.SeerDecode), quant.F32); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		key  string
		v    any
		want string
	}{
		{"general.architecture", "llama", `"llama", want "winnow-gates"`},
		{"winnow-gates.kind", "quest", `gates of kind "quest"`},
		{"winnow-gates.kind", "seer", "gates that norm"},
		{"winnow-gates.block_count", uint32(4), `"blk.3.attn_gate_k.weight"`},
		{"winnow-gates.block_count", uint32(1 << 30), "want 1 to 1024"},
		{"winnow-gates.block_count", uint32(0), "want 1 to 1024"},
		{"winnow-gates.attention.head_count", uint32(8), "want F32, F16 or BF16 [1 8 16 16]"},
		{"winnow-gates.attention.head_count_kv", uint32(3), "4 heads that read 3"},
		{"winnow-gates.gate_length", uint32(1 << 20), "want 1 to 1024"},
		{"winnow-gates.gate_length", "16", "gate_length"},
		{"winnow-gates.block_size", uint32(32), "blocks of 32 keys, want 64"},
	} {
		g, err := store.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		out := store.NewGGUF{Meta: store.Meta{}, Keys: g.Keys}
		for k, v := range g.Meta {
			out.Meta[k] = v
		}
		out.Meta[x.key] = x.v
		for _, w := range g.Tensors {
			out.Tensors = append(out.Tensors, store.NewTensor{Name: w.Name, Format: w.Format, Shape: w.Shape, Pieces: slices.Values([][]byte{w.Data})})
		}
		changed := filepath.Join(t.TempDir(), "changed.gguf")
		if err := errors.Join(store.WriteGGUF(t.Context(), changed, out, nil), g.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := model.ReadGates(changed); err == nil || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), "changed.gguf") {
			t.Errorf("%s = %v: %v", x.key, x.v, err)
		}
	}
}

func TestGatesThatAreNotImported(t *testing.T) {
	c := openTied(t)
	one := "model.layers.1.self_attn.attn_gate."
	for _, x := range []struct {
		name   string
		kind   model.GateKind
		change func(map[string][]int)
		config string
		want   string
	}{
		{"double", model.SeerPrefill, func(s map[string][]int) { s[one+"mask_linear_q.weight"] = []int{4, 16, 16} }, "", "mask_linear_q.weight\": a kind of gate"},
		{"both", model.SeerPrefill, func(s map[string][]int) { s[one+"attngate_qnorm.weight"] = []int{16} }, "", "among those of"},
		{"no gate", model.SeerPrefill, func(s map[string][]int) { s["lm_head.weight"] = []int{4} }, "", "is no part of a gate"},
		{"few layers", model.SeerDecode, func(s map[string][]int) {
			for _, p := range []string{"linear_q", "linear_k", "qnorm", "knorm"} {
				delete(s, "model.layers.2.self_attn.attn_gate.attngate_"+p+".weight")
			}
		}, "", "layers is 2, the model's is 3: model: gate for another model"},
		{"a layer missing", model.SeerPrefill, func(s map[string][]int) { delete(s, one+"mask_linear_k.weight") }, "", "layer 1 has no attn_gate_k.weight"},
		{"other heads", model.SeerPrefill, func(s map[string][]int) { s[one+"mask_linear_k.weight"] = []int{8, 48, 16} }, "", "is [8 48 16], the model's is [4 48 16]"},
		{"nothing", model.SeerPrefill, func(s map[string][]int) { clear(s) }, "", "no gates"},
		{"block size", model.SeerDecode, nil, `{"seerattn_gate_block_size":32}`, "seerattn_gate_block_size is 32, want 64"},
		{"pooling", model.SeerDecode, nil, `{"seerattn_q_head_pooling_type":"Qavg"}`, "seerattn_q_head_pooling_type is Qavg, want Qproj"},
		{"no norms", model.SeerDecode, nil, `{"seerattn_use_qk_norm":false}`, "seerattn_use_qk_norm is false, want true"},
		{"no rope", model.SeerDecode, nil, `{"seerattn_use_rope":false}`, "seerattn_use_rope is false"},
		{"gate type", model.SeerPrefill, nil, `{"seerattn_gate_type":"Qmax_Kavg"}`, "seerattn_gate_type is Qmax_Kavg"},
		{"not JSON", model.SeerPrefill, nil, `{`, "config.json"},
	} {
		dir := t.TempDir()
		shapes := gateShapes(x.kind)
		if x.change != nil {
			x.change(shapes)
		}
		pth(t, filepath.Join(dir, "attn_gate_weights.pth"), shapes, rand.New(rand.NewPCG(1, 2)))
		if x.config != "" {
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(x.config), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := model.ImportGates(dir, c); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}
