//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/tensor"

func fillEmbed(e *entry, o *tensor.Embed) {
	e.runs(e.kernels.embed)
	table := weights(&o.Table)
	e.operands(o.IDs, o.Table, o.Y, o.N)
	e.numbers(o.Y.Rows, o.Table.Cols, o.Table.Rows, int(table.kind))
}
