//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/tensor"

func fillAngles(e *entry, o *tensor.Angles) {
	e.runs(e.kernels.angles)
	e.operands(o.Pos, o.Freq, o.Y, o.N)
	e.numbers(o.Pos.Rows, o.Freq.Cols)
	e.floats(o.Scale)
}

func fillRope(e *entry, o *tensor.Rope) {
	e.runs(e.kernels.rope)
	halves := 0
	if o.Pairs == tensor.Halves {
		halves = 1
	}
	e.operands(o.X, o.Angles, o.N)
	e.numbers(o.X.Rows/o.Heads, o.Heads, o.X.Cols, o.Angles.Cols/2, halves)
}
