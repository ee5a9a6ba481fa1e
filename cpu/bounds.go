//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillKeyBounds(e *entry, o *attention.KeyBounds) {
	c, l := o.Cache, o.Layout
	pages := l.Pages[o.Lane]
	e.runs(e.kernels.key_bounds)
	e.operands(c.K, o.Bounds, pages, l.Seq, l.Pos, l.Rows, *l.Own(c, o.Lane))
	e.numbers(l.Pos.Rows, c.Heads, c.Dim, pages.Cols, stored(c), c.Stride, o.Unit, half(o.Bounds))
}
