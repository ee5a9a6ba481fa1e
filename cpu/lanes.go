//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillMoveTiles(e *entry, o *attention.MoveTiles) {
	e.runs(e.kernels.move_tiles)
	e.operands(o.Tiles, o.Moves, o.N)
	e.numbers(o.Moves.Rows, o.Tiles.RowBytes(), o.Tiles.Rows)
}
