package compress

import (
	"fmt"
	"iter"
	"math"
	"regexp"
	"slices"
	"strconv"

	"github.com/winnow-llm/winnow/store"
)

// matrices are one tensor of experts of a layer.
type matrices struct {
	layer  int
	t      store.Tensor
	hidden bool        // they multiply hidden rows
	place  []place     // by expert of the tensor
	norms  [][]float64 // likewise, of its columns; nil = dead
	rows   int         // of an expert
	cols   int
}

var (
	sparseGGUF   = regexp.MustCompile(`^ffn_(gate|up|down|gate_up)(?:_exps(?:\.q([0-3]))?|\.(\d{1,4}))\.weight$`)
	sparseFolder = regexp.MustCompile(`^(\d{1,4})\.(gate_proj|up_proj|down_proj|w[123])\.weight$`)
)

// matrices describes a tensor of experts; nil where it is none.
func (x *sparsifier) matrices(name string) (*matrices, error) {
	layer, bank, single, hidden, ok := x.parse(name)
	if !ok {
		return nil, nil
	}
	t, err := x.c.Tensor(name)
	if err != nil {
		return nil, err
	}
	if zeroAt[t.Format] == nil {
		return nil, unfit(x.c, name, "%s holds no zeros that are zero: make weights zero before a model is quantised", t.Format)
	}
	m, experts := &matrices{layer: layer, t: t, hidden: hidden, rows: 1}, 1
	if n := len(t.Shape); n < 2 || n < 3 && single < 0 {
		return nil, unfit(x.c, name, "%v is no matrix an expert", t.Shape)
	}
	shape := t.Shape
	if single < 0 {
		experts, shape = shape[0], shape[1:]
	}
	for _, d := range shape[:len(shape)-1] {
		m.rows *= d
	}
	if m.cols = shape[len(shape)-1]; m.rows < 1 || m.cols < 1 {
		return nil, unfit(x.c, name, "%v is no matrix an expert", t.Shape)
	}
	for e := range experts {
		at := place{bank, int32(e)}
		if single >= 0 {
			at.row = int32(single)
		}
		norms, err := x.norms(layer, at, hidden, m.cols)
		if err != nil {
			return nil, err
		}
		m.place, m.norms = append(m.place, at), append(m.norms, norms)
	}
	return m, nil
}

// parse reads a tensor's name: its layer and bank, the expert that it is of alone, -1 = of all, and whether hidden rows are what it multiplies.
func (x *sparsifier) parse(name string) (layer int, bank int32, single int, hidden, ok bool) {
	number := func(s string, otherwise int) int {
		if n, err := strconv.Atoi(s); err == nil {
			return n
		}
		return otherwise
	}
	if x.c.Kind == store.GGUF {
		if m := blockTensors.FindStringSubmatch(name); m != nil {
			if e := sparseGGUF.FindStringSubmatch(m[2]); e != nil {
				layer = number(m[1], -1)
				return layer, int32(number(e[2], 0)), number(e[3], -1), e[1] == "down", x.layers[layer] != nil
			}
		}
		return 0, 0, 0, false, false
	}
	if m := expertTensors.FindStringSubmatch(name); m != nil {
		layer = number(m[2], -1)
		if e := sparseFolder.FindStringSubmatch(m[3]); e != nil {
			return layer, 0, number(e[1], -1), e[2] == "down_proj" || e[2] == "w2", x.layers[layer] != nil
		}
	}
	return 0, 0, 0, false, false
}

// norms are those of the columns of what the expert at a place multiplies, over the tokens of all router rows that lead to it.
func (x *sparsifier) norms(layer int, at place, hidden bool, cols int) ([]float64, error) {
	rows := x.layers[layer].place
	if layer >= len(x.profile.Layers) || len(x.profile.Layers[layer].Usage) != len(rows) {
		return nil, fmt.Errorf("%w: layer %d of %d experts was not observed", ErrCalibration, layer, len(rows))
	}
	p := &x.profile.Layers[layer]
	seen, sums, what := p.Inputs, p.InputSums, "inputs"
	if hidden {
		seen, sums, what = p.Hidden, p.HiddenSums, "hidden"
	}
	if len(seen) != len(rows) {
		return nil, fmt.Errorf("%w: layer %d: %s of %d experts, there are %d: columns have to be observed", ErrCalibration, layer, what, len(seen), len(rows))
	}
	if err := x.checkSums(layer, sums, seen); err != nil {
		return nil, err
	}
	out, used := make([]float64, cols), int64(0)
	for row, p2 := range rows {
		if p2 != at || p.Usage[row] == 0 {
			continue
		}
		used += p.Usage[row]
		if len(seen[row]) != cols {
			return nil, fmt.Errorf("%w: layer %d: %s of expert %d has %d columns, its weights %d", ErrCalibration, layer, what, row, len(seen[row]), cols)
		}
		for i, v := range seen[row] {
			if !(v >= 0 && v <= math.MaxFloat64) {
				return nil, fmt.Errorf("%w: layer %d: %s of expert %d is %v", ErrCalibration, layer, what, row, v)
			}
			out[i] += v
		}
	}
	if used == 0 {
		return nil, nil
	}
	for i, v := range out {
		out[i] = math.Sqrt(v)
	}
	return out, nil
}

// checkSums says whether the sums of columns are there, where the repair takes them.
func (x *sparsifier) checkSums(layer int, sums, squares [][]float64) error {
	if x.s.Repair == "" {
		return nil
	}
	if sums == nil {
		return fmt.Errorf("%w: layer %d: no sums of columns, which %s takes: observe columns anew", ErrCalibration, layer, x.s.Repair)
	}
	return checkSums("sums", sums, squares, func(format string, args ...any) error {
		return fmt.Errorf("%w: layer %d: %s", ErrCalibration, layer, fmt.Sprintf(format, args...))
	})
}

// columns are what is known of the columns of what a live expert multiplies.
func (x *sparsifier) columns(m *matrices, e int) Columns {
	p := &x.profile.Layers[m.layer]
	sums := p.InputSums
	if m.hidden {
		sums = p.HiddenSums
	}
	c := Columns{Norm: m.norms[e], Mean: make([]float64, m.cols), Variance: make([]float64, m.cols)}
	rows := 0.0
	for row, at := range x.layers[m.layer].place {
		if at == m.place[e] && p.Usage[row] > 0 {
			rows += float64(p.Usage[row])
			for i, v := range sums[row] {
				c.Mean[i] += v
			}
		}
	}
	for i := range c.Mean {
		c.Mean[i] /= rows
		c.Variance[i] = max(0, c.Norm[i]*c.Norm[i]/rows-c.Mean[i]*c.Mean[i])
	}
	return c
}

// expert is the bytes of expert e of the tensor.
func (m *matrices) expert(e int) []byte {
	size := m.rows * m.t.Format.RowBytes(m.cols)
	return m.t.Data[e*size:][:size]
}

// pieces are rows of expert e, as many at a time as are decoded at once.
func (m *matrices) pieces(e int) iter.Seq[[]byte] {
	return slices.Chunk(m.expert(e), max(1, pieceBytes/8/m.cols)*m.t.Format.RowBytes(m.cols))
}

// scores are Wanda's of all weights of live experts.
func (x *sparsifier) scores(all []*matrices) iter.Seq[[]float64] {
	return func(yield func([]float64) bool) {
		var w []float32
		var s []float64
		for _, m := range all {
			for e, norms := range m.norms {
				if norms == nil {
					continue
				}
				for raw := range m.pieces(e) {
					n := len(raw) / m.t.Format.RowBytes(m.cols) * m.cols
					w, s = slices.Grow(w[:0], n)[:n], slices.Grow(s[:0], n)[:n]
					m.t.Format.Decode(w, raw)
					for i, v := range w {
						s[i] = math.Abs(float64(v)) * norms[i%m.cols]
					}
					x.c.Release(raw)
					if x.ctx.Err() != nil || !yield(s) {
						return
					}
				}
			}
		}
	}
}
