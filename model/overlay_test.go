package model_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// ragged drops another number of experts in every layer of the demo, of which one is left as it is and one is left with a single expert.
var ragged = &moe.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{
	0: {Drop: []int{1, 6}}, 1: {Drop: []int{0}}, 2: {Drop: []int{0, 1, 2, 4, 5, 6, 7}}, 4: {Drop: []int{3, 5, 7}, TopK: 4}, 5: {TopK: 1},
}}

func openDemo(t *testing.T) *store.Checkpoint {
	t.Helper()
	c, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// overlaid are the logits of a few tokens under options.
func overlaid(t *testing.T, c *store.Checkpoint, d tensor.Device, opt model.Options) []float32 {
	t.Helper()
	opt.Limits = model.Limits{Rows: 32, Sequences: 1, Wanted: 32, Pages: 1, Context: 64}
	m, err := model.Load(c, model.Placement{Device: d}, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	return run(m, []int32{1, 20, 300, 7, 7, 250, 9, 44, 31, 5}, 0)
}

// masking is a device on which routers keep all their rows and all experts are loaded; those that an overlay drops are never chosen.
type masking struct {
	tensor.Device
	overlay *moe.Overlay
}

func (d masking) Queue() tensor.Queue { return &maskingQueue{d.Device.Queue(), d.overlay, 0} }

type maskingQueue struct {
	tensor.Queue
	overlay *moe.Overlay
	layer   int
}

func (q *maskingQueue) Run(op tensor.Op) {
	if r, ok := op.(*moe.Route); ok {
		for _, id := range q.overlay.Layers[q.layer].Drop {
			r.Phys.I32()[id] = -1
		}
		q.layer++
	}
	q.Queue.Run(op)
}

// sliced is a checkpoint that holds only what an overlay leaves of another.
func sliced(t *testing.T, c *store.Checkpoint, o *moe.Overlay) *store.Checkpoint {
	out := *c
	out.Tensors, out.Meta = maps.Clone(c.Tensors), maps.Clone(c.Meta)
	var counts []int32
	for layer := range 6 {
		var ids []int32
		for id := range 8 {
			if !slices.Contains(o.Layers[layer].Drop, id) {
				ids = append(ids, int32(id))
			}
		}
		for _, part := range []string{"ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"} {
			name := fmt.Sprintf("blk.%d.%s.weight", layer, part)
			out.Tensors[name] = someOf(t, c, name, ids)
		}
		counts = append(counts, int32(len(ids)))
		out.Meta[fmt.Sprintf("winnow.moe.expert_ids.%d", layer)] = ids
	}
	out.Meta["winnow.moe.expert_counts"] = counts
	return &out
}

// someOf is some experts of a stack.
func someOf(t *testing.T, c *store.Checkpoint, name string, ids []int32) store.Tensor {
	x, err := c.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	size := len(x.Data) / x.Shape[0]
	data := []byte{}
	for _, id := range ids {
		data = append(data, x.Data[int(id)*size:][:size]...)
	}
	x.Shape = append([]int{len(ids)}, x.Shape[1:]...)
	x.Data = data
	return x
}

// banked is a checkpoint with the experts of another dealt out to two banks, without those that an overlay drops.
func banked(t *testing.T, c *store.Checkpoint, o *moe.Overlay) *store.Checkpoint {
	out := *c
	out.Tensors = maps.Clone(c.Tensors)
	for layer := range 6 {
		var in [2][]int32
		var table []byte
		for id := range 8 {
			bank, row := int32(id*id%3%2), int32(-1)
			if slices.Contains(o.Layers[layer].Drop, id) {
				bank = -1
			} else {
				row = int32(len(in[bank]))
				in[bank] = append(in[bank], int32(id))
			}
			table = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(table, uint32(bank)), uint32(row))
		}
		for _, part := range []string{"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"} {
			whole := fmt.Sprintf("blk.%d.%s.weight", layer, part)
			for b, ids := range in {
				if len(ids) > 0 {
					name := fmt.Sprintf("blk.%d.%s.q%d.weight", layer, part, b)
					out.Tensors[name] = someOf(t, c, whole, ids)
				}
			}
			delete(out.Tensors, whole)
		}
		name := fmt.Sprintf("blk.%d.ffn_exps_map", layer)
		out.Tensors[name] = store.Tensor{Name: name, Format: quant.I32, Shape: []int{8, 2}, Data: table}
	}
	return &out
}

// Experts that are never chosen, that are not loaded, that are not in the file, and that are in no bank give the very same logits, on every
// device.
func TestDroppedExperts(t *testing.T) {
	whole := openDemo(t)
	topk := &moe.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{2: {TopK: 1}, 4: {TopK: 4}, 5: {TopK: 1}}} // what ragged says beside drops
	for _, d := range devices(t) {
		want := overlaid(t, whole, masking{d, ragged}, model.Options{Overlay: topk})
		for name, got := range map[string][]float32{
			"not loaded":      overlaid(t, whole, d, model.Options{Overlay: ragged}),
			"loaded apart":    overlaid(t, whole, d, model.Options{Overlay: ragged, Apart: true}),
			"sliced":          overlaid(t, sliced(t, whole, ragged), d, model.Options{Overlay: topk}),
			"in no bank":      overlaid(t, banked(t, whole, ragged), d, model.Options{Overlay: topk}),
			"not of the bank": overlaid(t, banked(t, whole, &moe.Overlay{}), d, model.Options{Overlay: ragged}),
		} {
			if !slices.Equal(got, want) {
				t.Errorf("%s: %s: the logits are off by %g", d.Name(), name, apart(got, want))
			}
		}
		plain := overlaid(t, whole, d, model.Options{})
		for name, opt := range map[string]model.Options{
			"nothing": {Overlay: &moe.Overlay{Format: 1}}, "a layer of nothing": {Overlay: &moe.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{3: {}}}},
			"apart": {Apart: true},
		} {
			if got := overlaid(t, whole, d, opt); !slices.Equal(got, plain) {
				t.Errorf("%s: %s: the logits are off by %g", d.Name(), name, apart(got, plain))
			}
		}
		if slices.Equal(plain, want) {
			t.Error("dropping experts changes nothing")
		}
	}
}

// reading is a device that notes which bytes it is given to load.
type reading struct {
	tensor.Device
	see func(raw []byte)
}

func (d reading) Load(w tensor.Mat) (tensor.Mat, error) {
	d.see(w.Raw())
	return d.Device.Load(w)
}

// Of the bytes of experts that are dropped none is read, and all of those that are left.
func TestDroppedExpertsAreNotRead(t *testing.T) {
	for _, opt := range []model.Options{{Overlay: ragged}, {Overlay: ragged, Apart: true}} {
		c := openDemo(t)
		left, err := opt.Describe(c)
		if err != nil {
			t.Fatal(err)
		}
		shares, err := left.Left(c)
		if err != nil {
			t.Fatal(err)
		}
		want, got := 0, 0
		for name, w := range c.Tensors {
			if strings.Contains(name, "_exps.") {
				want += int(shares[name] * float64(len(w.Data)))
			}
		}
		within := func(whole, part []byte) bool {
			return len(part) > 0 && &whole[:cap(whole)][cap(whole)-1] == &part[:cap(part)][cap(part)-1] && cap(whole) >= cap(part) && cap(whole)-cap(part) < len(whole)
		}
		d := reading{tensor.Reference(), func(raw []byte) {
			for name, w := range c.Tensors {
				if !strings.Contains(name, "_exps.") || !within(w.Data, raw) {
					continue
				}
				var layer int
				if _, err := fmt.Sscanf(name, "blk.%d.", &layer); err != nil {
					t.Fatal(err)
				}
				size := len(w.Data) / 8
				from := (cap(w.Data) - cap(raw)) / size
				for e := from; e < from+len(raw)/size; e++ {
					if slices.Contains(ragged.Layers[layer].Drop, e) {
						t.Errorf("%s: expert %d is read", name, e)
					}
				}
				got += len(raw)
			}
		}}
		opt.Limits = limits
		m, err := model.Load(c, model.Placement{Device: d}, opt)
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
		if got != want || want == 0 {
			t.Errorf("%d bytes of experts are read, want %d", got, want)
		}
	}
}

// Checkpoints with a tensor an expert are no different, and may list how many a layer has.
func TestDroppedExpertsOfDirectory(t *testing.T) {
	c, err := store.Open("testdata/qwen3_moe")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	spec, err := model.Describe(c)
	if err != nil {
		t.Fatal(err)
	}
	n, layer := 0, 0
	for i, l := range spec.Layers {
		if l.Router != nil {
			n, layer = l.Router.Experts, i
		}
	}
	o := &moe.Overlay{Format: 1, Model: c.Fingerprint(), Layers: map[int]moe.OverlayLayer{layer: {Drop: []int{0, 2, n - 1}}}}
	less := *c
	less.Tensors, less.Files = maps.Clone(c.Tensors), maps.Clone(c.Files)
	prefix := fmt.Sprintf("model.layers.%d.mlp.", layer)
	row := 0
	for e := range n {
		for _, part := range []string{"gate", "up", "down"} {
			from, to := fmt.Sprintf("%sexperts.%d.%s_proj.weight", prefix, e, part), fmt.Sprintf("%sexperts.%d.%s_proj.weight", prefix, row, part)
			x := less.Tensors[from]
			delete(less.Tensors, from)
			if !slices.Contains(o.Layers[layer].Drop, e) {
				less.Tensors[to] = x
			}
		}
		if !slices.Contains(o.Layers[layer].Drop, e) {
			row++
		}
	}
	gate := prefix + "gate.weight"
	var ids []int32
	for e := range n {
		if !slices.Contains(o.Layers[layer].Drop, e) {
			ids = append(ids, int32(e))
		}
	}
	less.Tensors[gate] = someOf(t, c, gate, ids)
	counts := slices.Repeat([]string{fmt.Sprint(n)}, len(spec.Layers))
	counts[layer] = fmt.Sprint(n - 3)
	config := string(c.Files["config.json"])
	for _, key := range []string{"num_experts", "num_local_experts"} {
		config = strings.Replace(config, fmt.Sprintf("%q: %d", key, n), fmt.Sprintf("%q: [%s]", key, strings.Join(counts, ",")), 1)
	}
	less.Files["config.json"] = []byte(config)
	for _, d := range devices(t) {
		want := overlaid(t, c, d, model.Options{Overlay: o})
		if got := overlaid(t, c, d, model.Options{Overlay: o, Apart: true}); !slices.Equal(got, want) {
			t.Errorf("%s: apart the logits are off by %g", d.Name(), apart(got, want))
		}
		if got := overlaid(t, &less, d, model.Options{}); !slices.Equal(got, want) {
			t.Errorf("%s: sliced the logits are off by %g", d.Name(), apart(got, want))
		}
		if slices.Equal(want, overlaid(t, c, d, model.Options{})) {
			t.Error("dropping experts changes nothing")
		}
	}
}

// Experts of the same bytes are computed once when they are merged. Where a token has several of them that is the same up to the rounding of
// weights that are added first, and the very same where it has one.
func TestMergedExperts(t *testing.T) {
	whole := openDemo(t)
	twins := *whole
	twins.Tensors = maps.Clone(whole.Tensors)
	for layer := range 6 {
		for _, part := range []string{"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"} {
			name := fmt.Sprintf("blk.%d.%s.weight", layer, part)
			twins.Tensors[name] = someOf(t, whole, name, []int32{0, 1, 2, 3, 1, 5, 2, 2}) // 4 is 1; 6 and 7 are 2
		}
	}
	merged := func(topk int, groups ...[]int) *moe.Overlay {
		o := &moe.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{}}
		for layer := range 6 {
			o.Layers[layer] = moe.OverlayLayer{Merge: groups, TopK: topk}
		}
		return o
	}
	for _, d := range devices(t) {
		want := overlaid(t, &twins, d, model.Options{})
		got := overlaid(t, &twins, d, model.Options{Overlay: merged(0, []int{1, 4}, []int{7, 2, 6})})
		if off := apart(got, want) / deviation(want); off > 1e-3 {
			t.Errorf("%s: the logits are off by %.2g of their spread", d.Name(), off)
		}
		if again := overlaid(t, whole, d, model.Options{Overlay: merged(0, []int{1, 4}, []int{2, 6, 7})}); !slices.Equal(again, got) {
			t.Errorf("%s: merged in the original, the logits are off by %g", d.Name(), apart(again, got))
		}
		// One expert a token: no sum is ordered otherwise.
		want, got = overlaid(t, &twins, d, model.Options{Overlay: merged(1)}), overlaid(t, &twins, d, model.Options{Overlay: merged(1, []int{1, 4}, []int{7, 2, 6})})
		if !slices.Equal(got, want) {
			t.Errorf("%s: with one expert a token the logits are off by %g", d.Name(), apart(got, want))
		}
	}
}

// An overlay that lies about the model is refused by an error that says where.
func TestOverlayRefused(t *testing.T) {
	c := openDemo(t)
	layers := func(layer int, l moe.OverlayLayer) *moe.Overlay {
		return &moe.Overlay{Format: 1, Layers: map[int]moe.OverlayLayer{layer: l}}
	}
	for _, test := range []struct {
		overlay *moe.Overlay
		names   string
	}{
		{layers(6, moe.OverlayLayer{Drop: []int{1}}), "layer 6: layers"}, {layers(-1, moe.OverlayLayer{}), "layer -1: layers"},
		{layers(3, moe.OverlayLayer{Drop: []int{8}}), "layer 3: drop"}, {layers(3, moe.OverlayLayer{Merge: [][]int{{1, 8}}}), "layer 3: merge"},
		{layers(3, moe.OverlayLayer{Drop: []int{0, 1, 2, 3, 4, 5, 6, 7}}), "layer 3: drop"}, {layers(3, moe.OverlayLayer{TopK: 99}), "layer 3: topk"},
		{&moe.Overlay{Format: 1, Bits: map[int]moe.OverlayBits{7: {Default: "Q8_0"}}}, "layer 7"},
		{&moe.Overlay{Format: 1, Model: strings.Repeat("a", 64)}, "model"},
	} {
		_, err := model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{Overlay: test.overlay, Limits: limits})
		if !errors.Is(err, moe.ErrOverlay) || !strings.Contains(err.Error(), test.names) || !strings.Contains(err.Error(), demo.Name) {
			t.Errorf("%+v: got %v, want ErrOverlay that names %q", test.overlay, err, test.names)
		}
	}
	if _, err := (model.Options{Overlay: &moe.Overlay{Format: 1, Model: strings.Repeat("a", 64)}, ForceOverlay: true}).Describe(c); err != nil {
		t.Errorf("forced: %v", err)
	}
	dense, err := store.Open("testdata/qwen3")
	if err != nil {
		t.Fatal(err)
	}
	defer dense.Close()
	if _, err := (model.Options{Overlay: layers(0, moe.OverlayLayer{})}).Describe(dense); !errors.Is(err, moe.ErrOverlay) || !strings.Contains(err.Error(), "layer 0") {
		t.Errorf("a dense model: %v", err)
	}
}

// A file that lies about its experts is refused by an error that says where.
func TestExpertsRefused(t *testing.T) {
	whole := openDemo(t)
	entry := func(row int, bank, at int32) func(c *store.Checkpoint) {
		return func(c *store.Checkpoint) {
			x := c.Tensors["blk.2.ffn_exps_map"]
			x.Data = slices.Clone(x.Data)
			binary.LittleEndian.PutUint32(x.Data[8*row:], uint32(bank))
			binary.LittleEndian.PutUint32(x.Data[8*row+4:], uint32(at))
			c.Tensors[x.Name] = x
		}
	}
	key := func(key string, v []int32) func(c *store.Checkpoint) {
		return func(c *store.Checkpoint) { c.Meta[key] = v }
	}
	inBanks := banked(t, whole, &moe.Overlay{})
	for _, test := range []struct {
		name   string
		of     *store.Checkpoint
		change func(c *store.Checkpoint)
		names  string
	}{
		{"counts of too few layers", whole, key("winnow.moe.expert_counts", []int32{8}), "winnow.moe.expert_counts"},
		{"counts of other layers", whole, key("winnow.moe.expert_counts", []int32{8, 8, 7, 8, 8, 8}), "blk.2.ffn_gate_inp.weight"},
		{"too few ids", whole, key("winnow.moe.expert_ids.2", []int32{1, 2}), "winnow.moe.expert_ids.2"},
		{"ids twice", whole, key("winnow.moe.expert_ids.2", []int32{1, 2, 3, 4, 5, 6, 7, 7}), "expert 7"},
		{"ids below -1", whole, key("winnow.moe.expert_ids.2", []int32{-2, 2, 3, 4, 5, 6, 7, 8}), "expert -2"},
		{"a bank that is not there", inBanks, entry(3, 2, 0), "expert 3"},
		{"an expert that is not there", inBanks, entry(3, 0, 8), "expert 3"},
		{"half gone", inBanks, entry(3, -1, 0), "expert 3"},
		{"below 0", inBanks, entry(3, 0, -2), "expert 3"},
		{"a map of other experts", inBanks, func(c *store.Checkpoint) {
			x := c.Tensors["blk.2.ffn_exps_map"]
			x.Shape, x.Data = []int{7, 2}, x.Data[:56]
			c.Tensors[x.Name] = x
		}, "blk.2.ffn_exps_map"},
		{"a bank without down", inBanks, func(c *store.Checkpoint) { delete(c.Tensors, "blk.2.ffn_down_exps.q1.weight") }, "blk.2.ffn_down_exps.q1.weight"},
		{"banks of two sizes", inBanks, func(c *store.Checkpoint) {
			c.Tensors["blk.2.ffn_up_exps.q1.weight"] = c.Tensors["blk.2.ffn_up_exps.q0.weight"]
		}, "ffn_up_exps"},
		{"too many banks", inBanks, func(c *store.Checkpoint) {
			for b := 2; b < 5; b++ {
				c.Tensors[fmt.Sprintf("blk.2.ffn_gate_exps.q%d.weight", b)] = c.Tensors["blk.2.ffn_gate_exps.q0.weight"]
			}
		}, "at most 4 banks"},
		{"all gone", inBanks, func(c *store.Checkpoint) {
			x := c.Tensors["blk.2.ffn_exps_map"]
			x.Data = []byte(strings.Repeat("\xff", len(x.Data)))
			c.Tensors[x.Name] = x
		}, "layer 2"},
	} {
		c := *test.of
		c.Tensors, c.Meta = maps.Clone(c.Tensors), maps.Clone(c.Meta)
		test.change(&c)
		err := load(&c)
		if !errors.Is(err, model.ErrSpec) && !errors.Is(err, store.ErrNoTensor) || !strings.Contains(err.Error(), test.names) {
			t.Errorf("%s: got %v, want an error that names %q", test.name, err, test.names)
		}
	}
}

// Models under overlays that make them compute different things do not share what they have cached.
func TestOverlayFingerprint(t *testing.T) {
	prints := map[string]bool{}
	overlays := []*moe.Overlay{nil, ragged, {Format: 1, Layers: map[int]moe.OverlayLayer{1: {TopK: 1}}}}
	for _, o := range overlays {
		m, err := model.Load(openDemo(t), model.Placement{Device: tensor.Reference()}, model.Options{Overlay: o, Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		prints[m.Fingerprint()] = true
		m.Close()
	}
	if len(prints) != len(overlays) {
		t.Errorf("fingerprints %v", slices.Collect(maps.Keys(prints)))
	}
}
