package tensor

// Gather picks rows: y[i] = x[rows[i]]. The last layers of a step run on the wanted rows only.
type Gather struct {
	X    Mat // any rows x dim, F32
	Rows Mat // picked x 1, I32; each a row of X
	Y    Mat // picked x dim, F32
	N    Mat // 1 x 1, I32: picked rows in use
}

// Reference copies row by row.
func (o *Gather) Reference() {
	x, rows, y, dim := o.X.F32(), o.Rows.I32(), o.Y.F32(), o.X.Cols
	for i := range Live(o.N, o.Y.Rows) {
		from := int(rows[i])
		copy(y[i*dim:(i+1)*dim], x[from*dim:(from+1)*dim])
	}
}

// Operands lists x, the row numbers and the count, then y.
func (o *Gather) Operands() (in, out []*Mat) { return []*Mat{&o.X, &o.Rows, &o.N}, []*Mat{&o.Y} }

// Cost counts one read and one write of the picked rows.
func (o *Gather) Cost() (bytes, flops int64) {
	return 2 * int64(Live(o.N, o.Y.Rows)) * int64(o.Y.RowBytes()), 0
}
