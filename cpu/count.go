//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/attention"

func fillCount(e *entry, o *attention.Count) {
	e.runs(e.kernels.count)
	only := attention.Plan{Tile: o.Plan.Tile, Sink: o.Plan.Sink, Local: o.Plan.Local, BlockN: o.Plan.BlockN, KeyN: o.Plan.KeyN, Groups: o.Plan.Groups}
	e.plan(&only, o.Heads)
	e.operands(o.Layout.Seq, o.Layout.Pos, o.Layout.Rows, o.Y)
	e.numbers(o.Layout.Pos.Rows, o.Y.Rows)
}
