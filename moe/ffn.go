package moe

import "github.com/winnow-llm/winnow/tensor"

// FFN runs the chosen experts, each a SwiGLU network, and adds up their outputs in the order of the choices:
// y[t] = sum over slots s of weight[t,s] * down(silu(gate x) * up x). The order is fixed, so a row's bits do not depend on the others.
type FFN struct {
	X      tensor.Mat // rows x dim, F32
	Y      tensor.Mat // rows x dim, F32
	Hidden tensor.Mat // rows*K x width, F32: the experts' hidden rows by dispatched row, written for who wants to see them
	Out    tensor.Mat // rows*K x dim, F32: the experts' outputs by dispatched row
	Plan   *DispatchPlan
	Banks  []Bank
	N      tensor.Mat // 1 x 1, I32: rows in use
}

// Reference runs expert by expert and row by row.
func (o *FFN) Reference() {
	dim, width := o.X.Cols, o.Hidden.Cols
	offset, token := o.Plan.Offset.I32(), o.Plan.Token.I32()
	hidden, up := o.Hidden.F32(), make([]float32, width)
	for b := range o.Banks {
		bank := &o.Banks[b]
		for e, slot := range bank.Slot {
			if slot < 0 {
				continue
			}
			gate := bank.Gate.Slice(int(slot)*width, int(slot+1)*width)
			upper := bank.Up.Slice(int(slot)*width, int(slot+1)*width)
			down := bank.Down.Slice(int(slot)*dim, int(slot+1)*dim)
			for r := offset[e]; r < offset[e+1]; r++ {
				x, h := o.X.F32()[int(token[r])*dim:][:dim], hidden[int(r)*width:][:width]
				multiply(h, gate, x)
				multiply(up, upper, x)
				for j := range h {
					h[j] = tensor.SwiGLU(h[j], up[j])
				}
				multiply(o.Out.F32()[int(r)*dim:][:dim], down, h)
			}
		}
	}
	o.combine()
}

// combine adds the experts' outputs of each row, weighted, in slot order.
func (o *FFN) combine() {
	k, dim := o.Plan.Place.Cols, o.X.Cols
	place, weight, out := o.Plan.Place.I32(), o.Plan.Weight.F32(), o.Out.F32()
	for i := range tensor.Live(o.N, o.X.Rows) {
		y := o.Y.F32()[i*dim : (i+1)*dim]
		clear(y)
		for s := i * k; s < (i+1)*k; s++ {
			if place[s] < 0 {
				continue
			}
			for d, v := range out[int(place[s])*dim:][:dim] {
				y[d] += weight[s] * v
			}
		}
	}
}

func multiply(y []float32, w tensor.Mat, x []float32) {
	op := tensor.Linear{X: tensor.FromF32(1, len(x), x), W: w, Y: tensor.FromF32(1, len(y), y)}
	op.Reference()
}

// Operands lists inputs, plan, the banks' weights and the count, then hidden rows, expert outputs and y.
func (o *FFN) Operands() (in, out []*tensor.Mat) {
	in = append([]*tensor.Mat{&o.X, &o.N}, o.Plan.operands()...)
	for b := range o.Banks {
		in = append(in, &o.Banks[b].Gate, &o.Banks[b].Up, &o.Banks[b].Down)
	}
	return in, []*tensor.Mat{&o.Hidden, &o.Out, &o.Y}
}

// Cost counts each active expert's weights once, and two operations a product.
func (o *FFN) Cost() (bytes, flops int64) {
	dim, width := int64(o.X.Cols), int64(o.Hidden.Cols)
	if o.Plan.Offset.Buf.Host() == nil {
		return 0, 0
	}
	offset := o.Plan.Offset.I32()
	for b := range o.Banks {
		bank := &o.Banks[b]
		expert := width*int64(bank.Gate.RowBytes()+bank.Up.RowBytes()) + dim*int64(bank.Down.RowBytes())
		for e, slot := range bank.Slot {
			if rows := int64(offset[e+1] - offset[e]); slot >= 0 && rows > 0 {
				bytes += expert
				flops += rows * 6 * dim * width
			}
		}
	}
	return bytes, flops
}
