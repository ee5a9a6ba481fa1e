package tensor

// Add is the residual addition: y += x.
type Add struct {
	X Mat // rows x dim, F32
	Y Mat // rows x dim, F32; read and written
	N Mat // 1 x 1, I32: rows in use
}

// Reference works value by value.
func (o *Add) Reference() {
	x, y := o.X.F32(), o.Y.F32()
	for i := range Live(o.N, o.Y.Rows) * o.Y.Cols {
		y[i] += x[i]
	}
}

// Operands lists x, y and count, then y.
func (o *Add) Operands() (in, out []*Mat) { return []*Mat{&o.X, &o.Y, &o.N}, []*Mat{&o.Y} }

// Cost counts two reads and one write of the rows, and one operation a value.
func (o *Add) Cost() (bytes, flops int64) {
	n := int64(Live(o.N, o.Y.Rows) * o.Y.Cols)
	return 12 * n, n
}
