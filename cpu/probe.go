//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillProbe(e *entry, o *attention.Probe) {
	c, l := o.Cache, o.Layout
	pages := l.Pages[o.Lane]
	e.runs(e.kernels.probe)
	e.plan(o.Plan, o.Heads)
	e.operands(o.Q, o.Rows, o.N, o.Y, c.K, pages, l.Seq, l.Pos)
	e.numbers(o.Rows.Rows, o.Q.Rows, c.Heads, c.Dim, pages.Cols, stored(c), c.Stride)
	if p := c.Pruned; p != nil {
		e.operands(p.K, l.Dense)
		e.numbers(p.Keep, p.Stride)
	}
	e.floats(o.Scale)
}

// plan appends what those take that look at a plan, see plan.h.
func (e *entry) plan(p *attention.Plan, heads int) {
	e.operands(p.Tile, p.Sink, p.Local, p.BlockAt, p.BlockN, p.Blocks, p.KeyAt, p.KeyN, p.Keys)
	e.numbers(p.Groups, heads)
}
