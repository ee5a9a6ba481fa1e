//go:build linux && cgo && (amd64 || arm64)

package cpu

// #include "stored.h"
import "C"

import (
	"fmt"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

func fillAttend(e *entry, o *attention.Attend) {
	c, p, l := o.Cache, o.Plan, o.Layout
	pages := l.Pages[o.Lane]
	if o.Q.Cols != o.Heads*c.Dim {
		panic(fmt.Sprintf("winnow: bug: cpu: queries %s for %d heads of %d", o.Q, o.Heads, c.Dim))
	}
	e.runs(e.kernels.attend)
	e.operands(o.Q, o.Y, c.K, c.V, pages, l.Seq, l.Pos, l.Rows, p.Tile, p.Sink, p.Local,
		p.BlockAt, p.BlockN, p.Blocks, p.KeyAt, p.KeyN, p.Keys, l.LanesOf(c))
	base := c.Base
	if c.Pruned != nil {
		base = c.Pruned.Base
	}
	e.numbers(o.Q.Rows, o.Heads, c.Heads, c.Dim, p.Groups, pages.Cols, stored(c), c.Stride, l.Lanes.Cols, base)
	if p := c.Pruned; p != nil {
		e.operands(l.Dense, p.K, p.V)
		e.numbers(p.Keep, p.Stride)
	}
	e.floats(o.Scale)
}

// stored is how a cache stores numbers, see stored.h.
func stored(c *attention.Cache) int {
	switch c.Format {
	case quant.F32:
		return C.WN_CACHE_F32
	case quant.F16:
		return C.WN_CACHE_F16
	case quant.Q8_0:
		return C.WN_CACHE_Q8_0
	case quant.Q4_0:
		return C.WN_CACHE_Q4_0
	}
	panic(fmt.Sprintf("winnow: bug: cpu: a cache of %s", c.Format))
}

// half is 1 for a matrix of F16, 0 for one of F32.
func half(m tensor.Mat) int {
	switch m.Format {
	case quant.F16:
		return 1
	case quant.F32:
		return 0
	}
	panic(fmt.Sprintf("winnow: bug: cpu: numbers beside a cache as %s", m))
}
