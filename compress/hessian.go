package compress

import (
	"errors"
	"math"
)

// Hessian is that of the squared error of a matrix's output, in each of its rows: the sum of x xᵀ over the inputs x that the matrix was seen to
// multiply. A factor that all of it shares makes no difference.
//
// Layout: float64, the upper triangle row by row, row i from column i on.
type Hessian struct {
	columns  int
	upper    []float64
	dead     []bool // by column: all inputs were 0; nil until inverted
	inverted bool   // upper holds U, H⁻¹ = Uᵀ U
}

// NewHessian is that of a matrix of so many columns, of no inputs yet.
func NewHessian(columns int) *Hessian {
	return &Hessian{columns: columns, upper: make([]float64, triangle(columns))}
}

// triangle is how many values a triangle of n rows has.
func triangle(n int) int { return n * (n + 1) / 2 }

// row is row i from the diagonal on.
func (h *Hessian) row(i int) []float64 {
	at := triangle(h.columns) - triangle(h.columns-i)
	return h.upper[at : at+h.columns-i]
}

// Add adds inputs, one after another: the sums do not depend on how these come in several calls. None may follow the first SparseGPT.
func (h *Hessian) Add(inputs ...[]float32) {
	if h.inverted {
		panic("winnow: bug: compress: inputs for a Hessian that is inverted")
	}
	for ; len(inputs) >= 4; inputs = inputs[4:] {
		h.add4(inputs)
	}
	for _, x := range inputs {
		for i, v := range x {
			row, a := h.row(i), float64(v)
			for j, w := range x[i:] {
				row[j] += a * float64(w)
			}
		}
	}
}

// add4 adds four inputs in turn, and goes through the sums once.
func (h *Hessian) add4(x [][]float32) {
	for i := range h.columns {
		row := h.row(i)
		a, b, c, d := x[0][i:], x[1][i:][:len(row)], x[2][i:][:len(row)], x[3][i:][:len(row)]
		a0, b0, c0, d0 := float64(a[0]), float64(b[0]), float64(c[0]), float64(d[0])
		for j, v := range a[:len(row)] {
			row[j] = row[j] + a0*float64(v) + b0*float64(b[j]) + c0*float64(c[j]) + d0*float64(d[j])
		}
	}
}

const damping = 0.01 // of the mean of the diagonal, added to it: as SparseGPT's authors do

var errSingular = errors.New("the second moments of its inputs cannot be inverted")

// invert turns H + damping into U, upper triangular, with H⁻¹ = Uᵀ U. In place, and once.
func (h *Hessian) invert() error {
	if h.inverted {
		return nil
	}
	h.inverted, h.dead = true, make([]bool, h.columns)
	mean := 0.0
	for i := range h.dead {
		v := h.row(i)[0]
		h.dead[i] = v == 0
		mean += v / float64(h.columns)
	}
	damp := damping * mean
	if damp == 0 {
		damp = 1
	}
	for i := range h.dead {
		h.row(i)[0] += damp
	}
	if !h.factor() {
		return errSingular
	}
	h.invertFactor()
	return nil
}

// factor makes R of H = R Rᵀ, upper triangular, from the last column to the first. It fails where H is not positive, or holds what is no number.
func (h *Hessian) factor() bool {
	for j := h.columns - 1; j >= 0; j-- {
		rj := h.row(j)
		d := rj[0] - dot(rj[1:], rj[1:])
		if !(d > 0 && d <= math.MaxFloat64) {
			return false
		}
		d = math.Sqrt(d)
		rj[0] = d
		for i := range j {
			ri := h.row(i)[j-i:]
			ri[0] = (ri[0] - dot(ri[1:], rj[1:])) / d
		}
	}
	return true
}

// invertFactor makes U = R⁻¹ of R, row by row: u R = e has its solutions from the diagonal to the right.
func (h *Hessian) invertFactor() {
	sums := make([]float64, h.columns)
	for i := range h.columns {
		row := h.row(i)
		sum := sums[:len(row)]
		clear(sum)
		for k := range row {
			r := row // row i of R itself; those below are still R's
			if k > 0 {
				r = h.row(i + k)
			}
			u := -sum[k] / r[0]
			if k == 0 {
				u = 1 / r[0]
			}
			for j, v := range r[1:] {
				sum[k+1+j] += u * v
			}
			row[k] = u
		}
	}
}

// dot is the sum of products, in four sums that are added last.
func dot(a, b []float64) float64 {
	var s0, s1, s2, s3 float64
	for ; len(a) >= 4 && len(b) >= 4; a, b = a[4:], b[4:] {
		s0, s1, s2, s3 = s0+a[0]*b[0], s1+a[1]*b[1], s2+a[2]*b[2], s3+a[3]*b[3]
	}
	for i, v := range a {
		s0 += v * b[i]
	}
	return s0 + s1 + s2 + s3
}

// scale is by how much a weight of each column counts: SparseGPT's score of w is (w times it)². 0 where a column's inputs were all 0.
func (h *Hessian) scale() []float64 {
	out := make([]float64, h.columns)
	for i := range out {
		if !h.dead[i] {
			out[i] = 1 / h.row(i)[0]
		}
	}
	return out
}
