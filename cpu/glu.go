//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/tensor"

func fillGLU(e *entry, o *tensor.GLU) {
	e.runs(e.kernels.glu)
	e.operands(o.Gate, o.Up, o.Y, o.N)
	e.numbers(o.Y.Rows, o.Y.Cols)
}
