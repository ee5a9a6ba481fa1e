package tensor

import "math"

// GLU is the gated linear unit with SiLU (Shazeer 2020, SwiGLU): y = gate * sigmoid(gate) * up.
type GLU struct {
	Gate Mat // rows x dim, F32
	Up   Mat // rows x dim, F32
	Y    Mat // rows x dim, F32; may be Gate or Up
	N    Mat // 1 x 1, I32: rows in use
}

// Reference works value by value.
func (o *GLU) Reference() {
	gate, up, y := o.Gate.F32(), o.Up.F32(), o.Y.F32()
	for i := range Live(o.N, o.Y.Rows) * o.Y.Cols {
		y[i] = SwiGLU(gate[i], up[i])
	}
}

// SwiGLU is the unit on one pair of values.
func SwiGLU(gate, up float32) float32 {
	return float32(float64(gate)/(1+math.Exp(-float64(gate)))) * up
}

// Operands lists gate, up and count, then y.
func (o *GLU) Operands() (in, out []*Mat) { return []*Mat{&o.Gate, &o.Up, &o.N}, []*Mat{&o.Y} }

// Cost counts two reads and one write of the rows, and six operations a value.
func (o *GLU) Cost() (bytes, flops int64) {
	n := int64(Live(o.N, o.Y.Rows) * o.Y.Cols)
	return 12 * n, 6 * n
}
