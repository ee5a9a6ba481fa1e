package compress_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/cpu"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// demoModel is the embedded model: 6 layers of 8 experts, 2 a token.
func demoModel(t testing.TB) *store.Checkpoint {
	t.Helper()
	c, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// overlay drops experts and merges others, by layer.
func overlay(layers map[int]moe.OverlayLayer) moe.Overlay {
	return moe.Overlay{Format: 1, Method: "test", Layers: layers}
}

// pruned drops two of the experts of each layer of the demo, others in each.
func pruned() moe.Overlay {
	layers := map[int]moe.OverlayLayer{}
	for i := range 6 {
		layers[i] = moe.OverlayLayer{Drop: []int{(i + 5) % 8, i}}
	}
	return overlay(layers)
}

// apply writes a smaller model and opens it.
func apply(t testing.TB, c *store.Checkpoint, o moe.Overlay, w compress.Writing) *store.Checkpoint {
	t.Helper()
	if w.Out == "" {
		w.Out = filepath.Join(t.TempDir(), "small")
	}
	if err := compress.Apply(t.Context(), c, o, w); err != nil {
		t.Fatal(err)
	}
	out, err := store.Open(w.Out)
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

// text is what the tests have models read: any ids.
var text = []int32{1, 40, 7, 300, 12, 5, 77, 240, 33, 2, 90, 11}

// logits are those of every row of text, in float32.
func logits(t testing.TB, c *store.Checkpoint, d tensor.Device) []float32 {
	t.Helper()
	limits := model.Limits{Rows: 16, Sequences: 1, Wanted: 16, Pages: 1, Context: attention.PageTokens}
	m, err := model.Load(c, model.Placement{Device: d}, model.Options{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var s model.Step
	s.Reset()
	s.IDs, s.Past, s.Pages, s.Start = text, []int32{0}, [][]int32{{0}}, append(s.Start, int32(len(text)))
	for i := range text {
		s.Want = append(s.Want, int32(i))
	}
	m.Batch().Fill(m.Queue(), &s)
	out := make([]float32, len(text)*m.Spec().Vocab)
	model.ReadF32(m.Queue(), m.Forward(m.Batch()), out)
	if err := m.Queue().Sync(); err != nil {
		t.Fatal(err)
	}
	return out
}

// devices are those that this machine can run.
func devices(t testing.TB) []tensor.Device {
	all := []tensor.Device{tensor.Reference()}
	for _, variant := range []string{"amx", "avx512", "avx2", "dotprod", "neon"} {
		d, err := cpu.New(cpu.Options{Variant: variant, Log: func(line string) { t.Log(line) }})
		if err != nil {
			t.Logf("skipped: %v", err)
			continue
		}
		if c, ok := d.(io.Closer); ok {
			t.Cleanup(func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all = append(all, d)
	}
	return all
}

// masking is a device on which an overlay's experts are never chosen, and merged ones share: what the smaller file has to equal.
type masking struct {
	tensor.Device
	o moe.Overlay
}

type maskingQueue struct {
	tensor.Queue
	o     moe.Overlay
	layer int
}

func (m masking) Queue() tensor.Queue { return &maskingQueue{Queue: m.Device.Queue(), o: m.o} }

// Run changes the map of each router before it is read; routers come in the order of layers.
func (q *maskingQueue) Run(op tensor.Op) {
	if r, ok := op.(*moe.Route); ok {
		phys := moe.EveryExpert(r.Spec.Experts).Phys
		l := q.o.Layers[q.layer]
		for _, rows := range l.Merge {
			for _, e := range rows {
				phys[e] = int32(rows[0])
			}
		}
		for _, e := range l.Drop {
			phys[e] = -1
		}
		copy(r.Phys.I32(), phys)
		q.layer++
	}
	q.Queue.Run(op)
}

// TestUniformEqualsMasked prunes 8 experts to 6 in each layer. The file loads as any other, and gives the same bits as the whole model in
// which the experts are masked.
func TestUniformEqualsMasked(t *testing.T) {
	c, o := demoModel(t), pruned()
	small := apply(t, c, o, compress.Writing{For: compress.Anyone})
	spec, err := model.Describe(small)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range spec.Layers {
		if l.Router.Experts != 6 || l.Router.K != 2 {
			t.Errorf("layer %d: %d of %d experts", i, l.Router.K, l.Router.Experts)
		}
	}
	if small.Size() >= c.Size()*9/10 {
		t.Errorf("%d bytes, were %d", small.Size(), c.Size())
	}
	for _, d := range devices(t) {
		if got, want := logits(t, small, d), logits(t, c, masking{d, o}); !slices.Equal(got, want) {
			t.Errorf("%s: logits differ from those of the masked model", d.Name())
		}
	}
	if slices.Equal(logits(t, small, tensor.Reference()), logits(t, c, tensor.Reference())) {
		t.Error("dropping experts changed nothing: the test shows nothing")
	}
}

// TestRaggedEqualsMasked leaves each layer another number of experts, in one fewer than a token takes.
func TestRaggedEqualsMasked(t *testing.T) {
	c := demoModel(t)
	o := overlay(map[int]moe.OverlayLayer{0: {Drop: []int{0, 3, 5}}, 2: {Drop: []int{7}}, 3: {Drop: []int{0, 1, 2, 4, 5, 6, 7}}, 5: {Drop: []int{6, 1, 4, 3}}})
	small := apply(t, c, o, compress.Writing{})
	if got, want := logits(t, small, tensor.Reference()), logits(t, c, masking{tensor.Reference(), o}); !slices.Equal(got, want) {
		t.Error("logits differ from those of the masked model")
	}
	folder := opened(t, fixture)
	o = overlay(map[int]moe.OverlayLayer{0: {Drop: []int{0, 3, 5}}, 2: {Drop: []int{7}}})
	small = apply(t, folder, o, compress.Writing{})
	if got, want := logits(t, small, tensor.Reference()), logits(t, folder, masking{tensor.Reference(), o}); !slices.Equal(got, want) {
		t.Error("logits of a folder differ from those of the masked model")
	}
}

// integers is a key that holds integers.
func integers(t testing.TB, c *store.Checkpoint, key string) []int64 {
	t.Helper()
	out, err := c.Meta.Ints(key)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestKeys reads what files of uniform, ragged and merged layers say of themselves.
func TestKeys(t *testing.T) {
	ragged := overlay(map[int]moe.OverlayLayer{0: {Drop: []int{7, 1, 2}}, 3: {Drop: []int{0, 1, 2, 3, 4, 5, 6}}})
	single := map[int]moe.OverlayLayer{}
	for layer := range 6 {
		single[layer] = moe.OverlayLayer{TopK: 1}
	}
	for name, c := range map[string]struct {
		o          moe.Overlay
		most, used int64
		counts, id []int64
	}{
		"uniform": {pruned(), 6, 2, []int64{6, 6, 6, 6, 6, 6}, []int64{1, 2, 3, 4, 6, 7}},
		"ragged":  {ragged, 8, 2, []int64{5, 8, 8, 1, 8, 8}, []int64{0, 3, 4, 5, 6}},
		"clamped": {overlay(map[int]moe.OverlayLayer{0: {Drop: []int{1, 2, 3, 4, 5, 6, 7}}}), 8, 2, []int64{1, 8, 8, 8, 8, 8}, []int64{0}},
		"one k":   {overlay(single), 8, 1, []int64{8, 8, 8, 8, 8, 8}, []int64{0, 1, 2, 3, 4, 5, 6, 7}},
		"merged":  {overlay(map[int]moe.OverlayLayer{0: {Merge: [][]int{{2, 7}}}}), 8, 2, []int64{8, 8, 8, 8, 8, 8}, []int64{0, 1, 2, 3, 4, 5, 6, 7}},
	} {
		small := apply(t, demoModel(t), c.o, compress.Writing{})
		for key, want := range map[string][]int64{
			"qwen3moe.expert_count": {c.most}, "qwen3moe.expert_used_count": {c.used},
			"winnow.moe.expert_counts": c.counts, "winnow.moe.expert_ids.0": c.id,
		} {
			if got := integers(t, small, key); !slices.Equal(got, want) {
				t.Errorf("%s: %s is %v, want %v", name, key, got, want)
			}
		}
		if method, err := small.Meta.String("winnow.moe.method", ""); method != "test" {
			t.Errorf("%s: method %q, %v", name, method, err)
		}
		for layer := range c.o.Layers {
			for tensor, dims := range map[string]int{"ffn_gate_inp": 2, "ffn_gate_exps": 3, "ffn_up_exps": 3, "ffn_down_exps": 3} {
				want := c.counts[layer]
				if dims == 3 {
					for _, rows := range c.o.Layers[layer].Merge {
						want -= int64(len(rows) - 1)
					}
				}
				if want < c.counts[layer] {
					tensor += ".q0"
				}
				s := small.Tensors[fmt.Sprintf("blk.%d.%s.weight", layer, tensor)].Shape
				if len(s) != dims || int64(s[0]) != want {
					t.Errorf("%s: layer %d: %s is %v, want %d", name, layer, tensor, s, want)
				}
			}
		}
	}
}

// TestSlices compares each expert that stays with the one it was.
func TestSlices(t *testing.T) {
	c, o := demoModel(t), pruned()
	small := apply(t, c, o, compress.Writing{})
	for layer, l := range o.Layers {
		for _, name := range []string{"ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"} {
			name = fmt.Sprintf("blk.%d.%s.weight", layer, name)
			was, is := c.Tensors[name], small.Tensors[name]
			size := len(was.Data) / 8
			var want []byte
			for e := range 8 {
				if !slices.Contains(l.Drop, e) {
					want = append(want, was.Data[e*size:][:size]...)
				}
			}
			if !bytes.Equal(is.Data, want) || is.Format != was.Format {
				t.Errorf("%s: other bytes", name)
			}
		}
	}
	for name, was := range c.Tensors {
		if is := small.Tensors[name]; !strings.Contains(name, "_exps") && !strings.Contains(name, "gate_inp") && !bytes.Equal(is.Data, was.Data) {
			t.Errorf("%s: other bytes", name)
		}
	}
	if !slices.Equal(small.Parts[0].Names, c.Parts[0].Names) {
		t.Error("the tensors stand in another order")
	}
}

// TestNothingDropped writes the demo with overlays that leave all as it is: the files are equal, byte by byte. An overlay in two steps gives
// the file of one step, and what was written can be written again.
func TestNothingDropped(t *testing.T) {
	file := func(c *store.Checkpoint, o moe.Overlay, w compress.Writing) []byte {
		t.Helper()
		w.Out = filepath.Join(t.TempDir(), "small.gguf")
		if err := compress.Apply(t.Context(), c, o, w); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(w.Out)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	opened := func(b []byte) *store.Checkpoint {
		t.Helper()
		c, err := store.OpenBytes("mem", b)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, o := range []moe.Overlay{overlay(nil), {Format: 1, Model: demoModel(t).Fingerprint()}, overlay(map[int]moe.OverlayLayer{2: {}, 3: {TopK: 2}})} {
		for _, w := range []compress.Writing{{}, {For: compress.Anyone}, {Merging: compress.Average}} {
			if b := file(demoModel(t), o, w); !bytes.Equal(b, demo.GGUF) {
				t.Errorf("%v: the file differs", o.Layers)
			}
		}
	}
	first := file(demoModel(t), overlay(map[int]moe.OverlayLayer{1: {Drop: []int{0, 6}, Merge: [][]int{{3, 1}, {4, 7, 5}}}}), compress.Writing{})
	if again := file(opened(first), overlay(nil), compress.Writing{}); !bytes.Equal(again, first) {
		t.Error("a smaller file that is written again differs")
	}
	// Rows 1 2 3 4 5 7 are left: 2 is row 1 now, 5 is row 4.
	second := file(opened(first), overlay(map[int]moe.OverlayLayer{1: {Drop: []int{1, 4}}}), compress.Writing{})
	union := overlay(map[int]moe.OverlayLayer{1: {Drop: []int{0, 6, 2, 5}, Merge: [][]int{{3, 1}, {4, 7}}}})
	if want := file(demoModel(t), union, compress.Writing{}); !bytes.Equal(second, want) {
		t.Error("two steps give another file than one")
	}
	// Row 1 shares the weights of row 3, and goes with it.
	merge := func(rows ...int) moe.Overlay {
		return overlay(map[int]moe.OverlayLayer{1: {Merge: [][]int{rows}}})
	}
	third := file(opened(file(demoModel(t), merge(3, 1), compress.Writing{})), merge(2, 3), compress.Writing{})
	if want := file(demoModel(t), merge(2, 3, 1), compress.Writing{}); !bytes.Equal(third, want) {
		t.Error("merging what is merged gives another file than one merge")
	}
}

// TestMerged stores the experts of a cluster once, with a map, or once a row for other programs; either way nothing else changes.
func TestMerged(t *testing.T) {
	c := demoModel(t)
	o := overlay(map[int]moe.OverlayLayer{2: {Drop: []int{0}, Merge: [][]int{{6, 1, 3}}}})
	own := apply(t, c, o, compress.Writing{})
	m := own.Tensors["blk.2.ffn_exps_map"]
	// Rows 1 2 3 4 5 6 7; the first to need the weights of 6 is row 0.
	want := []int32{0, 0, 0, 1, 0, 0, 0, 2, 0, 3, 0, 0, 0, 4}
	if m.Format != quant.I32 || !slices.Equal(m.Shape, []int{7, 2}) || !bytes.Equal(m.Data, tensor.FromI32(7, 2, want).Raw()) {
		t.Errorf("map %v %v", m.Shape, m.Data)
	}
	was, is := c.Tensors["blk.2.ffn_up_exps.weight"], own.Tensors["blk.2.ffn_up_exps.q0.weight"]
	size := len(was.Data) / 8
	if is.Shape[0] != 5 || !bytes.Equal(is.Data[:size], was.Data[6*size:][:size]) {
		t.Errorf("stack %v", is.Shape)
	}
	if got, want := logits(t, own, tensor.Reference()), logits(t, c, masking{tensor.Reference(), o}); !slices.Equal(got, want) {
		t.Error("logits differ from those of the model in which rows share experts")
	}
	layers := map[int]moe.OverlayLayer{2: o.Layers[2]}
	for _, layer := range []int{0, 1, 3, 4, 5} {
		layers[layer] = moe.OverlayLayer{Drop: []int{layer}}
	}
	o = overlay(layers)
	anyone := apply(t, c, o, compress.Writing{For: compress.Anyone})
	if anyone.Has("blk.2.ffn_exps_map") || anyone.Tensors["blk.2.ffn_up_exps.weight"].Shape[0] != 7 {
		t.Errorf("for anyone: %v", anyone.Tensors["blk.2.ffn_up_exps.weight"].Shape)
	}
	// Two chosen rows of one cluster are computed once in the masked model and twice in the file, so that the last bits may differ.
	got, masked := logits(t, anyone, tensor.Reference()), logits(t, c, masking{tensor.Reference(), o})
	for i := range got {
		if d := got[i] - masked[i]; d > 1e-3 || d < -1e-3 {
			t.Fatalf("logit %d is %v, want %v", i, got[i], masked[i])
		}
	}
}

// TestAverage makes one expert of a cluster: each weight is the mean, stored in the tensor's own format.
func TestAverage(t *testing.T) {
	c := demoModel(t)
	small := apply(t, c, overlay(map[int]moe.OverlayLayer{2: {Merge: [][]int{{6, 1, 3}}}}), compress.Writing{Merging: compress.Average})
	if got := integers(t, small, "winnow.moe.expert_ids.2"); !slices.Equal(got, []int64{0, 2, 4, 5, 6, 7}) {
		t.Errorf("ids %v", got)
	}
	for _, name := range []string{"ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"} {
		name = "blk.2." + name + ".weight"
		was, is := c.Tensors[name], small.Tensors[name]
		size := len(was.Data) / 8
		values := size / was.Format.Bytes * was.Format.Block
		got, all := make([]float32, values), make([][]float32, 3)
		is.Format.Decode(got, is.Data[4*size:][:size])
		for i, e := range []int{6, 1, 3} {
			all[i] = make([]float32, values)
			was.Format.Decode(all[i], was.Data[e*size:][:size])
		}
		most := float32(0)
		for i := range got {
			most = max(most, all[0][i], -all[0][i], all[1][i], -all[1][i], all[2][i], -all[2][i])
		}
		for i := range got {
			want := (all[0][i] + all[1][i] + all[2][i]) / 3
			if d := got[i] - want; d > most/200 || d < -most/200 {
				t.Fatalf("%s: value %d is %v, want %v", name, i, got[i], want)
			}
		}
		if !bytes.Equal(is.Data[:size], was.Data[:size]) || !bytes.Equal(is.Data[5*size:], was.Data[7*size:]) {
			t.Errorf("%s: others changed", name)
		}
	}
	if spec, err := model.Describe(small); err != nil || spec.Layers[2].Router.Experts != 6 {
		t.Errorf("%v", err)
	}
}

// TestRefusals gives overlays that do not fit, and audiences that cannot be served. Nothing is left.
func TestRefusals(t *testing.T) {
	layer := func(l moe.OverlayLayer) moe.Overlay { return overlay(map[int]moe.OverlayLayer{1: l}) }
	for name, c := range map[string]struct {
		o    moe.Overlay
		w    compress.Writing
		want error
		says string
	}{
		"format":        {moe.Overlay{Format: 2}, compress.Writing{}, moe.ErrOverlay, "format 2"},
		"other model":   {moe.Overlay{Format: 1, Model: strings.Repeat("ab", 32)}, compress.Writing{}, moe.ErrOverlay, "made for tensors that are known by abababababab"},
		"bits":          {moe.Overlay{Format: 1, Bits: map[int]moe.OverlayBits{0: {}}}, compress.Writing{}, moe.ErrOverlay, "bits"},
		"no layer":      {overlay(map[int]moe.OverlayLayer{6: {Drop: []int{1}}}), compress.Writing{}, moe.ErrOverlay, "layer 6: has no experts"},
		"below":         {overlay(map[int]moe.OverlayLayer{-1: {}}), compress.Writing{}, moe.ErrOverlay, "layer -1"},
		"no expert":     {layer(moe.OverlayLayer{Drop: []int{8}}), compress.Writing{}, moe.ErrOverlay, "layer 1: drop: expert 8 of 8"},
		"negative":      {layer(moe.OverlayLayer{Drop: []int{-1}}), compress.Writing{}, moe.ErrOverlay, "expert -1"},
		"twice":         {layer(moe.OverlayLayer{Drop: []int{3, 3}}), compress.Writing{}, moe.ErrOverlay, "named twice"},
		"merge dropped": {layer(moe.OverlayLayer{Drop: []int{3}, Merge: [][]int{{2, 3}}}), compress.Writing{}, moe.ErrOverlay, "named twice"},
		"two clusters":  {layer(moe.OverlayLayer{Merge: [][]int{{2, 3}, {3, 4}}}), compress.Writing{}, moe.ErrOverlay, "named twice"},
		"alone":         {layer(moe.OverlayLayer{Merge: [][]int{{2}}}), compress.Writing{}, moe.ErrOverlay, "with nothing"},
		"empty cluster": {layer(moe.OverlayLayer{Merge: [][]int{{}}}), compress.Writing{Merging: compress.Average}, moe.ErrOverlay, "with nothing"},
		"nothing left":  {layer(moe.OverlayLayer{Drop: []int{0, 1, 2, 3, 4, 5, 6, 7}}), compress.Writing{}, moe.ErrOverlay, "of 0 that are left"},
		"too many":      {layer(moe.OverlayLayer{Drop: []int{0}, TopK: 8}), compress.Writing{}, moe.ErrOverlay, "8 experts a token of 7"},
		"ragged":        {layer(moe.OverlayLayer{Drop: []int{0}}), compress.Writing{For: compress.Anyone}, compress.ErrInterop, "layer 1 has 7 experts, another 8"},
		"other k":       {layer(moe.OverlayLayer{TopK: 1}), compress.Writing{}, moe.ErrOverlay, "layer 1: topk: 1 experts a token, in another layer 2"},
		"k by size":     {layer(moe.OverlayLayer{Drop: []int{0, 1, 2, 3, 4, 5, 6}}), compress.Writing{For: compress.Anyone}, compress.ErrInterop, "layer 1 takes 1"},
		"audience":      {overlay(nil), compress.Writing{For: "me"}, nil, `audience "me"`},
		"merging":       {overlay(nil), compress.Writing{Merging: "x"}, nil, `merging "x"`},
	} {
		root := t.TempDir()
		c.w.Out = filepath.Join(root, "small.gguf")
		err := compress.Apply(t.Context(), demoModel(t), c.o, c.w)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root := t.TempDir()
	if err := compress.Apply(ctx, demoModel(t), pruned(), compress.Writing{Out: filepath.Join(root, "x")}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
