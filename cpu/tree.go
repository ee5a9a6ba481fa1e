//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"fmt"

	"github.com/winnow-llm/winnow/moe"
)

func fillRouteTree(e *entry, o *moe.RouteTree) {
	s, dim := o.Spec, o.X.Cols
	wrong := s.Nodes() > 0 && (o.Nodes.Rows != s.Trees*s.Nodes() || o.Nodes.Cols != dim) || o.Leaves.Present() && o.Leaves.Cols != dim
	if s.Check() != nil || wrong || o.Places.Rows != s.Trees*(2*s.Experts-1) {
		panic(fmt.Sprintf("winnow: bug: cpu: trees of %s and %s for %s with %+v", o.Nodes, o.Leaves, o.X, s))
	}
	e.runs(e.kernels.route_tree)
	e.operands(o.X, o.Nodes, o.NodeBias, o.Leaves, o.LeafBias, o.Places, o.IDs, o.Weights, o.Active, o.N)
	e.numbers(o.X.Rows, dim, s.Experts, s.Trees, o.IDs.Cols)
	e.floats(s.Gamma, s.Cut)
}
