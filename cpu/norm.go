//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/tensor"

func fillNorm(e *entry, o *tensor.Norm) {
	e.runs(e.kernels.norm)
	e.operands(o.X, o.W, o.Y, o.N)
	e.numbers(o.X.Rows/o.Groups, o.Groups, o.X.Cols)
	e.floats(o.Eps)
}
