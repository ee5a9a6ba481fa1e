//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillSelectWindow(e *entry, o *attention.SelectWindow) {
	e.runs(e.kernels.select_window)
	e.operands(o.Pos, o.Local, o.N)
	e.numbers(o.Pos.Rows, o.Width)
}
