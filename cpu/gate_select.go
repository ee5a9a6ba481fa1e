//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillSelectPages(e *entry, o *attention.SelectPages) {
	pages := o.Layout.Pages[o.Lane]
	e.runs(e.kernels.select_pages)
	e.tiles(o.Layout, o.Plan, o.Serves, o.Knob)
	e.operands(o.Queries, o.Keys, o.Tails, o.Layout.Prompt, pages, o.Layout.Seq)
	e.numbers(o.Heads, o.KeyHeads, o.Queries.Cols, pages.Cols, int(o.Rule), o.Relax, o.Sink, o.Dense)
	e.floats(o.Fixed, o.Scale)
}
