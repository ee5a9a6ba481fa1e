package compress

import (
	"math"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/tensor"
)

// gateEps is what the norms of gates add to a mean of squares.
const gateEps = 1e-6

// turns are the rotations of RoPE by position.
type turns struct {
	half  int
	pairs tensor.Pairing
	table []float32 // positions x 2*half: cosines, then sines
}

func newTurns(r model.Rope, positions int) *turns {
	pos, half := make([]int32, positions), len(r.Freq)
	for i := range pos {
		pos[i] = int32(i)
	}
	t := &turns{half: half, pairs: r.Pairs, table: make([]float32, positions*2*half)}
	a := tensor.Angles{Pos: tensor.FromI32(positions, 1, pos), Freq: tensor.FromF32(1, half, r.Freq), Scale: r.Scale}
	a.Y = tensor.FromF32(positions, 2*half, t.table)
	a.Reference()
	return t
}

// turn rotates a vector to a position, in place.
func (t *turns) turn(v []float32, pos int) { t.rotate(v, pos, 1) }

// back takes a gradient through turn, in place.
func (t *turns) back(v []float32, pos int) { t.rotate(v, pos, -1) }

func (t *turns) rotate(v []float32, pos int, way float32) {
	row := t.table[pos*2*t.half:][:2*t.half]
	for j := range t.half {
		a, b := t.pair(j)
		cos, sin, x, y := row[j], way*row[t.half+j], v[a], v[b]
		v[a], v[b] = x*cos-y*sin, x*sin+y*cos
	}
}

// pair is the channels that turn by a frequency.
func (t *turns) pair(j int) (a, b int) {
	if t.pairs == tensor.Neighbours {
		return 2 * j, 2*j + 1
	}
	return j, j + t.half
}

// mean is the mean of a unit vector that turns by a frequency through the positions of a block.
func (t *turns) mean(j int) (cos, sin float32) {
	for pos := range blockTokens {
		cos += t.table[pos*2*t.half+j]
		sin += t.table[pos*2*t.half+t.half+j]
	}
	scale := blockTokens * t.table[j] // the cosine of 0
	return cos / scale, sin / scale
}

// side is what a gate makes of queries or of keys in one head: x -> RoPE(norm(x w)).
type side struct {
	w    []float32 // inputs x width; nil = x is the query already
	norm []float32 // width; nil = none
	to   *turns
}

// passed is what the way back needs of a pass: rows x width.
type passed struct {
	x    []float32 // rows x inputs, the caller's
	pos  []int     // by row
	y    []float32 // behind w
	inv  []float32 // by row: 1 / root mean square of y
	out  []float32 // behind norm and RoPE
	rows int
}

// forward runs rows through a side.
func (s *side) forward(x []float32, pos []int, width int) *passed {
	p := &passed{x: x, pos: pos, rows: len(pos)}
	if s.w == nil {
		p.out = append([]float32(nil), x...)
	} else {
		p.y = make([]float32, p.rows*width)
		in := len(s.w) / width
		for r := range p.rows {
			multiply(p.y[r*width:(r+1)*width], x[r*in:(r+1)*in], s.w)
		}
		p.out = append([]float32(nil), p.y...)
	}
	if s.norm != nil {
		p.inv = make([]float32, p.rows)
		for r := range p.rows {
			row := p.out[r*width : (r+1)*width]
			p.inv[r] = float32(1 / math.Sqrt(float64(inner(row, row))/float64(width)+gateEps))
			for i, w := range s.norm {
				row[i] *= p.inv[r] * w
			}
		}
	}
	for r, at := range pos {
		s.to.turn(p.out[r*width:(r+1)*width], at)
	}
	return p
}

// backward adds to dw and dnorm what a gradient of the rows' outputs, which it overwrites, makes of them.
func (s *side) backward(p *passed, grad, dw, dnorm []float32) {
	if s.w == nil {
		return
	}
	width := len(grad) / p.rows
	in := len(s.w) / width
	for r := range p.rows {
		g := grad[r*width : (r+1)*width]
		s.to.back(g, p.pos[r])
		if s.norm != nil {
			y, inv := p.y[r*width:(r+1)*width], p.inv[r]
			var along float32 // of the gradient behind the weights, along y
			for i, w := range s.norm {
				dnorm[i] += g[i] * y[i] * inv
				g[i] *= w
				along += g[i] * y[i]
			}
			along *= inv * inv / float32(width)
			for i := range g {
				g[i] = inv * (g[i] - y[i]*along)
			}
		}
		for i, x := range p.x[r*in : (r+1)*in] {
			axpy(dw[i*width:(i+1)*width], g, x)
		}
	}
}

// multiply is y += x w, of one row.
func multiply(y, x, w []float32) {
	for i, v := range x {
		axpy(y, w[i*len(y):(i+1)*len(y)], v)
	}
}

// axpy is y += a x.
func axpy(y, x []float32, a float32) {
	x = x[:len(y)]
	for len(y) >= 4 {
		y[0] += a * x[0]
		y[1] += a * x[1]
		y[2] += a * x[2]
		y[3] += a * x[3]
		x, y = x[4:], y[4:]
	}
	for i := range y {
		y[i] += a * x[i]
	}
}

// inner is the sum of products.
func inner(a, b []float32) float32 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	for i, v := range a {
		s0 += v * b[i]
	}
	return s0 + s1 + s2 + s3
}
