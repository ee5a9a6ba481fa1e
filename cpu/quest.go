//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillSelectQuest(e *entry, o *attention.SelectQuest) {
	pages := o.Layout.Pages[o.Lane]
	e.runs(e.kernels.select_quest)
	e.tiles(o.Layout, o.Plan, o.Serves, o.Budget)
	e.operands(o.Q, o.Bounds, pages, o.Layout.Seq)
	e.numbers(o.Heads, o.KV, o.Q.Cols/o.Heads, pages.Cols, half(o.Bounds), o.Unit)
}
