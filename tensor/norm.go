package tensor

import "math"

// Norm is the root-mean-square norm (Zhang and Sennrich 2019): y = x / sqrt(mean(x^2) + eps) * w, each row by itself.
//
// With Groups above 1 a row of the batch is that many rows of X: the heads of a query, each normed alone.
type Norm struct {
	X      Mat // rows*groups x dim, F32
	W      Mat // 1 x dim, F32
	Y      Mat // rows*groups x dim, F32; may be X
	N      Mat // 1 x 1, I32: rows in use, groups not counted
	Groups int
	Eps    float32
}

// Reference sums the squares in float64.
func (o *Norm) Reference() {
	x, w, y, dim := o.X.F32(), o.W.F32(), o.Y.F32(), o.X.Cols
	for i := range Live(o.N, o.X.Rows/o.Groups) * o.Groups {
		row, out := x[i*dim:(i+1)*dim], y[i*dim:(i+1)*dim]
		var sum float64
		for _, v := range row {
			sum += float64(v) * float64(v)
		}
		scale := float32(1 / math.Sqrt(sum/float64(dim)+float64(o.Eps)))
		for j, v := range row {
			out[j] = v * scale * w[j]
		}
	}
}

// Operands lists x, w and count, then y.
func (o *Norm) Operands() (in, out []*Mat) { return []*Mat{&o.X, &o.W, &o.N}, []*Mat{&o.Y} }

// Cost counts one read and one write of the rows, and four operations a value.
func (o *Norm) Cost() (bytes, flops int64) {
	n := int64(Live(o.N, o.X.Rows/o.Groups) * o.Groups * o.X.Cols)
	return 8 * n, 4 * n
}
