//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/moe"
)

// Numbers of the router's choices, in the order of the enums of router_kernel.h.
var (
	scoreKinds  = []moe.Score{moe.Softmax, moe.Sigmoid, moe.SqrtSoftplus, moe.Identity}
	weightKinds = []moe.Weight{moe.FromScore, moe.SoftmaxTopK, moe.SigmoidTopK, moe.SparseMixer}
)

func fillRoute(e *entry, o *moe.Route) {
	s := o.Spec
	score, weight := slices.Index(scoreKinds, s.Score), slices.Index(weightKinds, s.Weight)
	if score < 0 || weight < 0 || o.W.Rows != s.Experts || o.W.Cols != o.X.Cols {
		panic(fmt.Sprintf("winnow: bug: cpu: a router of %s for %s with %+v", o.W, o.X, s))
	}
	w := weights(&o.W)
	e.runs(e.kernels.route)
	e.operands(o.X, o.W, o.Bias, o.Select, o.Phys, o.Logits, o.IDs, o.Weights, o.N, o.Wish, o.Of, o.Mass)
	e.numbers(o.X.Rows, o.X.Cols, s.Experts, int(w.kind), s.K, score, weight, max(s.Groups, 1), s.GroupsKept)
	top2, norm := 0, 0
	if s.GroupScore == moe.GroupTop2Sum {
		top2 = 1
	}
	if s.Norm && s.K >= s.NormMinK {
		norm = 1
	}
	e.numbers(top2, norm, o.Wish.Rows, o.Wish.Cols, moe.WishK+o.Layer)
	e.floats(s.Scale, s.NormEps, s.Band)
}
