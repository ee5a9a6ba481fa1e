package attentiontest

import (
	"fmt"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// SelectS2 plans columns of pages; a row of the case is a tile.
func SelectS2(tiles []Tile, local, stride int, columns []int32) tensortest.Case {
	name := tensortest.Labels("s2", len(tiles), "tiles", tiles[0].First, "local", local, "stride", stride, fmt.Sprint(columns))
	return tensortest.Case{Name: name, Rows: len(tiles), Make: func(w *tensortest.World) tensortest.Trial {
		l := tiled(w, tiles, []int32{1 << 20, 1 << 20}, tensor.FromI32(2, 1, []int32{0, 1}))
		o := &attention.SelectS2{
			Layout: l, Plan: empty(w, l, Room{len(columns), 40, 3}), Columns: tensor.FromI32(len(columns), 1, columns),
			Serves: 1, Stride: stride, Local: float32(local),
		}
		return tensortest.Trial{Op: o, ByRow: byTile(o.Plan)}
	}}
}

func s2s() []tensortest.Case {
	var cases []tensortest.Case
	for _, n := range edges {
		tiles := append(TilesOf(0, n-1, n+140, 1, Own), TilesOf(1, n, n+1, 0, Own)...)
		tiles = append(tiles, TilesOf(1, n+2000, n+2001, 1, 3)...)
		cases = append(cases, SelectS2(tiles, 1, 1, []int32{0, -1}), SelectS2(tiles, 2, 4, []int32{0, 3, 2, -1}), SelectS2(tiles, 9, 5, []int32{4}))
	}
	return cases
}
