//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillSelectS2(e *entry, o *attention.SelectS2) {
	e.runs(e.kernels.select_s2)
	e.tiles(o.Layout, o.Plan, o.Serves, o.Local)
	e.operands(o.Columns)
	e.numbers(o.Stride)
}
