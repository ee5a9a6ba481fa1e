package model_test

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// gated is checkpoint with random weights and six experts, whose layer of experts has no gate yet.
func gated() *store.Checkpoint {
	c := checkpoint()
	delete(c.Tensors, "blk.1.ffn_gate_inp.weight")
	c.Meta["qwen3moe.expert_count"] = uint32(6)
	floats(c, "blk.1.ffn_gate_exps.weight", 6, 6, 8)
	floats(c, "blk.1.ffn_up_exps.weight", 6, 6, 8)
	floats(c, "blk.1.ffn_down_exps.weight", 6, 8, 6)
	for _, name := range c.Names() {
		floats(c, name, c.Tensors[name].Shape...)
	}
	return c
}

// byTrees has two trees of steps so narrow that most rows see one path of each, and a map of leaves with one left out.
func byTrees() *store.Checkpoint {
	c := gated()
	c.Meta["qwen3moe.expert_router_type"], c.Meta["qwen3moe.expert_tree_gamma"] = "tree", []float32{1, 0.5}
	floats(c, "blk.1.ffn_gate_tree.weight", 10, 8)
	floats(c, "blk.1.ffn_gate_tree.bias", 10)
	floats(c, "blk.1.ffn_gate_leaf.weight", 12, 8)
	floats(c, "blk.1.ffn_gate_leaf.bias", 12)
	ints(c, "blk.1.ffn_gate_leaf_map.weight", []int{2, 6}, []int32{5, 4, 3, 2, 1, 0, 0, 1, -1, 3, 4, 5})
	return c
}

// byTokens chooses by a table of the ten tokens.
func byTokens() *store.Checkpoint {
	c := gated()
	c.Meta["qwen3moe.expert_router_type"] = "hash"
	floats(c, "blk.1.ffn_gate_inp.weight", 6, 8)
	ints(c, "blk.1.ffn_gate_tid2eid", []int{10, 2}, []int32{0, 1, 2, 3, 4, 5, 1, 0, 3, 2, 5, 4, 0, 2, 1, 3, 4, 0, 5, 1})
	return c
}

// bySelectors has two selectors of three bits, so sharp that most rows spell one number each.
func bySelectors() *store.Checkpoint {
	c := gated()
	c.Meta["qwen3moe.expert_router_type"], c.Meta["qwen3moe.expert_dselect_gamma"] = "dselect", float32(0.1)
	floats(c, "blk.1.ffn_gate_digit.weight", 6, 8)
	floats(c, "blk.1.ffn_gate_digit.bias", 6)
	floats(c, "blk.1.ffn_gate_share.weight", 2, 8)
	return c
}

// byShortlist chooses among the four likeliest of the six experts.
func byShortlist() *store.Checkpoint {
	c := gated()
	c.Meta["qwen3moe.expert_router_type"], c.Meta["qwen3moe.expert_shortlist_size"] = "shortlist", []int32{0, 4}
	floats(c, "blk.1.ffn_gate_inp.weight", 6, 8)
	floats(c, "blk.1.ffn_gate_shortlist.weight", 5, 8)
	floats(c, "blk.1.ffn_gate_shortlist.bias", 5)
	ints(c, "blk.1.ffn_gate_shortlist_map.weight", []int{6, 1}, []int32{5, 3, 0, 1, 2, 4})
	return c
}

func floats(c *store.Checkpoint, name string, shape ...int) {
	n := 1
	for _, d := range shape {
		n *= d
	}
	r, raw := rand.New(rand.NewPCG(uint64(len(name)), uint64(n))), make([]byte, 0, 4*n)
	for range n {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(0.5*float32(r.NormFloat64())))
	}
	c.Tensors[name] = store.Tensor{Name: name, Format: quant.F32, Shape: shape, Data: raw}
}

func ints(c *store.Checkpoint, name string, shape []int, v []int32) {
	raw, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(err)
	}
	c.Tensors[name] = store.Tensor{Name: name, Format: quant.I32, Shape: shape, Data: raw}
}

// written is a checkpoint after a way through the bytes of a GGUF file.
func written(t *testing.T, c *store.Checkpoint) *store.Checkpoint {
	t.Helper()
	var all []store.Tensor
	for _, name := range slices.Sorted(maps.Keys(c.Tensors)) {
		all = append(all, c.Tensors[name])
	}
	back, err := store.OpenBytes(c.Path, ggufBytes(c.Meta, all))
	if err != nil {
		t.Fatal(err)
	}
	return back
}

// routed is a device that counts what routers it runs, on a reference device; trees it runs by dense, if there is one.
type routed struct {
	tensor.Device
	dense func(o *moe.RouteTree)
	trees *int
}

func (d routed) Queue() tensor.Queue { return routedQueue{d.Device.Queue(), d} }

type routedQueue struct {
	tensor.Queue
	d routed
}

func (q routedQueue) Run(op tensor.Op) {
	o, ok := op.(*moe.RouteTree)
	if !ok {
		q.Queue.Run(op)
		return
	}
	*q.d.trees++
	q.d.dense(o)
}

// A file of trees gives the same logits, to the bit, by walking few nodes as by the mass of all; and every device runs it as the reference does.
func TestTreeRouterRuns(t *testing.T) {
	c, ids, lim := written(t, byTrees()), []int32{1, 5, 3, 9, 0, 7}, model.Limits{Rows: 8, Sequences: 1, Wanted: 8, Pages: 1, Context: 64}
	logits := func(d tensor.Device) []float32 {
		m, err := model.Load(c, model.Placement{Device: d}, model.Options{Limits: lim})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if l := m.Spec().Layers[1]; l.Tree == nil || l.Tree.Experts != 6 || l.Tree.Trees != 2 || l.Tree.Gamma != 0.5 || l.Router.K != 4 {
			t.Fatalf("the layer of trees is %+v with %+v", l.Tree, l.Router)
		}
		return run(m, ids, 0)
	}
	trees := 0
	sparse := logits(tensor.Reference())
	dense := logits(routed{tensor.Reference(), (*moe.RouteTree).Dense, &trees})
	if !slices.Equal(sparse, dense) || trees != 1 {
		t.Errorf("sparse and dense logits differ, or %d trees ran", trees)
	}
	other := logits(routed{tensor.Reference(), func(o *moe.RouteTree) { o.Reference(); o.IDs.I32()[0] = (o.IDs.I32()[0] + 1) % 6 }, &trees})
	if slices.Equal(sparse, other) {
		t.Error("another expert gives the same logits")
	}
	for _, d := range devices(t) {
		logits(tensor.Shadowed(d, func(m tensor.Mismatch) { t.Errorf("%s: %v", d.Name(), m) }))
	}
}

// A file of selectors chooses by spelling few numbers as by all; and every device runs it as the reference does.
func TestSelectorsRun(t *testing.T) {
	c, ids, lim := written(t, bySelectors()), []int32{1, 5, 3, 9, 0, 7}, model.Limits{Rows: 8, Sequences: 1, Wanted: 8, Pages: 1, Context: 64}
	ran := 0
	logits := func(d tensor.Device) []float32 {
		dense := tensor.Observed(d, func(op tensor.Op, _ func(tensor.Mat) []byte) {
			if o, ok := op.(*moe.RouteDSelect); ok {
				sparse := slices.Concat(o.IDs.I32()[:6*o.IDs.Cols], o.Active.I32()[:12])
				o.Dense()
				if !slices.Equal(sparse, slices.Concat(o.IDs.I32()[:6*o.IDs.Cols], o.Active.I32()[:12])) {
					t.Error("all numbers choose otherwise than those that have mass")
				}
				ran++
			}
		})
		m, err := model.Load(c, model.Placement{Device: dense}, model.Options{Limits: lim})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if l := m.Spec().Layers[1]; l.DSelect == nil || l.DSelect.Experts != 6 || l.DSelect.Selectors != 2 || l.Router.K != 4 {
			t.Fatalf("the layer of selectors is %+v with %+v", l.DSelect, l.Router)
		}
		return run(m, ids, 0)
	}
	if a, b := logits(tensor.Reference()), logits(tensor.Reference()); !slices.Equal(a, b) || ran != 2 {
		t.Errorf("%d layers of selectors ran, or logits differ", ran)
	}
	for _, d := range devices(t) {
		logits(tensor.Shadowed(d, func(m tensor.Mismatch) { t.Errorf("%s: %v", d.Name(), m) }))
	}
}

// A file of tables chooses by token: the same tokens in another order have the same experts.
func TestHashRouterRuns(t *testing.T) {
	c := written(t, byTokens())
	var chosen []int32
	watched := tensor.Observed(tensor.Reference(), func(op tensor.Op, read func(tensor.Mat) []byte) {
		if o, ok := op.(*moe.RouteHash); ok {
			chosen = append(chosen, tensor.HostMat("", quant.I32, o.IDs.Rows, o.IDs.Cols, read(o.IDs)).I32()[:6]...)
		}
	})
	m, err := model.Load(c, model.Placement{Device: watched}, model.Options{Limits: model.Limits{Rows: 3, Sequences: 1, Wanted: 3, Pages: 1, Context: 64}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	run(m, []int32{9, 2, 0}, 0)
	if want := []int32{5, 1, 4, 5, 0, 1}; !slices.Equal(chosen, want) {
		t.Errorf("tokens 9, 2, 0 choose %v, want %v", chosen, want)
	}
}

// A file of shortlists chooses among the experts that the tree finds, with the router's own weights; of all experts it is the router; a wish for
// fewer holds; and every device runs it as the reference does.
func TestShortlistRuns(t *testing.T) {
	ids := []int32{1, 5, 3, 9, 0, 7}
	whole, all := byShortlist(), byShortlist()
	delete(whole.Meta, "qwen3moe.expert_router_type")
	for _, part := range []string{".weight", ".bias", "_map.weight"} {
		delete(whole.Tensors, "blk.1.ffn_gate_shortlist"+part)
	}
	all.Meta["qwen3moe.expert_shortlist_size"] = uint32(6)
	router := logitsOf(t, written(t, whole), ids)
	if !slices.Equal(router, logitsOf(t, written(t, all), ids)) {
		t.Error("a shortlist of all experts gives other logits than the router")
	}
	c := written(t, byShortlist())
	if slices.Equal(router, logitsOf(t, c, ids)) {
		t.Error("a random tree finds all that the router chooses")
	}
	reads := 0
	watched := tensor.Observed(tensor.Reference(), func(op tensor.Op, read func(tensor.Mat) []byte) {
		if o, ok := op.(*moe.RouteShortlist); ok {
			for _, n := range tensor.HostMat("", quant.I32, o.Read.Rows, o.Read.Cols, read(o.Read)).I32()[:2*len(ids)] {
				reads = max(reads, int(n))
			}
		}
	})
	lim := model.Limits{Rows: 8, Sequences: 1, Wanted: 8, Pages: 1, Context: 64}
	for _, d := range append(devices(t), watched) {
		m, err := model.Load(c, model.Placement{Device: tensor.Shadowed(d, func(m tensor.Mismatch) { t.Errorf("%s: %v", d.Name(), m) })}, model.Options{Limits: lim})
		if err != nil {
			t.Fatal(err)
		}
		run(m, ids, 0)
		m.Close()
	}
	if reads < 7 || reads > 9 { // four experts and three to five nodes
		t.Errorf("a row reads up to %d rows of matrices", reads)
	}
}

// Routers that contradict themselves are refused by an error that names file and place.
func TestGatesRefuse(t *testing.T) {
	key := func(key string, v any) func(*store.Checkpoint) {
		return func(c *store.Checkpoint) { c.Meta["qwen3moe."+key] = v }
	}
	gone := func(name string) func(*store.Checkpoint) {
		return func(c *store.Checkpoint) { delete(c.Tensors, name); delete(c.Meta, name) }
	}
	table := func(name string, shape []int, v ...int32) func(*store.Checkpoint) {
		return func(c *store.Checkpoint) { ints(c, name, shape, v) }
	}
	const leafMap, hash, shortMap = "blk.1.ffn_gate_leaf_map.weight", "blk.1.ffn_gate_tid2eid", "blk.1.ffn_gate_shortlist_map.weight"
	const shortSize = "expert_shortlist_size"
	for _, test := range []struct {
		name   string
		make   func() *store.Checkpoint
		change func(*store.Checkpoint)
		names  string
		is     error
	}{
		{"kind unknown", byTrees, key("expert_router_type", "forest"), "forest", model.ErrAssumption},
		{"selectors in a file of trees", bySelectors, key("expert_router_type", "tree"), "ffn_gate_digit", model.ErrSpec},
		{"no gamma of selectors", bySelectors, gone("qwen3moe.expert_dselect_gamma"), "width 0", model.ErrSpec},
		{"selectors cut at 1", bySelectors, key("expert_dselect_eps", float32(1)), "mass 1", model.ErrSpec},
		{"selectors of one expert", bySelectors, func(c *store.Checkpoint) {
			c.Meta["qwen3moe.expert_count"], c.Meta["qwen3moe.expert_used_count"] = uint32(1), uint32(1)
		}, "selectors of 1 experts", model.ErrSpec},
		{"selectors of more experts than there are", bySelectors, key("expert_count", uint32(7)), "ffn_gate_exps", model.ErrSpec},
		{"selectors of other width", bySelectors, func(c *store.Checkpoint) { floats(c, "blk.1.ffn_gate_digit.weight", 6, 9) }, "ffn_gate_digit", model.ErrSpec},
		{"selectors of fewer bits", bySelectors, func(c *store.Checkpoint) { floats(c, "blk.1.ffn_gate_digit.weight", 4, 8) }, "ffn_gate_digit", model.ErrSpec},
		{"selectors without shares", bySelectors, gone("blk.1.ffn_gate_share.weight"), "ffn_gate_share", store.ErrNoTensor},
		{"selectors so wide that most experts run", bySelectors, key("expert_dselect_gamma", float32(1000)), "not saturated", model.ErrAssumption},
		{"kind is a number", byTrees, key("expert_router_type", uint32(1)), "expert_router_type", model.ErrSpec},
		{"trees in a file of top-k", byTrees, gone("qwen3moe.expert_router_type"), "ffn_gate_tree", model.ErrSpec},
		{"tables in a file of trees", byTokens, key("expert_router_type", "tree"), "tid2eid", model.ErrSpec},
		{"no gamma", byTrees, gone("qwen3moe.expert_tree_gamma"), "expert_tree", model.ErrSpec},
		{"gamma 0", byTrees, key("expert_tree_gamma", float32(0)), "width 0", model.ErrSpec},
		{"gamma of one layer", byTrees, key("expert_tree_gamma", []float32{1}), "expert_tree", model.ErrSpec},
		{"cut 2", byTrees, key("expert_tree_eps", float32(2)), "mass 2", model.ErrSpec},
		{"weights by the router", byTrees, key("expert_tree_weight_mode", "router"), "weight_mode", model.ErrAssumption},
		{"steps so wide that most experts run", byTrees, key("expert_tree_gamma", float32(1000)), "not saturated", model.ErrAssumption},
		{"trees of other width", byTrees, func(c *store.Checkpoint) { floats(c, "blk.1.ffn_gate_tree.weight", 10, 9) }, "ffn_gate_tree", model.ErrSpec},
		{"trees of other size", byTrees, func(c *store.Checkpoint) { floats(c, "blk.1.ffn_gate_tree.weight", 11, 8) }, "ffn_gate_tree", model.ErrSpec},
		{"more nodes than experts", byTrees, func(c *store.Checkpoint) { floats(c, "blk.1.ffn_gate_tree.weight", 12, 8) }, "ffn_gate_exps", model.ErrSpec},
		{"no leaves", byTrees, gone("blk.1.ffn_gate_leaf.weight"), "ffn_gate_leaf.weight", model.ErrSpec},
		{"leaves shared with no gate", byTrees, key("expert_tree_leaf_shared", true), "ffn_gate_inp", store.ErrNoTensor},
		{"map of other shape", byTrees, table(leafMap, []int{1, 6}, 0, 1, 2, 3, 4, 5), leafMap, model.ErrSpec},
		{"map of floats", byTrees, func(c *store.Checkpoint) { floats(c, leafMap, 2, 6) }, leafMap, model.ErrSpec},
		{"map out of range", byTrees, table(leafMap, []int{2, 6}, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 6), "expert 6", model.ErrSpec},
		{"map of nothing", byTrees, table(leafMap, []int{2, 6}, slices.Repeat([]int32{-1}, 12)...), "pruned", model.ErrSpec},
		{"table of other vocabulary", byTokens, table(hash, []int{9, 2}, make([]int32, 18)...), hash, model.ErrSpec},
		{"table out of range", byTokens, table(hash, []int{10, 2}, slices.Repeat([]int32{6}, 20)...), "expert 6", model.ErrSpec},
		{"table of floats", byTokens, func(c *store.Checkpoint) { floats(c, hash, 10, 2) }, hash, model.ErrSpec},
		{"shortlist in a file of top-k", byShortlist, gone("qwen3moe.expert_router_type"), "ffn_gate_shortlist", model.ErrSpec},
		{"shortlist of no size", byShortlist, gone("qwen3moe.expert_shortlist_size"), shortSize, model.ErrSpec},
		{"shortlist of text", byShortlist, key(shortSize, "4"), shortSize, model.ErrSpec},
		{"shortlist of one layer", byShortlist, key(shortSize, []int32{}), shortSize, model.ErrSpec},
		{"shortlist below K", byShortlist, key(shortSize, []int32{4, 1}), "is 1 for a choice of 2 of 6", model.ErrSpec},
		{"shortlist beyond all", byShortlist, key(shortSize, []int64{4, 1 << 40}), "of 6 experts", model.ErrSpec},
		{"shortlist of a router that needs all", byShortlist, key("expert_weights_norm", false), "not renormalised", model.ErrAssumption},
		{"shortlist without nodes", byShortlist, func(c *store.Checkpoint) { floats(c, "blk.1.ffn_gate_shortlist.weight", 4, 8) }, "ffn_gate_shortlist", model.ErrSpec},
		{"shortlist without offsets", byShortlist, gone("blk.1.ffn_gate_shortlist.bias"), "shortlist.bias", store.ErrNoTensor},
		{"shortlist without its router", byShortlist, func(c *store.Checkpoint) { floats(c, "blk.1.ffn_gate_inp.weight", 6, 9) }, "ffn_gate_inp", model.ErrSpec},
		{"shortlist map of other shape", byShortlist, table(shortMap, []int{5, 1}, 0, 1, 2, 3, 4), shortMap, model.ErrSpec},
		{"shortlist map out of range", byShortlist, table(shortMap, []int{6, 1}, 0, 1, 2, 3, 4, 6), "expert 6", model.ErrSpec},
		{"shortlist map below range", byShortlist, table(shortMap, []int{6, 1}, 0, 1, 2, 3, 4, -1), "expert -1", model.ErrSpec},
		{"shortlist map with one twice", byShortlist, table(shortMap, []int{6, 1}, 0, 1, 2, 3, 4, 4), "or another leaf does", model.ErrSpec},
		{"shortlist map of floats", byShortlist, func(c *store.Checkpoint) { floats(c, shortMap, 6, 1) }, shortMap, model.ErrSpec},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := test.make()
			test.change(c)
			err := load(c)
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.names) || !strings.Contains(err.Error(), "small.gguf") {
				t.Errorf("got %v, want %v that names small.gguf and %q", err, test.is, test.names)
			}
		})
	}
	for _, good := range []*store.Checkpoint{byTrees(), byTokens(), byShortlist(), bySelectors()} {
		if err := load(good); err != nil {
			t.Error(err)
		}
	}
	var wide *moe.Unsaturated
	c := byTrees()
	c.Meta["qwen3moe.expert_tree_gamma"] = float32(1000)
	if err := load(c); !errors.As(err, &wide) || wide.Allowed != 4 {
		t.Errorf("trees that are not saturated give %v", err)
	}
}

// FuzzGates gives routers any numbers: they are refused by an error, or run.
func FuzzGates(f *testing.F) {
	f.Add(int32(4), float32(0.1), []byte{5, 3, 0, 1, 2, 4})
	f.Add(int32(-1), float32(math.NaN()), []byte{0, 0, 255, 1, 2, 4, 9})
	f.Fuzz(func(t *testing.T, size int32, gamma float32, leaves []byte) {
		short, trees, selectors := byShortlist(), byTrees(), bySelectors()
		v := make([]int32, len(leaves))
		for i, b := range leaves {
			v[i] = int32(int8(b))
		}
		short.Meta["qwen3moe.expert_shortlist_size"] = []int32{0, size}
		ints(short, "blk.1.ffn_gate_shortlist_map.weight", []int{len(v), 1}, v)
		trees.Meta["qwen3moe.expert_tree_gamma"] = gamma
		ints(trees, "blk.1.ffn_gate_leaf_map.weight", []int{2, len(v)}, slices.Concat(v, v))
		selectors.Meta["qwen3moe.expert_dselect_gamma"], selectors.Meta["qwen3moe.expert_count"] = gamma, size
		for _, c := range []*store.Checkpoint{short, trees, selectors} {
			if err := load(c); err != nil {
				if !strings.Contains(err.Error(), "small.gguf") {
					t.Error(err)
				}
				continue
			}
			if v := logitsOf(t, c, []int32{4, 8, 1}); len(v) == 0 {
				t.Error("no logits")
			}
		}
	})
}

// Leaves that share the gate's rows choose and weigh as leaves that each have a copy of them.
func TestSharedLeaves(t *testing.T) {
	shared, apart := byTrees(), byTrees()
	shared.Meta["qwen3moe.expert_tree_leaf_shared"] = true
	floats(shared, "blk.1.ffn_gate_inp.weight", 6, 8)
	gate := shared.Tensors["blk.1.ffn_gate_inp.weight"].Data
	var rows []byte
	for _, e := range []int{5, 4, 3, 2, 1, 0, 0, 1, 0, 3, 4, 5} {
		rows = append(rows, gate[e*32:(e+1)*32]...)
	}
	apart.Tensors["blk.1.ffn_gate_leaf.weight"] = store.Tensor{Name: "blk.1.ffn_gate_leaf.weight", Format: quant.F32, Shape: []int{12, 8}, Data: rows}
	delete(apart.Tensors, "blk.1.ffn_gate_leaf.bias")
	ids := []int32{4, 8, 1}
	if a, b := logitsOf(t, written(t, shared), ids), logitsOf(t, written(t, apart), ids); !slices.Equal(a, b) {
		t.Error("shared leaves give other logits")
	}
}
