package compress_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// invented is a model that is all tensors of experts, in layer 0; value r of row e is 100*e + r, so that rows say which they were.
type invented struct {
	keys    store.Meta
	tensors []store.NewTensor
}

// inventedOf is a model of n experts, k a token.
func inventedOf(n, k int) *invented {
	m := &invented{keys: store.Meta{"general.architecture": "made", "made.block_count": uint32(1), "made.expert_count": uint32(n), "made.expert_used_count": uint32(k)}}
	return m.with("blk.0.ffn_gate_inp.weight", n, 2)
}

// with adds a tensor of F32.
func (m *invented) with(name string, shape ...int) *invented {
	values := 1
	for _, d := range shape {
		values *= d
	}
	v := make([]float32, values)
	for i := range v {
		per := values / shape[0]
		v[i] = float32(100*(i/per) + i%per)
	}
	return m.holding(name, shape, v)
}

func (m *invented) holding(name string, shape []int, v []float32) *invented {
	raw := make([]byte, 4*len(v))
	quant.F32.Encode(raw, v)
	m.tensors = append(m.tensors, store.NewTensor{Name: name, Format: quant.F32, Shape: shape, Pieces: slices.Chunk(raw, 64)})
	return m
}

// places adds a map.
func (m *invented) places(v ...int32) *invented {
	var raw []byte
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(x))
	}
	m.tensors = append(m.tensors, store.NewTensor{Name: "blk.0.ffn_exps_map", Format: quant.I32, Shape: []int{len(v) / 2, 2}, Pieces: slices.Chunk(raw, 64)})
	return m
}

func (m *invented) open(t testing.TB) *store.Checkpoint {
	t.Helper()
	path := filepath.Join(t.TempDir(), "made.gguf")
	if err := store.WriteGGUF(context.Background(), path, store.NewGGUF{Meta: m.keys, Tensors: m.tensors}, nil); err != nil {
		t.Fatal(err)
	}
	c, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// heads are the first values of the rows of a tensor: which experts they were, times 100.
func heads(t testing.TB, c *store.Checkpoint, name string) (out []float32) {
	t.Helper()
	x, err := c.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, len(x.Data)/4)
	quant.F32.Decode(v, x.Data)
	for row := range x.Shape[0] {
		out = append(out, v[row*len(v)/x.Shape[0]])
	}
	return out
}

// TestTensors takes experts out of every tensor that GGUF has for them.
func TestTensors(t *testing.T) {
	m := inventedOf(5, 2).with("blk.0.ffn_gate_inp.bias", 5).with("blk.0.exp_probs_b.bias", 5).with("blk.0.ffn_gate_up_exps.weight", 5, 6, 2).
		with("blk.0.ffn_gate_exps.weight", 5, 3, 2).with("blk.0.ffn_gate_exps.bias", 5, 3).with("blk.0.ffn_up_exps.bias", 5, 3).
		with("blk.0.ffn_down_exps.weight", 5, 2, 3).with("blk.0.ffn_down_exps.bias", 5, 2).with("blk.0.ffn_down_exps.scale", 5).
		with("blk.0.ffn_norm_exps.weight", 5).with("blk.0.ffn_gate_inp.scale", 5).with("blk.0.ffn_up_shexp.weight", 5, 2).
		with("blk.0.ffn_gate_inp_shexp.weight", 5).with("token_embd.weight", 5, 2).with("blk.1.ffn_up.weight", 5, 2)
	c := apply(t, m.open(t), overlay(map[int]moe.OverlayLayer{0: {Drop: []int{3, 0}}}), compress.Writing{})
	for _, x := range m.tensors {
		want := []float32{100, 200, 400}
		switch rest := strings.TrimPrefix(x.Name, "blk.0."); {
		case rest == x.Name, strings.Contains(rest, "shexp"), rest == "ffn_norm_exps.weight", rest == "ffn_gate_inp.scale":
			want = []float32{0, 100, 200, 300, 400}
		}
		if got := heads(t, c, x.Name); !slices.Equal(got, want) {
			t.Errorf("%s: rows %v, want %v", x.Name, got, want)
		}
	}
}

// TestSplitExperts renumbers the experts of early files, which have a tensor for each.
func TestSplitExperts(t *testing.T) {
	m := inventedOf(4, 2)
	for e := range 4 {
		m.holding(fmt.Sprintf("blk.0.ffn_up.%d.weight", e), []int{2, 1}, []float32{float32(e), float32(10 * e)})
	}
	for name, c := range map[string]struct {
		layer   moe.OverlayLayer
		merging compress.Merging
		want    []float32
	}{
		"drop":    {moe.OverlayLayer{Drop: []int{1}}, compress.Share, []float32{0, 2, 3}},
		"share":   {moe.OverlayLayer{Drop: []int{1}, Merge: [][]int{{3, 0}}}, compress.Share, []float32{3, 2, 3}},
		"average": {moe.OverlayLayer{Merge: [][]int{{3, 0}}}, compress.Average, []float32{1, 2, 1.5}},
	} {
		small := apply(t, m.open(t), overlay(map[int]moe.OverlayLayer{0: c.layer}), compress.Writing{Merging: c.merging})
		for e, want := range c.want {
			if got := heads(t, small, fmt.Sprintf("blk.0.ffn_up.%d.weight", e)); !slices.Equal(got, []float32{want, 10 * want}) {
				t.Errorf("%s: expert %d is %v, want %v", name, e, got, want)
			}
		}
		if small.Has(fmt.Sprintf("blk.0.ffn_up.%d.weight", len(c.want))) || small.Has("blk.0.ffn_exps_map") {
			t.Errorf("%s: too much is there", name)
		}
	}
}

// TestPadding fills up smaller layers with rows that the bias for the choice shuts out, at the end of each group.
func TestPadding(t *testing.T) {
	for name, c := range map[string]struct {
		groups int
		drop   []int
		router []float32
		bias   []float32
		ids    []int64
	}{
		"plain":  {0, []int{1, 4}, []float32{0, 200, 300, 500, 0, 0}, []float32{0, 200, 300, 500, -1e30, -1e30}, []int64{0, 2, 3, 5, -1, -1}},
		"groups": {2, []int{1, 4}, []float32{0, 200, 0, 300, 500, 0}, []float32{0, 200, -1e30, 300, 500, -1e30}, []int64{0, 2, -1, 3, 5, -1}},
	} {
		m := inventedOf(6, 2).with("blk.0.exp_probs_b.bias", 6).with("blk.0.ffn_up_exps.weight", 6, 3, 2).with("blk.1.ffn_gate_inp.weight", 6, 2).
			with("blk.1.exp_probs_b.bias", 6).with("blk.1.ffn_up_exps.weight", 6, 3, 2)
		if c.groups > 0 {
			m.keys["made.expert_group_count"], m.keys["made.expert_group_used_count"] = uint32(c.groups), uint32(1)
		}
		small := apply(t, m.open(t), overlay(map[int]moe.OverlayLayer{0: {Drop: c.drop}}), compress.Writing{For: compress.Anyone})
		if got := heads(t, small, "blk.0.ffn_gate_inp.weight"); !slices.Equal(got, c.router) {
			t.Errorf("%s: router %v, want %v", name, got, c.router)
		}
		if got := heads(t, small, "blk.0.ffn_up_exps.weight"); !slices.Equal(got, c.router) {
			t.Errorf("%s: experts %v, want %v", name, got, c.router)
		}
		if got := heads(t, small, "blk.0.exp_probs_b.bias"); !slices.Equal(got, c.bias) {
			t.Errorf("%s: bias %v, want %v", name, got, c.bias)
		}
		if got := integers(t, small, "winnow.moe.expert_ids.0"); !slices.Equal(got, c.ids) {
			t.Errorf("%s: ids %v, want %v", name, got, c.ids)
		}
		if got := integers(t, small, "winnow.moe.expert_counts"); !slices.Equal(got, []int64{6, 6}) {
			t.Errorf("%s: counts %v", name, got)
		}
	}
}

// TestSplitFiles cuts a model that is in two files: the new one is the same as of one file.
func TestSplitFiles(t *testing.T) {
	c, root := demoModel(t), t.TempDir()
	names := c.Parts[0].Names
	for i, part := range [][]string{names[:20], names[20:]} {
		g := store.NewGGUF{Meta: store.Meta{}}
		if i == 0 {
			g.Meta, g.Keys = maps.Clone(c.Meta), c.Keys
		}
		g.Meta["split.no"], g.Meta["split.count"], g.Meta["split.tensors.count"] = uint16(i), uint16(2), int32(len(names))
		for _, name := range part {
			x := c.Tensors[name]
			g.Tensors = append(g.Tensors, store.NewTensor{Name: name, Format: x.Format, Shape: x.Shape, Pieces: slices.Values([][]byte{x.Data})})
		}
		if err := store.WriteGGUF(t.Context(), filepath.Join(root, fmt.Sprintf("m-%05d-of-00002.gguf", i+1)), g, nil); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "x.gguf")
	if err := compress.Apply(t.Context(), opened(t, root), overlay(nil), compress.Writing{Out: out}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(out); err != nil || !bytes.Equal(b, demo.GGUF) {
		t.Errorf("%d bytes, the model has %d: %v", len(b), len(demo.GGUF), err)
	}
}

// TestPaddingLoads has Winnow read a file in which some router rows are nobody's.
func TestPaddingLoads(t *testing.T) {
	c := demoModel(t)
	g := store.NewGGUF{Meta: maps.Clone(c.Meta), Keys: c.Keys}
	g.Meta["winnow.moe.expert_counts"], g.Meta["winnow.moe.expert_ids.2"] = slices.Repeat([]int32{8}, 6), []int32{5, 1, 0, -1, 7, 6, -1, 2}
	for _, name := range c.Parts[0].Names {
		x := c.Tensors[name]
		g.Tensors = append(g.Tensors, store.NewTensor{Name: name, Format: x.Format, Shape: x.Shape, Pieces: slices.Values([][]byte{x.Data})})
	}
	path := filepath.Join(t.TempDir(), "x.gguf")
	if err := store.WriteGGUF(t.Context(), path, g, nil); err != nil {
		t.Fatal(err)
	}
	spec, err := model.Describe(opened(t, path))
	if err != nil || !slices.Equal(spec.Layers[2].Map.Orig, []int32{5, 1, 0, -1, 7, 6, -1, 2}) {
		t.Error(err)
	}
}

// TestBanks takes experts out of a layer that has banks, and a pruned row.
func TestBanks(t *testing.T) {
	m := inventedOf(6, 2).with("blk.0.ffn_up_exps.q0.weight", 2, 2).with("blk.0.ffn_up_exps.q1.weight", 3, 2).places(1, 2, 0, 0, -1, -1, 1, 0, 0, 1, 1, 1)
	small := apply(t, m.open(t), overlay(map[int]moe.OverlayLayer{0: {Drop: []int{1, 3}}}), compress.Writing{})
	// Rows 0 4 5 are left: bank 1 row 2, bank 0 row 1, bank 1 row 1.
	x := small.Tensors["blk.0.ffn_exps_map"]
	var got []int32
	for i := range len(x.Data) / 4 {
		got = append(got, int32(binary.LittleEndian.Uint32(x.Data[4*i:])))
	}
	if !slices.Equal(got, []int32{1, 0, 0, 0, 1, 1}) {
		t.Errorf("map %v", got)
	}
	if a, b := heads(t, small, "blk.0.ffn_up_exps.q0.weight"), heads(t, small, "blk.0.ffn_up_exps.q1.weight"); !slices.Equal(a, []float32{100}) || !slices.Equal(b, []float32{200, 100}) {
		t.Errorf("banks %v, %v", a, b)
	}
	if got := heads(t, small, "blk.0.ffn_gate_inp.weight"); !slices.Equal(got, []float32{0, 400, 500}) {
		t.Errorf("router %v", got)
	}
	err := compress.Apply(t.Context(), m.open(t), overlay(nil), compress.Writing{Out: filepath.Join(t.TempDir(), "x"), For: compress.Anyone})
	if !errors.Is(err, compress.ErrInterop) {
		t.Error(err)
	}
}

// TestHostileModels are files that contradict themselves or hold what nobody can cut: each is refused, and nothing is left.
func TestHostileModels(t *testing.T) {
	drop := moe.OverlayLayer{Drop: []int{0}}
	key := func(k string, v any) *invented {
		m := inventedOf(4, 2)
		m.keys[k] = v
		return m
	}
	for name, c := range map[string]struct {
		m     *invented
		layer moe.OverlayLayer
		w     compress.Writing
		says  string
	}{
		"stack is short": {inventedOf(4, 2).with("blk.0.ffn_up_exps.weight", 3, 2), drop, compress.Writing{}, "[3 2] for 4 experts"},
		"bias is long":   {inventedOf(4, 2).with("blk.0.exp_probs_b.bias", 5), drop, compress.Writing{}, "[5] for 4 experts"},
		"no k":           {key("made.expert_used_count", uint32(0)), drop, compress.Writing{}, "0 experts a token"},
		"k is text":      {key("made.expert_used_count", "two"), drop, compress.Writing{}, "should hold an integer"},
		"k is huge":      {key("made.expert_used_count", uint64(math.MaxInt64)), drop, compress.Writing{}, "is 9223372036854775807"},
		"k is negative":  {key("made.expert_used_count", int32(-1)), drop, compress.Writing{}, "is -1"},
		"groups":         {key("made.expert_group_count", uint32(3)), drop, compress.Writing{}, "in 3 groups"},
		"ids":            {key("winnow.moe.expert_ids.0", []int32{1}), drop, compress.Writing{}, "4 experts, and numbers of 1"},
		"big ids":        {key("winnow.moe.expert_ids.0", []int64{1, 2, 3, 1 << 40}), drop, compress.Writing{}, "holds 1099511627776"},
		"unequal groups": {key("made.expert_group_count", uint32(2)), drop, compress.Writing{}, "groups are left with [1 2]"},
		"few in groups": {(func() *invented {
			m := inventedOf(4, 2)
			m.keys["made.expert_group_count"], m.keys["made.expert_group_used_count"] = uint32(2), uint32(1)
			return m
		})().with("blk.0.ffn_up_exps.weight", 4, 2), moe.OverlayLayer{Drop: []int{0, 3}}, compress.Writing{}, "2 experts a token out of 1 groups of 1"},
		"hash layer":       {inventedOf(4, 2).with("blk.0.ffn_gate_tid2eid", 4), drop, compress.Writing{}, "not known how"},
		"chunk experts":    {inventedOf(4, 2).with("blk.0.ffn_up_chexps.weight", 4), drop, compress.Writing{}, "not known how"},
		"router of 3 dims": {(&invented{keys: inventedOf(4, 2).keys}).with("blk.0.ffn_gate_inp.weight", 4, 2, 2), drop, compress.Writing{}, "experts are cut"},
		"layer 9999":       {inventedOf(4, 2).with("blk.9999.ffn_gate_inp.weight", 4, 2), drop, compress.Writing{}, "layer 9999"},
		"layer 01":         {inventedOf(4, 2).with("blk.01.ffn_gate_inp.weight", 4, 2), drop, compress.Writing{}, "layer 01"},
		"map of bank 4":    {inventedOf(2, 1).places(0, 0, 4, 0), drop, compress.Writing{}, "bank 4"},
		"map of row -1":    {inventedOf(2, 1).places(0, 0, 0, -1), drop, compress.Writing{}, "row -1 of bank 0"},
		"map is short":     {inventedOf(2, 1).places(0, 0), drop, compress.Writing{}, "of bank and row of 2 experts"},
		"map is beyond": {inventedOf(2, 1).with("blk.0.ffn_up_exps.weight", 1, 2).places(0, 0, 0, 1), drop, compress.Writing{},
			"has no row 1"},
		"mean of integers": {inventedOf(2, 1).places(0, 0, 1, 0), moe.OverlayLayer{Merge: [][]int{{0, 1}}}, compress.Writing{Merging: compress.Average}, "several banks"},
		"padding of split": {inventedOf(3, 1).with("blk.0.exp_probs_b.bias", 3).with("blk.0.ffn_up.0.weight", 3, 2).with("blk.1.ffn_gate_inp.weight", 3, 2),
			drop, compress.Writing{For: compress.Anyone}, "no bias"},
	} {
		root := t.TempDir()
		c.w.Out = filepath.Join(root, "x.gguf")
		err := compress.Apply(t.Context(), c.m.open(t), overlay(map[int]moe.OverlayLayer{0: c.layer}), c.w)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

// FuzzApply gives any file to any overlay: it is refused, or the new file can be read.
func FuzzApply(f *testing.F) {
	root := f.TempDir()
	seed := inventedOf(5, 2).with("blk.0.ffn_up_exps.weight", 5, 2).with("blk.0.exp_probs_b.bias", 5)
	path := filepath.Join(root, "seed.gguf")
	if err := store.WriteGGUF(context.Background(), path, store.NewGGUF{Meta: seed.keys, Tensors: seed.tensors}, nil); err != nil {
		f.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	for _, w := range []byte{0, 1, 2, 3} {
		f.Add(raw, w, int8(0), int8(1), int8(4))
	}
	f.Fuzz(func(t *testing.T, raw []byte, how byte, drop, a, b int8) {
		c, err := store.OpenBytes("mem", bytes.Clone(raw))
		if err != nil {
			return
		}
		w := compress.Writing{Out: filepath.Join(root, "x.gguf")}
		if how&1 != 0 {
			w.For = compress.Anyone
		}
		if how&2 != 0 {
			w.Merging = compress.Average
		}
		o := overlay(map[int]moe.OverlayLayer{0: {Drop: []int{int(drop)}, Merge: [][]int{{int(a), int(b)}}}})
		if compress.Apply(t.Context(), c, o, w) != nil {
			return
		}
		out, err := store.Open(w.Out)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(out.Close(), os.Remove(w.Out)); err != nil {
			t.Error(err)
		}
	})
}
