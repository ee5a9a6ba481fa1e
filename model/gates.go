package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Layout, of which there is no standard, in a GGUF file of k trees of n experts:
//
//	blk.N.ffn_gate_tree.weight      F32 [k(n-1), d]  row j(n-1)+q is node q of tree j, by heap numbers
//	blk.N.ffn_gate_tree.bias        F32 [k(n-1)]     may be absent
//	blk.N.ffn_gate_leaf.weight      F32 [kn, d]      row jn+i scores leaf i of tree j, depth first; absent where shared or k = 1
//	blk.N.ffn_gate_leaf.bias        F32 [kn]         may be absent
//	blk.N.ffn_gate_leaf_map.weight  I32 [k, n]       the expert of each leaf, -1 = pruned; absent = leaf i leads to expert i
//	blk.N.ffn_gate_tid2eid          I32 [vocab, k]   the experts of each token, -1 = none, in a file of tables
//
// and keys under the architecture's prefix: expert_router_type, expert_tree_gamma (one, or one a layer of the file), expert_tree_eps,
// expert_tree_leaf_shared, expert_tree_weight_mode. Shapes are slowest dimension first.

// Kinds of routers that the key expert_router_type of a GGUF file names; gates_shortlist.go and gates_dselect.go have more. A layer is of the kind whose tensors it
// has: with a file of another kind, layers that have none choose by top-k.
const (
	topK   = "topk"
	byTree = "tree"
	byHash = "hash"

	routerType = "expert_router_type"
)

const (
	gateTensor = "ffn_gate_inp.weight"
	treeTensor = "ffn_gate_tree.weight"
	hashTensor = "ffn_gate_tid2eid"
)

// gate is the name of the tensor that makes layer i one of experts.
func (m *metadata) gate(i int) string {
	for _, part := range []string{treeTensor, digitTensor} {
		if name := fmt.Sprintf("blk.%d.%s", i, part); m.c.Has(name) {
			return name
		}
	}
	return fmt.Sprintf("blk.%d.%s", i, gateTensor)
}

// gateExperts is how many experts a gate of so many rows chooses from: trees have a row a node, one fewer than leaves; selectors a row a bit, and
// their file has to say.
func gateExperts(name string, rows int, said moe.RouterSpec) int {
	switch {
	case strings.HasSuffix(name, treeTensor):
		return rows/max(said.K, 1) + 1
	case strings.HasSuffix(name, digitTensor):
		return said.Experts
	}
	return rows
}

// routed says how layer i chooses its experts, where that is not by its K best of one matrix; k is what the file calls experts a token.
func (m *metadata) routed(l *LayerSpec, i, k int) error {
	kind, block := m.text(routerType, topK), fmt.Sprintf("blk.%d.", i)
	if m.err == nil && !slices.Contains([]string{topK, byTree, byHash, byShortlist, byDSelect}, kind) {
		return fmt.Errorf("%w: %s%s %q, want %q, %q, %q, %q or %q", ErrAssumption, m.prefix, routerType, kind, topK, byTree, byHash, byShortlist, byDSelect)
	}
	for _, other := range []struct{ kind, tensor string }{{byTree, treeTensor}, {byHash, hashTensor}, {byShortlist, shortNodes}, {byDSelect, digitTensor}} {
		if m.err == nil && m.c.Has(block+other.tensor) && kind != other.kind {
			return fmt.Errorf("%w: tensor %q in a file of %s%s %q", ErrSpec, block+other.tensor, m.prefix, routerType, kind)
		}
	}
	switch {
	case m.err != nil:
		return m.err
	case m.c.Has(block + treeTensor):
		return m.trees(l, i, k)
	case m.c.Has(block + hashTensor):
		l.Hash = true
	case m.c.Has(block + shortNodes):
		return m.shortlisted(l, i)
	case m.c.Has(block + digitTensor):
		return m.selectors(l, i, k)
	}
	return nil
}

// trees reads the numbers of a router of k trees. A row may take up to twice as many experts as there are trees; of more the heaviest stay.
func (m *metadata) trees(l *LayerSpec, i, k int) error {
	t := &TreeSpec{TreeSpec: moe.TreeSpec{Experts: l.Router.Experts, Trees: k, Cut: float32(m.float("expert_tree_eps", moe.TreeCut))}}
	gamma, key := math.NaN(), m.prefix+"expert_tree_gamma"
	switch v, err := m.c.Meta.Floats(key); {
	case err != nil:
		gamma = m.float("expert_tree_gamma", gamma)
	case i < len(v):
		gamma = float64(v[i])
	}
	t.Gamma = float32(gamma)
	if m.c.Meta.Has(m.prefix + "expert_tree_leaf_shared") {
		shared, err := m.c.Meta.Bool(m.prefix + "expert_tree_leaf_shared")
		m.keep(err)
		t.Shared = shared
	}
	if mode := m.text("expert_tree_weight_mode", "leaf"); mode != "leaf" {
		return fmt.Errorf("%w: %sexpert_tree_weight_mode %q, want \"leaf\"", ErrAssumption, m.prefix, mode)
	}
	if m.err != nil {
		return m.err
	}
	if err := t.Check(); err != nil {
		return fmt.Errorf("%w: layer %d, keys %q: %w", ErrSpec, i, m.prefix+"expert_tree_*", err)
	}
	l.Tree, l.Router.K = t, min(l.Map.Live(), 2*k, moe.MostActive)
	return nil
}

// TreeSpec is a router of trees and where its leaves' scorers are.
type TreeSpec struct {
	moe.TreeSpec
	Shared bool // leaves are scored by the row of ffn_gate_inp of the expert that they lead to
}

// choice is what the router of a layer of experts, the at-th such layer, reads and writes beside its weights.
type choice struct {
	phys, ids, logits, weights, mass tensor.Mat
	at                               int
}

// router prepares the choice of experts.
func (l *loader) router(s *LayerSpec, m *Model, name func(string) string, c choice) tensor.Op {
	sc, n, dim, r := &m.scratch, m.batch.Layout.Rows, m.spec.Dim, *s.Router
	if s.Tree != nil || s.Hash || s.DSelect != nil { // which know no wishes, and leave all
		whole := tensor.FromF32(c.mass.Rows, 1, slices.Repeat([]float32{1}, c.mass.Rows))
		if l.err == nil {
			l.queue.Write(c.mass.Buf, c.mass.Off, whole.Raw())
		}
	}
	switch {
	case s.Tree != nil:
		o := l.tree(s, dim, name)
		o.X, o.IDs, o.Weights, o.Active, o.N = sc.h, c.ids, c.weights, sc.active, n
		return o
	case s.Hash:
		return &moe.RouteHash{
			X: sc.h, Tokens: m.batch.IDs, Table: l.upload(l.table(name(hashTensor), m.spec.Vocab, r.K, r.CheckTable)), Phys: c.phys,
			W: l.upload(widened(l.host(name(gateTensor), r.Experts, dim))), Logits: c.logits, IDs: c.ids, Weights: c.weights, N: n, Spec: r,
		}
	case s.DSelect != nil:
		o := l.dselect(s, dim, name)
		o.X, o.Phys, o.IDs, o.Weights, o.Active, o.N = sc.h, c.phys, c.ids, c.weights, sc.active, n
		return o
	case s.Shortlist > 0:
		o := l.shortlist(s, dim, name)
		o.X, o.Phys, o.IDs, o.Weights, o.Read, o.N = sc.h, c.phys, c.ids, c.weights, sc.active, n
		o.Wish, o.Of, o.Mass, o.Layer = m.batch.wishes.lines, m.batch.wishes.of, c.mass, c.at
		return o
	}
	return &moe.Route{
		X: sc.h, W: l.load(widened(l.host(name(gateTensor), r.Experts, dim))), Phys: c.phys,
		Logits: c.logits, IDs: c.ids, Weights: c.weights, N: n, Spec: r,
		Wish: m.batch.wishes.lines, Of: m.batch.wishes.of, Mass: c.mass, Layer: c.at,
	}
}

// tree brings trees to the device, once they have shown on random rows that they choose few experts.
func (l *loader) tree(s *LayerSpec, dim int, name func(string) string) *moe.RouteTree {
	t, by := s.Tree, moe.ScorerByLeaf
	vector := func(part string, n int) tensor.Mat {
		if !l.c.Has(name(part)) {
			return tensor.Mat{}
		}
		return widened(l.host(name(part), 1, n))
	}
	host := &moe.RouteTree{Spec: t.TreeSpec}
	if nodes := t.Trees * t.Nodes(); nodes > 0 {
		host.Nodes, host.NodeBias = widened(l.host(name(treeTensor), nodes, dim)), vector("ffn_gate_tree.bias", nodes)
	}
	leaves := t.EveryLeaf()
	if part := name("ffn_gate_leaf_map.weight"); l.c.Has(part) {
		leaves = append([]int32(nil), l.table(part, t.Trees, t.Experts, nil).I32()...)
	}
	switch {
	case t.Shared:
		by = moe.ScorerByExpert
		host.Leaves, host.LeafBias = widened(l.host(name(gateTensor), t.Experts, dim)), vector("ffn_gate_inp.bias", t.Experts)
	case l.c.Has(name("ffn_gate_leaf.weight")):
		scorers := t.Trees * t.Experts
		host.Leaves, host.LeafBias = widened(l.host(name("ffn_gate_leaf.weight"), scorers, dim)), vector("ffn_gate_leaf.bias", scorers)
	case t.Trees > 1:
		l.fail(fmt.Errorf("%w: %d trees without tensor %q", ErrSpec, t.Trees, name("ffn_gate_leaf.weight")))
	}
	if l.err != nil {
		return host
	}
	places, err := t.Places(leaves, by)
	if err == nil { // ids of the whole map are checked before experts that are in no bank are taken out
		places, err = t.Places(moe.Prune(leaves, s.Map), by)
	}
	if err != nil {
		l.fail(fmt.Errorf("%w: %s: %w", ErrSpec, name("ffn_gate_leaf_map.weight"), err))
		return host
	}
	host.Places = tensor.FromI32(len(places)/2, 2, places)
	probe := *host
	probe.X, probe.IDs, probe.Weights, probe.Active, probe.N = l.random(dim, s.Router.K, name)
	if l.err != nil {
		return host
	}
	probe.Reference()
	if err := probe.Saturated(); err != nil {
		l.fail(fmt.Errorf("%w: tensor %q: %w", ErrAssumption, name(treeTensor), err))
		return host
	}
	for _, m := range []*tensor.Mat{&host.Nodes, &host.NodeBias, &host.Leaves, &host.LeafBias, &host.Places} {
		if m.Present() {
			*m = l.upload(*m)
		}
	}
	return host
}

// random is normed random rows on the host and what a router writes of them: routers that run most experts for every row are refused by it.
func (l *loader) random(dim, k int, name func(string) string) (x, ids, weights, active, n tensor.Mat) {
	const rows = 100
	norm := widened(l.host(name("ffn_norm.weight"), 1, dim))
	if l.err != nil {
		return x, ids, weights, active, n
	}
	r, v := rand.New(rand.NewPCG(1, uint64(dim))), make([]float32, rows*dim)
	for i := range v {
		v[i] = float32(r.NormFloat64()) * norm.F32()[i%dim]
	}
	ids, weights = tensor.FromI32(rows, k, make([]int32, rows*k)), tensor.FromF32(rows, k, make([]float32, rows*k))
	return tensor.FromF32(rows, dim, v), ids, weights, tensor.FromI32(rows, 2, make([]int32, 2*rows)), tensor.FromI32(1, 1, []int32{rows})
}

// table finds a tensor of integers in the file and checks its shape, and its numbers if there is a check.
func (l *loader) table(name string, rows, cols int, check func([]int32) error) (out tensor.Mat) {
	out = tensor.FromI32(0, cols, nil)
	if l.err != nil {
		return out
	}
	t, err := l.c.Tensor(name)
	if err != nil {
		l.fail(err)
		return out
	}
	if t.Format != quant.I32 || len(t.Shape) != 2 || t.Shape[0] != rows || t.Shape[1] != cols {
		l.fail(fmt.Errorf("%w: tensor %q is %s %v, want I32 [%d %d]", ErrSpec, name, t.Format, t.Shape, rows, cols))
		return out
	}
	m := tensor.HostMat("", quant.I32, rows, cols, aligned(t.Data))
	if check != nil {
		if err := check(m.I32()); err != nil {
			l.fail(fmt.Errorf("%w: tensor %q: %w", ErrSpec, name, err))
			return out
		}
	}
	return m
}
