//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"fmt"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/tensor"
)

func fillSelectXAttention(e *entry, o *attention.SelectXAttention) {
	e.runs(e.kernels.select_xattention)
	e.tiles(o.Layout, o.Plan, o.Serves, o.Gamma)
	e.scored(o.Cache, o.Layout, o.Lane, o.Q)
	e.numbers(o.Stride, o.Block, o.Cut)
	e.floats(o.Scale)
	if o.Q.Cols != o.Plan.Groups*o.Cache.Dim {
		panic(fmt.Sprintf("winnow: bug: cpu: queries %s for %d heads of %d", o.Q, o.Plan.Groups, o.Cache.Dim))
	}
}

// scored appends what kernels take that score queries with keys: queries, keys, the page table, the rows' sequences; then key-value heads,
// dim, columns of the page table, 1 where the cache is F16, its stride.
func (e *entry) scored(c *attention.Cache, l *attention.Layout, lane int, q tensor.Mat) {
	pages := l.Pages[lane]
	e.operands(q, c.K, pages, l.Seq)
	e.numbers(c.Heads, c.Dim, pages.Cols, half(c.K), c.Stride)
}
