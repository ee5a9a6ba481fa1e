//go:build linux && cgo && (amd64 || arm64)

package cpu

import "github.com/winnow-llm/winnow/moe"

func fillTally(e *entry, o *moe.Tally) {
	e.runs(e.kernels.tally)
	e.operands(o.IDs, o.Logits, o.Counts, o.N)
	e.numbers(o.IDs.Rows, o.IDs.Cols, o.Counts.Cols-moe.TallyColumns)
}
