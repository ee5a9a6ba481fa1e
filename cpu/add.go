//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/tensor"

func fillAdd(e *entry, o *tensor.Add) {
	e.runs(e.kernels.add)
	e.operands(o.X, o.Y, o.N)
	e.numbers(o.Y.Rows, o.Y.Cols)
}
