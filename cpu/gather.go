//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/tensor"

func fillGather(e *entry, o *tensor.Gather) {
	e.runs(e.kernels.gather)
	e.operands(o.X, o.Rows, o.Y, o.N)
	e.numbers(o.Y.Rows, o.X.Cols, o.X.Rows)
}
