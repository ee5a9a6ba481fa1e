package moe

import "github.com/winnow-llm/winnow/tensor"

// Tally counts which experts the rows of a step chose, and what was wrong with their logits. It works on the choices of any router.
type Tally struct {
	IDs    tensor.Mat // rows x K, I32: router rows, -1 = none
	Logits tensor.Mat // rows x experts, F32; may be absent
	Counts tensor.Mat // 1 x experts+TallyColumns, I32: added to, and wraps; by router row how many rows chose it, then the columns below
	N      tensor.Mat // 1 x 1, I32: rows in use
}

// Columns of Tally.Counts behind those of the experts.
const (
	TallyRows     = iota // rows that came by
	TallyNaN             // of their logits, those that are NaN
	TallySteps           // steps, which is how often the op ran with a row
	TallyDistinct        // experts that somebody in the step chose, each once a step
	TallyColumns         // how many columns these are
)

// Reference counts one by one.
func (o *Tally) Reference() {
	counts := o.Counts.I32()
	experts, rows := len(counts)-TallyColumns, tensor.Live(o.N, o.IDs.Rows)
	seen := make([]bool, experts)
	for _, id := range o.IDs.I32()[:rows*o.IDs.Cols] {
		if id < 0 {
			continue
		}
		if counts[id]++; !seen[id] {
			seen[id] = true
			counts[experts+TallyDistinct]++
		}
	}
	if counts[experts+TallyRows] += int32(rows); rows > 0 {
		counts[experts+TallySteps]++
	}
	if o.Logits.Present() {
		for _, v := range o.Logits.F32()[:rows*experts] {
			if v != v {
				counts[experts+TallyNaN]++
			}
		}
	}
}

// Operands lists choices, logits, the counts so far and the number of rows, then the counts.
func (o *Tally) Operands() (in, out []*tensor.Mat) {
	return []*tensor.Mat{&o.IDs, &o.Logits, &o.Counts, &o.N}, []*tensor.Mat{&o.Counts}
}

// Cost counts one read of choices and logits.
func (o *Tally) Cost() (bytes, flops int64) {
	rows := int64(tensor.Live(o.N, o.IDs.Rows))
	bytes = rows * int64(o.IDs.RowBytes())
	if o.Logits.Present() {
		bytes += rows * int64(o.Logits.RowBytes())
	}
	return bytes, 0
}
