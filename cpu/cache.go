//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillAppend(e *entry, o *attention.Append) {
	c, l := o.Cache, o.Layout
	pages := *l.Own(c, o.Lane)
	e.runs(e.kernels.append)
	e.operands(o.K, o.V, c.K, c.V, pages, l.Seq, l.Pos, l.Rows)
	e.numbers(o.K.Rows, c.Heads, c.Dim, pages.Cols, stored(c), c.Stride)
}
