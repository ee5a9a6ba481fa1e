package tensor

// Sum adds up runs of rows: y[i] += x[start[i]] + ... + x[start[i+1]-1], one row after the other, beginning with what y[i] holds. So a
// long run may be added in parts, and its bits do not show where it was parted.
type Sum struct {
	X     Mat // any rows x dim, F32
	Start Mat // at least sums+1 x 1, I32: ascending, from 0 to at most the rows of X
	Y     Mat // sums x dim, F32; read and written
	N     Mat // 1 x 1, I32: sums in use
}

// Reference adds in float32, as devices do.
func (o *Sum) Reference() {
	x, start, y, dim := o.X.F32(), o.Start.I32(), o.Y.F32(), o.X.Cols
	for i := range Live(o.N, o.Y.Rows) {
		sum := y[i*dim : (i+1)*dim]
		for row := int(start[i]); row < int(start[i+1]); row++ {
			for j, v := range x[row*dim : (row+1)*dim] {
				sum[j] += v
			}
		}
	}
}

// Operands lists x, the runs, y and the count, then y.
func (o *Sum) Operands() (in, out []*Mat) {
	return []*Mat{&o.X, &o.Start, &o.Y, &o.N}, []*Mat{&o.Y}
}

// Cost counts one read of the rows that are added, one read and one write of the sums, and one operation a value.
func (o *Sum) Cost() (bytes, flops int64) {
	sums, rows := Live(o.N, o.Y.Rows), o.X.Rows
	if o.Start.Buf.Host() != nil {
		rows = int(o.Start.I32()[sums])
	}
	return int64(rows+2*sums) * int64(o.Y.RowBytes()), int64(rows) * int64(o.Y.Cols)
}
