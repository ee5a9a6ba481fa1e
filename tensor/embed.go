package tensor

// Embed looks up one row of a table for every id: y[i] = table[ids[i]].
type Embed struct {
	IDs   Mat // rows x 1, I32; each in [0, vocab)
	Table Mat // vocab x dim, any format
	Y     Mat // rows x dim, F32
	N     Mat // 1 x 1, I32: rows in use
}

// Reference decodes the rows one by one.
func (o *Embed) Reference() {
	ids, y := o.IDs.I32(), o.Y.F32()
	for i := range Live(o.N, o.Y.Rows) {
		o.Table.RowF32(y[i*o.Y.Cols:(i+1)*o.Y.Cols], int(ids[i]))
	}
}

// Operands lists ids, table and count, then y.
func (o *Embed) Operands() (in, out []*Mat) { return []*Mat{&o.IDs, &o.Table, &o.N}, []*Mat{&o.Y} }

// Cost counts the rows read and written.
func (o *Embed) Cost() (bytes, flops int64) {
	rows := int64(Live(o.N, o.Y.Rows))
	return rows * int64(o.Table.RowBytes()+o.Y.RowBytes()), 0
}
