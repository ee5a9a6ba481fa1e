package model

import (
	"fmt"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Layout, of which there is no standard, of a tree that finds the likeliest of n experts for the router to choose among, in a GGUF file whose
// expert_router_type is "shortlist". The router's own tensors stay as they are.
//
//	blk.N.ffn_gate_shortlist.weight      F32 [n-1, d]  row q is node q, by heap numbers
//	blk.N.ffn_gate_shortlist.bias        F32 [n-1]
//	blk.N.ffn_gate_shortlist_map.weight  I32 [n, 1]    the expert of each leaf, depth first: each expert once
//
// The key expert_shortlist_size, one or one a layer of the file, is how many experts' rows of the router are read. Layers without these tensors
// read all. moe.RouteShortlist is the meaning.
const (
	byShortlist   = "shortlist"
	shortNodes    = "ffn_gate_shortlist.weight"
	shortBias     = "ffn_gate_shortlist.bias"
	shortMap      = "ffn_gate_shortlist_map.weight"
	shortlistSize = "expert_shortlist_size"
)

// shortlisted reads of how many experts layer i reads the router's rows.
func (m *metadata) shortlisted(l *LayerSpec, i int) error {
	size, key := int64(-1), m.prefix+shortlistSize
	sizes, err := m.c.Meta.Ints(key)
	m.keep(err)
	switch {
	case m.err != nil:
		return m.err
	case len(sizes) == 1:
		size = sizes[0]
	case i < len(sizes):
		size = sizes[i]
	}
	r := l.Router
	if err := r.Subset(); err != nil {
		return fmt.Errorf("%w: layer %d: a shortlist for its router: %w", ErrAssumption, i, err)
	}
	if r.Experts < 2 || size < int64(r.K) || size > int64(r.Experts) {
		return fmt.Errorf("%w: layer %d: key %q is %d for a choice of %d of %d experts", ErrSpec, i, key, size, r.K, r.Experts)
	}
	l.Shortlist = int(size)
	return nil
}

// shortlist brings a router and the tree before it to the device, in plain order.
func (l *loader) shortlist(s *LayerSpec, dim int, name func(string) string) *moe.RouteShortlist {
	n := s.Router.Experts
	leaves, order := make([]int32, 2*n-1), moe.TreeSpec{Experts: n}.LeafOrder()
	for i, e := range l.table(name(shortMap), n, 1, func(v []int32) error { return eachOnce(v, n) }).I32() {
		leaves[order[i]] = e
	}
	o := &moe.RouteShortlist{Spec: *s.Router, Size: s.Shortlist, Leaves: l.upload(tensor.FromI32(1, len(leaves), leaves))}
	o.W, o.Nodes = l.upload(widened(l.host(name(gateTensor), n, dim))), l.upload(widened(l.host(name(shortNodes), n-1, dim)))
	o.NodeBias = l.upload(widened(l.host(name(shortBias), 1, n-1)))
	return o
}

// eachOnce says what keeps numbers from being those from 0 to n-1 in some order.
func eachOnce(v []int32, n int) error {
	seen := make([]bool, n)
	for i, e := range v {
		if e < 0 || int(e) >= n || seen[e] {
			return fmt.Errorf("leaf %d leads to expert %d of %d, or another leaf does", i, e, n)
		}
		seen[e] = true
	}
	return nil
}

// ShortlistTensors are what a file holds of a shortlist of layer i.
func ShortlistTensors(i int, l *moe.Shortlist) []store.Tensor {
	n := len(l.NodeBias) + 1
	order := moe.TreeSpec{Experts: n}.LeafOrder()
	leaves := make([]int32, n)
	for j, q := range order {
		leaves[j] = l.Leaves[q]
	}
	tensorOf := func(name string, m tensor.Mat, shape ...int) store.Tensor {
		return store.Tensor{Name: fmt.Sprintf("blk.%d.%s", i, name), Format: m.Format, Shape: shape, Data: m.Raw()}
	}
	dim := len(l.Nodes) / (n - 1)
	return []store.Tensor{
		tensorOf(shortNodes, tensor.FromF32(n-1, dim, l.Nodes), n-1, dim), tensorOf(shortBias, tensor.FromF32(1, n-1, l.NodeBias), n-1),
		tensorOf(shortMap, tensor.FromI32(n, 1, leaves), n, 1),
	}
}

// ShortlistKeys are what a file of an architecture says of its shortlists, by layer; sizes are 0 in layers without one.
func ShortlistKeys(arch string, sizes []int32) store.Meta {
	return store.Meta{arch + "." + routerType: byShortlist, arch + "." + shortlistSize: sizes}
}
