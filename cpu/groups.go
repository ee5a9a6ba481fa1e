//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"fmt"

	"github.com/winnow-llm/winnow/attention"
)

// groups appends what the kernels of selectors take that score queries with keys and plan groups of tiles, see scored.h.
func (e *entry) groups(g *attention.Groups, knob float32) {
	e.tiles(g.Layout, g.Plan, g.Serves, knob)
	if g.Q.Cols != g.Heads*g.Cache.Dim {
		panic(fmt.Sprintf("winnow: bug: cpu: queries %s for %d heads of %d", g.Q, g.Heads, g.Cache.Dim))
	}
	c, pages := g.Cache, g.Layout.Pages[g.Lane]
	e.operands(g.Q, c.K, pages, g.Layout.Seq)
	e.numbers(g.Heads, c.Heads, c.Dim, pages.Cols, c.Stride, stored(c), g.Size)
	e.floats(g.Scale)
}

// byHead appends it for kernels that plan each query head by itself.
func (e *entry) byHead(g *attention.Groups, knob float32) {
	if g.Plan.Groups != g.Heads {
		panic(fmt.Sprintf("winnow: bug: cpu: a plan of %d groups for %d heads", g.Plan.Groups, g.Heads))
	}
	e.groups(g, knob)
}
