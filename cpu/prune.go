//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillPrune(e *entry, o *attention.Prune) {
	c, l := o.Cache, o.Layout
	pages := l.Pages[o.Lane]
	e.runs(e.kernels.prune)
	e.operands(c.K, c.V, c.Pruned.K, c.Pruned.V, pages, l.Dense, l.Seq, l.Pos, l.Rows)
	e.numbers(l.Pos.Rows, c.Heads, c.Dim, pages.Cols, c.Stride, c.Pruned.Keep, c.Pruned.Stride)
}
