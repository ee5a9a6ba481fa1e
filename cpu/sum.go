//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/tensor"

func fillSum(e *entry, o *tensor.Sum) {
	e.runs(e.kernels.sum)
	e.operands(o.X, o.Start, o.Y, o.N)
	e.numbers(o.Y.Rows, o.X.Cols, o.X.Rows)
}
