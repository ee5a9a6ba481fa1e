package compress

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// tensor is what becomes of a tensor.
func (x *sparsifier) tensor(t store.Tensor) ([]store.NewTensor, error) {
	m, err := x.matrices(t.Name)
	if err != nil {
		return nil, err
	}
	out := cutter{x.c}.copied(t)
	switch {
	case m != nil:
		x.zeros.Weights += int64(len(m.norms) * m.rows * m.cols)
		out.Pieces = x.made(m)
	case x.c.Kind != store.GGUF && expertTensors.MatchString(t.Name) && !strings.HasSuffix(t.Name, "bias"):
		return nil, unfit(x.c, t.Name, "it is not known which way round its matrices are")
	}
	return []store.NewTensor{out}, nil
}

// made hands out a tensor's bytes with zeros in them, expert by expert. Where that fails, it ends early and x.err says why.
func (x *sparsifier) made(m *matrices) iter.Seq[[]byte] {
	change := x.zeroed
	if x.s.updates() {
		change = x.updated
		if m.t.Format == quant.Q8_0 {
			x.zeros.Rounded++
		}
	}
	return func(yield func([]byte) bool) {
		for e, norms := range m.norms {
			pieces := mapped(x.c, m.expert(e))
			if norms != nil && int(x.zeros.Shares[m.layer]*float64(m.cols)) > 0 {
				pieces = change(m, e)
			}
			for piece := range pieces {
				if x.err = cmp.Or(x.err, x.ctx.Err()); x.err != nil || !yield(piece) {
					return
				}
			}
			if x.err != nil {
				return
			}
		}
	}
}

// zeroed is an expert's matrix with zeros in it; what stays does so to the bit.
func (x *sparsifier) zeroed(m *matrices, e int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		choose, err := x.chooser(m, e)
		if err != nil {
			x.err = err
			return
		}
		at, row := zeroAt[m.t.Format], m.t.Format.RowBytes(m.cols)
		for raw := range m.pieces(e) {
			out, zeros := slices.Clone(raw), atomic.Int64{}
			inParallel(len(out)/row, func(r int) {
				b, w, zero := out[r*row:(r+1)*row], make([]float32, m.cols), make([]bool, m.cols)
				m.t.Format.Decode(w, b)
				choose(zero, w)
				for i, z := range zero {
					if z {
						at(b, i)
						zeros.Add(1)
					}
				}
			})
			x.zeros.Zero += zeros.Load()
			if x.c.Release(raw); !yield(out) {
				return
			}
		}
	}
}

// chooser is what chooses the zeros of an expert's rows.
func (x *sparsifier) chooser(m *matrices, e int) (func(zero []bool, row []float32), error) {
	scale, share := m.norms[e], x.zeros.Shares[m.layer]
	if x.s.Method == BySparseGPT {
		h, err := x.hessian(m, e)
		if err == nil {
			err = h.invert()
		}
		if err != nil {
			return nil, m.wrong(e, err)
		}
		scale = h.scale()
	}
	if x.s.Repair == "" {
		return func(zero []bool, row []float32) { Wanda(zero, row, scale, share) }, nil
	}
	c := x.columns(m, e)
	return func(zero []bool, row []float32) {
		Wanda(zero, row, scale, share)
		DSnoT(zero, row, c)
	}, nil
}

// updated is an expert's matrix that SparseGPT has changed. A row in which nothing did keeps its bytes.
func (x *sparsifier) updated(m *matrices, e int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		h, err := x.hessian(m, e)
		if err != nil {
			x.err = m.wrong(e, err)
			return
		}
		raw, row := m.expert(e), m.t.Format.RowBytes(m.cols)
		was, w := make([]float32, m.rows*m.cols), make([]float64, m.rows*m.cols)
		m.t.Format.Decode(was, raw)
		for i, v := range was {
			if w[i] = float64(v); math.Abs(w[i]) > math.MaxFloat32 || v != v {
				x.err = m.wrong(e, fmt.Errorf("%w: weight %v in row %d", ErrNumber, v, i/m.cols))
				return
			}
		}
		if err := SparseGPT(w, h, x.zeros.Shares[m.layer]); err != nil {
			x.err = m.wrong(e, err)
			return
		}
		out := slices.Clone(raw)
		x.c.Release(raw)
		for r := range m.rows {
			if at := r * m.cols; m.rounded(out[r*row:(r+1)*row], was[at:at+m.cols], w[at:at+m.cols]) {
				x.err = m.wrong(e, fmt.Errorf("%w: %s does not hold row %d", ErrNumber, m.t.Format, r))
				return
			}
		}
		x.zeros.Zero += int64(m.rows * int(x.zeros.Shares[m.layer]*float64(m.cols)))
		yield(out)
	}
}

// rounded stores a row that has changed in the tensor's format; over says whether its values are too large for that. was is overwritten.
func (m *matrices) rounded(out []byte, was []float32, w []float64) (over bool) {
	changed := false
	for i, v := range w {
		changed = changed || was[i] != float32(v)
		was[i] = float32(v)
	}
	if !changed {
		return false
	}
	m.t.Format.Encode(out, was)
	m.t.Format.Decode(was, out)
	return slices.ContainsFunc(was, func(v float32) bool { return !(math.Abs(float64(v)) <= math.MaxFloat32) })
}

// wrong says of which expert an error is.
func (m *matrices) wrong(e int, err error) error {
	return fmt.Errorf("tensor %.100q, expert %d: %w", m.t.Name, e, err)
}

// zeroAt makes value i of a row zero, and changes no other.
var zeroAt = map[*quant.Format]func(row []byte, i int){
	quant.F32:  func(row []byte, i int) { clear(row[4*i:][:4]) },
	quant.F16:  func(row []byte, i int) { clear(row[2*i:][:2]) },
	quant.BF16: func(row []byte, i int) { clear(row[2*i:][:2]) },
	quant.Q8_0: func(row []byte, i int) { row[i/32*34+2+i%32] = 0 },
}
