// Package attention reads the past: the paged cache of keys and values, the plan of which keys a row reads, the selectors that write
// plans, and the one operation that executes them.
package attention

import "github.com/winnow-llm/winnow/tensor"

// PageTokens is the number of tokens in a page of the cache.
const PageTokens = 64

// Layout is one step's ragged batch: whose rows these are, how much past each sequence has and where it lies. It is planned on the
// host and written to the device once a step; its addresses are fixed.
//
// Rows Start[s] to Start[s+1] are sequence s, which has Past[s] tokens cached before them; so a step with Past 0 and three rows
// computes positions 0, 1, 2. Sequence numbers are those of the step, not of the engine.
type Layout struct {
	Start tensor.Mat   // sequences+1 x 1, I32
	Past  tensor.Mat   // sequences x 1, I32
	Pages []tensor.Mat // sequences x pages, I32: one page table a lane, logical page -> page of the cache; most models have one lane
	State tensor.Mat   // sequences x 1, I32: slot of carried state (recurrent layers), -1 = none
	Seq   tensor.Mat   // rows x 1, I32: the row's sequence; follows from Start
	Pos   tensor.Mat   // rows x 1, I32: the row's position, Past[seq] + row - Start[seq]; follows from Start and Past
	Rows  tensor.Mat   // 1 x 1, I32: rows in use
}

// Operands lists what an op reads that needs the batch's layout in one lane.
func (l *Layout) operands(lane int) []*tensor.Mat {
	return []*tensor.Mat{&l.Pages[lane], &l.Seq, &l.Pos, &l.Rows}
}
