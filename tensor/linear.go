package tensor

import "github.com/winnow-llm/winnow/quant"

// Linear is a matrix product: y = x W^T + b, W as checkpoints store it, one row an output.
//
// Its meaning is exact in the weights and the inputs. A device may round each row of X once, by blocks of that row alone, when
// W's format is an integer one: see Tolerance.
type Linear struct {
	X Mat // rows x in, F32
	W Mat // out x in, any format
	B Mat // 1 x out, F32; may be absent
	Y Mat // rows x out, F32
	N Mat // 1 x 1, I32: rows in use
}

// Reference multiplies in float32 products and float64 sums.
func (o *Linear) Reference() {
	x, y, rows := o.X.F32(), o.Y.F32(), Live(o.N, o.X.Rows)
	w := make([]float32, o.W.Cols)
	for j := range o.W.Rows {
		o.W.RowF32(w, j)
		for i := range rows {
			v := dot(x[i*o.X.Cols:(i+1)*o.X.Cols], w)
			if o.B.Present() {
				v += o.B.F32()[j]
			}
			y[i*o.Y.Cols+j] = v
		}
	}
}

func dot(a, b []float32) float32 {
	var sum float64
	for i, v := range a {
		sum += float64(v) * float64(b[i])
	}
	return float32(sum)
}

// Operands lists x, w, b and count, then y.
func (o *Linear) Operands() (in, out []*Mat) {
	return []*Mat{&o.X, &o.W, &o.B, &o.N}, []*Mat{&o.Y}
}

// Cost counts one read of the weights and of the inputs, one write of the outputs, and two operations a product.
func (o *Linear) Cost() (bytes, flops int64) {
	rows := int64(Live(o.N, o.X.Rows))
	return int64(o.W.Rows)*int64(o.W.RowBytes()) + rows*int64(o.X.RowBytes()+o.Y.RowBytes()),
		2 * rows * int64(o.W.Rows) * int64(o.W.Cols)
}

// Tolerance is the error that a device may make in a product with weights of a format, as a share of the norm of the input row
// times the norm of the weight row. Formats of whole numbers let the device round its inputs to 12 bits by blocks.
func Tolerance(weights *quant.Format) float64 {
	if weights.Block > 1 {
		return 5e-4
	}
	return 2e-6
}
