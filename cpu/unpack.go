//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillUnpack(e *entry, o *attention.Unpack) {
	c, p, l, t := o.From, o.From.Pruned, o.Layout, &o.Layout.Tiles
	pages := l.Pages[o.Lane]
	e.runs(e.kernels.unpack)
	e.operands(c.K, p.K, o.To.K, pages, l.Dense, l.Seq, l.Pos, t.First, t.N, t.Policy)
	e.numbers(t.Policy.Rows, c.Heads, c.Dim, pages.Cols, c.Stride, p.Keep, p.Stride, o.To.Stride, o.Serves)
}
