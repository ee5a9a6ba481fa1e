package attention

import "github.com/winnow-llm/winnow/tensor"

// Count adds up how much a plan reads of what it could: for each sequence of a step the keys that its rows read and those that they see, over
// all query heads. It looks at the plan alone and touches no key.
type Count struct {
	Y      tensor.Mat // sequences x 2, F32: keys read and keys visible, added to what is there
	Plan   *Plan      // which keys are read
	Layout *Layout    // whose rows these are
	Heads  int        // query heads
}

// Reference sums each sequence's rows as whole numbers, then adds once.
func (o *Count) Reference() {
	y, seq, pos := o.Y.F32(), o.Layout.Seq.I32(), o.Layout.Pos.I32()
	read, visible := make([]int64, o.Y.Rows), make([]int64, o.Y.Rows)
	for i := range tensor.Live(o.Layout.Rows, o.Layout.Pos.Rows) {
		for h := range o.Heads {
			read[seq[i]] += o.reads(o.Plan.row(i, h, o.Heads), int(pos[i]))
			visible[seq[i]] += int64(pos[i]) + 1
		}
	}
	for s := range read {
		if visible[s] > 0 {
			y[2*s] += float32(read[s])
			y[2*s+1] += float32(visible[s])
		}
	}
}

// reads is how many keys a row at position pos reads under plan row r.
func (o *Count) reads(r, pos int) int64 {
	n := o.Plan.Sink.I32()[r] + int32(pos) + 1 - o.Plan.Local.I32()[r]
	if o.Plan.BlockN.Present() {
		n += PageTokens * o.Plan.BlockN.I32()[r]
	}
	if o.Plan.KeyN.Present() {
		n += o.Plan.KeyN.I32()[r]
	}
	return int64(n)
}

// Operands lists the plan's ranges and lengths and the layout; the sums are read and written.
func (o *Count) Operands() (in, out []*tensor.Mat) {
	out = []*tensor.Mat{&o.Y}
	p, l := o.Plan, o.Layout
	return append([]*tensor.Mat{&p.Tile, &p.Sink, &p.Local, &p.BlockN, &p.KeyN, &l.Seq, &l.Pos, &l.Rows}, out...), out
}

// Cost counts two numbers a row, four a plan row and a few sums a row and head.
func (o *Count) Cost() (bytes, flops int64) {
	rows := int64(tensor.Live(o.Layout.Rows, o.Layout.Pos.Rows))
	return 8*rows + 16*int64(o.Plan.rows()), 4 * rows * int64(o.Heads)
}
