package tensor

import "math"

// Pairing says which two values of a head turn together under RoPE.
type Pairing string

// The two pairings: value i with i + dim/2, or value 2i with 2i+1.
const (
	Halves     Pairing = "halves"
	Neighbours Pairing = "neighbours"
)

// Angles is the table of rotations of a step: the cosine and sine of position times frequency for every row, computed once and
// read by the Rope of every layer. Products are rounded to float32 first, as the published models compute them.
type Angles struct {
	Pos   Mat     // rows x 1, I32: positions
	Freq  Mat     // 1 x half, F32: radians a position
	Y     Mat     // rows x 2*half, F32: cosines, then sines
	N     Mat     // 1 x 1, I32: rows in use
	Scale float32 // multiplies both (yarn's attention factor); 1 for the rest
}

// Reference computes sine and cosine in float64 from the rounded product.
func (o *Angles) Reference() {
	pos, freq, y, half := o.Pos.I32(), o.Freq.F32(), o.Y.F32(), o.Freq.Cols
	for i := range Live(o.N, o.Pos.Rows) {
		row := y[i*2*half : (i+1)*2*half]
		for j, f := range freq {
			sin, cos := math.Sincos(float64(float32(pos[i]) * f))
			row[j], row[half+j] = float32(cos)*o.Scale, float32(sin)*o.Scale
		}
	}
}

// Operands lists positions, frequencies and count, then the table.
func (o *Angles) Operands() (in, out []*Mat) { return []*Mat{&o.Pos, &o.Freq, &o.N}, []*Mat{&o.Y} }

// Cost counts the table written, and some twenty operations a value.
func (o *Angles) Cost() (bytes, flops int64) {
	n := int64(Live(o.N, o.Pos.Rows) * o.Y.Cols)
	return 4 * n, 20 * n
}

// Rope turns each pair of values of each head by the row's angle (Su et al. 2021), in place. Values of a head beyond 2*half stay.
type Rope struct {
	X      Mat // rows*heads x dim, F32; read and written
	Angles Mat // rows x 2*half, F32
	N      Mat // 1 x 1, I32: rows in use, heads not counted
	Heads  int
	Pairs  Pairing
}

// Reference turns pair by pair.
func (o *Rope) Reference() {
	x, angles, dim, half := o.X.F32(), o.Angles.F32(), o.X.Cols, o.Angles.Cols/2
	for i := range Live(o.N, o.X.Rows/o.Heads) * o.Heads {
		row := x[i*dim : (i+1)*dim]
		turn := angles[i/o.Heads*2*half:][:2*half]
		for j := range half {
			a, b := j, j+half
			if o.Pairs == Neighbours {
				a, b = 2*j, 2*j+1
			}
			cos, sin, u, v := turn[j], turn[half+j], row[a], row[b]
			row[a], row[b] = u*cos-v*sin, u*sin+v*cos
		}
	}
}

// Operands lists x, angles and count, then x.
func (o *Rope) Operands() (in, out []*Mat) { return []*Mat{&o.X, &o.Angles, &o.N}, []*Mat{&o.X} }

// Cost counts one read and one write of the rows, and three operations a value.
func (o *Rope) Cost() (bytes, flops int64) {
	n := int64(Live(o.N, o.X.Rows/o.Heads) * o.Heads * o.X.Cols)
	return 8 * n, 3 * n
}
