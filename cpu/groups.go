//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

// groups appends what the kernels of selectors take that plan groups of tiles, see groups.h.
func (e *entry) groups(g *attention.Groups, knob float32) {
	e.tiles(g.Layout, g.Plan, g.Serves, knob)
	c, pages := g.Cache, g.Layout.Pages[g.Lane]
	e.operands(g.Q, c.K, pages, g.Layout.Seq)
	e.numbers(g.Heads, c.Heads, c.Dim, pages.Cols, c.Stride, half(c.K), g.Size)
	e.floats(g.Scale)
}
