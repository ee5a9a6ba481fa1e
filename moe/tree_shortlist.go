package moe

import (
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// RouteShortlist is Route over the experts that a tree holds likeliest: a row reads the tree's nodes from the root on, the likeliest branch first,
// until it has come to Size leaves, then the router's own rows of those experts, and chooses among them as the router does. Weights are the
// router's own wherever it would have chosen the same experts. Its matrices are in plain order on every device.
type RouteShortlist struct {
	X        tensor.Mat // rows x dim, F32: normed hidden states
	Nodes    tensor.Mat // (experts-1) x dim, F32: hyperplanes by heap numbers; a row goes left with the logistic function of its distance
	NodeBias tensor.Mat // 1 x (experts-1), F32
	Leaves   tensor.Mat // 1 x (2*experts-1), I32: by heap number, the expert of a leaf; what stands at nodes does not count
	W        tensor.Mat // experts x dim, F32: the router's
	Bias     tensor.Mat // 1 x experts, F32: part of the logits; may be absent
	Select   tensor.Mat // 1 x experts, F32: added to scores for the choice only; may be absent
	Phys     tensor.Mat // 1 x experts, I32: see ExpertMap; -1 is never chosen
	IDs      tensor.Mat // rows x K, I32: see Route
	Weights  tensor.Mat // rows x K, F32: see Route
	Read     tensor.Mat // rows x 2, I32: rows of Nodes and W read; logits that are NaN or +inf
	N        tensor.Mat // 1 x 1, I32: rows in use
	Spec     RouterSpec // see Subset
	Size     int        // experts whose logits are read, K or more

	Wish  tensor.Mat // wishes x WishK+layers, F32: see Route
	Of    tensor.Mat // rows x 1, I32: likewise
	Mass  tensor.Mat // rows x 1, F32: likewise
	Layer int        // which of the layers of Wish this is
}

// Subset says why a router's weights and choice among some experts are not those that it gives to them among all; nil when they are.
func (s RouterSpec) Subset() error {
	switch {
	case s.Groups > 1:
		return fmt.Errorf("groups are judged by all of their experts")
	case s.Weight == SparseMixer:
		return fmt.Errorf("bands take in all experts")
	case s.Score == Softmax && s.Weight == FromScore && !(s.Norm && s.K >= s.NormMinK):
		return fmt.Errorf("a softmax that is not renormalised sums over all experts")
	}
	return nil
}

// Reference goes down the tree row by row.
func (o *RouteShortlist) Reference() {
	k, dim, phys := o.Spec.K, o.X.Cols, o.Phys.I32()
	for i := range tensor.Live(o.N, o.X.Rows) {
		w := visit{x: o.X.F32()[i*dim : (i+1)*dim]}
		listed, nodes := o.list(&w)
		z, some := make([]float32, o.Spec.Experts), make([]int32, o.Spec.Experts)
		for e := range some {
			some[e] = -1
		}
		for _, e := range listed {
			z[e], some[e] = float32(wideDot(w.x, o.W.F32()[int(e)*dim:(int(e)+1)*dim])), phys[e]
			if o.Bias.Present() {
				z[e] += o.Bias.F32()[e]
			}
		}
		out := Choice{o.IDs.I32()[i*k : (i+1)*k], o.Weights.F32()[i*k : (i+1)*k]}
		share, bad := o.Spec.choose(z, floats(o.Select), some, out, wishOf(o.Wish, o.Of, i, o.Layer))
		if o.Mass.Present() {
			o.Mass.F32()[i] = float32(share)
		}
		o.Read.I32()[2*i], o.Read.I32()[2*i+1] = int32(nodes+len(listed)), int32(bad+w.bad)
	}
}

// list is the likeliest live experts, and how many nodes were read to find them. Of branches that are as likely the one found first is taken.
func (o *RouteShortlist) list(w *visit) (experts []int32, nodes int) {
	n := o.Spec.Experts - 1
	frontier := []crossing{{0, 1}}
	for len(frontier) > 0 && len(experts) < o.Size {
		best := 0
		for i, c := range frontier {
			if c.mass > frontier[best].mass {
				best = i
			}
		}
		at := frontier[best]
		frontier = append(frontier[:best], frontier[best+1:]...)
		if at.q >= n {
			if e := o.Leaves.I32()[at.q]; o.Phys.I32()[e] >= 0 {
				experts = append(experts, e)
			}
			continue
		}
		left := sigmoid(w.logit(o.Nodes, o.NodeBias, at.q))
		if left != left {
			left = 0
		}
		nodes++
		frontier = append(frontier, crossing{2*at.q + 1, at.mass * left}, crossing{2*at.q + 2, at.mass * (1 - left)})
	}
	return experts, nodes
}

// Operands lists inputs, tree, router, map, wishes and count, then ids, factors, what was read and shares.
func (o *RouteShortlist) Operands() (in, out []*tensor.Mat) {
	in = []*tensor.Mat{&o.X, &o.Nodes, &o.NodeBias, &o.Leaves, &o.W, &o.Bias, &o.Select, &o.Phys, &o.Wish, &o.Of, &o.N}
	return in, []*tensor.Mat{&o.IDs, &o.Weights, &o.Read, &o.Mass}
}

// Cost counts the rows of experts that are read and a path to each, and two operations a product.
func (o *RouteShortlist) Cost() (bytes, flops int64) {
	rows, depth := int64(tensor.Live(o.N, o.X.Rows)), math.Ceil(math.Log2(float64(o.Spec.Experts)/float64(o.Size)))
	products := rows * int64(o.Size*2+int(max(depth, 0))) * int64(o.X.Cols)
	return 4*products + rows*int64(o.X.RowBytes()), 2 * products
}
