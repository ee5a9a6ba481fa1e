//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillSelectRanges(e *entry, o *attention.SelectRanges) {
	e.runs(e.kernels.select_ranges)
	e.tiles(o.Layout, o.Plan, o.Serves, o.Recent)
	e.operands(o.Whole)
	e.numbers(o.Sink)
}
