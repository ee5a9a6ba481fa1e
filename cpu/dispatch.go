//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/moe"

func fillDispatch(e *entry, o *moe.Dispatch) {
	e.runs(e.kernels.dispatch)
	p := o.Plan
	e.operands(o.IDs, o.Weights, o.Phys, p.Offset, p.Token, p.Place, p.Weight, o.N)
	e.numbers(o.IDs.Rows, o.IDs.Cols, o.Experts, p.Offset.Rows)
}
