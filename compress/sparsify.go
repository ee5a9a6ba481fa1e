package compress

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
)

// Sparsity says how many weights inside of experts become zero.
type Sparsity struct {
	Share   float64 // of each row's weights, 0 to 0.99
	Lambda  float64 // OWL's: how far a layer may be from Share; 0 = all layers alike, the paper has 0.08
	Outlier float64 // OWL's M: how many times the mean a score has to be to be an outlier; 0 = 5
}

// Zeros is what has become of a model.
type Zeros struct {
	Weights int64           // of the experts' matrices
	Zero    int64           // those that were made zero; fewer than asked for where experts are dead
	Shares  map[int]float64 // by layer of experts: of each row's weights
	Dead    map[int][]int   // by layer: router rows that no token of the calibration chose; their weights stay
}

// ErrCalibration: a profile does not fit a model, or has not what is needed.
var ErrCalibration = errors.New("compress: calibration")

// Sparsify writes a copy of a model in which the weights of experts that matter least are zero, by Wanda's score: |weight| times the norm of its input
// over the tokens that reached the expert. Those norms are a profile's Inputs and Hidden. Nothing else changes, the formats and the bytes of the
// weights that stay included; so the model is no smaller, and needs kernels for sparse weights to be faster.
//
// Only F32, F16, BF16 and Q8_0 hold zeros that are zero; others are refused, as are models that were quantised further. ErrCalibration: p does not
// fit. Other errors are those of Apply.
func Sparsify(ctx context.Context, c *store.Checkpoint, p *Profile, s Sparsity, w Writing) (Zeros, error) {
	x := &sparsifier{ctx: ctx, c: c, profile: p, zeros: Zeros{Shares: map[int]float64{}, Dead: map[int][]int{}}}
	err := w.check()
	if err == nil && (!(s.Share >= 0 && s.Share <= mostShare) || !(s.Lambda >= 0 && s.Lambda <= 1) || !(s.Outlier >= 0)) {
		err = fmt.Errorf("compress: sparsity %v, lambda %v, outliers above %v: want 0 to %v, 0 to 1, 0 or more", s.Share, s.Lambda, s.Outlier, mostShare)
	}
	if err == nil {
		err = x.write(s, &w)
	}
	if err != nil {
		return Zeros{}, fmt.Errorf("write %s: %w", w.Out, err)
	}
	return x.zeros, nil
}

// sparsifier is a model whose experts get zeros.
type sparsifier struct {
	ctx     context.Context
	c       *store.Checkpoint
	profile *Profile
	layers  map[int]*expertLayer
	zeros   Zeros
}

func (x *sparsifier) write(s Sparsity, w *Writing) error {
	if x.profile.Model != "" && x.profile.Model != x.c.Fingerprint() {
		return fmt.Errorf("%w: made of a model with other tensors, known by %.12s", ErrCalibration, x.profile.Model)
	}
	var f *folder
	var err error
	if x.c.Kind == store.GGUF {
		x.layers, err = (&ggufFile{c: x.c, split: map[int]bool{}}).layers()
	} else {
		f, x.layers, err = readFolder(x.c)
	}
	if err == nil {
		err = x.share(s)
	}
	if err != nil {
		return err
	}
	if f != nil {
		return newFolder(w.Out, func(dir string) error {
			if _, err := f.write(x.ctx, dir, x.tensor, w.See); err != nil {
				return err
			}
			return f.others(x.ctx, dir, map[string]bool{})
		})
	}
	g := store.NewGGUF{Meta: withoutSplit(x.c.Meta), Keys: append(slices.Clone(x.c.Keys), keySparsity)}
	g.Meta[keySparsity] = float32(s.Share)
	for _, part := range x.c.Parts {
		for _, name := range part.Names {
			t, err := x.c.Tensor(name)
			if err != nil {
				return err
			}
			out, err := x.tensor(t)
			if err != nil {
				return err
			}
			g.Tensors = append(g.Tensors, out...)
		}
	}
	return store.WriteGGUF(x.ctx, w.Out, g, w.See)
}

const keySparsity = "winnow.sparsity" // F32: the share of zeros in experts that was asked for

// share decides how many weights of each layer become zero.
func (x *sparsifier) share(s Sparsity) error {
	matrices := map[int][]*matrices{}
	for _, name := range x.c.Names() {
		m, err := x.matrices(name)
		if err != nil {
			return err
		}
		if m != nil {
			matrices[m.layer] = append(matrices[m.layer], m)
		}
	}
	layers, outliers := slices.Sorted(maps.Keys(matrices)), []float64{}
	for _, layer := range layers {
		of := 0.0
		if s.Lambda > 0 {
			of = Outliers(orElse(s.Outlier, 5), x.scores(matrices[layer]))
		}
		outliers = append(outliers, of)
		for row, n := range x.profile.Layers[layer].Usage {
			if n == 0 {
				x.zeros.Dead[layer] = append(x.zeros.Dead[layer], row)
			}
		}
	}
	for i, share := range Shares(s.Share, s.Lambda, outliers) {
		x.zeros.Shares[layers[i]] = share
	}
	return x.ctx.Err()
}

func orElse(v, otherwise float64) float64 {
	if v == 0 {
		return otherwise
	}
	return v
}

// matrices are one tensor of experts of a layer.
type matrices struct {
	layer int
	t     store.Tensor
	norms [][]float64 // by expert of the tensor, of its columns; nil = dead
	rows  int         // of an expert
	cols  int
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
	m, experts := &matrices{layer: layer, t: t, rows: 1}, 1
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
		m.norms = append(m.norms, norms)
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
	seen, what := p.Inputs, "inputs"
	if hidden {
		seen, what = p.Hidden, "hidden"
	}
	if len(seen) != len(rows) {
		return nil, fmt.Errorf("%w: layer %d: %s of %d experts, there are %d: columns have to be observed", ErrCalibration, layer, what, len(seen), len(rows))
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

// pieces are rows of all experts in turn, as many at a time as are decoded at once; norms are nil for those of a dead expert.
func (m *matrices) pieces(yield func(raw []byte, norms []float64) bool) {
	row := m.t.Format.RowBytes(m.cols)
	step := max(1, pieceBytes/8/m.cols) * row
	for e, norms := range m.norms {
		for piece := range slices.Chunk(m.t.Data[e*m.rows*row:][:m.rows*row], step) {
			if !yield(piece, norms) {
				return
			}
		}
	}
}

// scores are Wanda's of all weights of live experts.
func (x *sparsifier) scores(all []*matrices) iter.Seq[[]float64] {
	return func(yield func([]float64) bool) {
		var w []float32
		var s []float64
		for _, m := range all {
			for raw, norms := range m.pieces {
				if norms == nil {
					continue
				}
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
		out.Pieces = x.zeroed(m)
	case x.c.Kind != store.GGUF && expertTensors.MatchString(t.Name) && !strings.HasSuffix(t.Name, "bias"):
		return nil, unfit(x.c, t.Name, "it is not known which way round its matrices are")
	}
	return []store.NewTensor{out}, nil
}

// zeroed hands out a tensor's bytes with zeros in them.
func (x *sparsifier) zeroed(m *matrices) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		zero, w, at, row := make([]bool, m.cols), make([]float32, m.cols), zeroAt[m.t.Format], m.t.Format.RowBytes(m.cols)
		for raw, norms := range m.pieces {
			out := slices.Clone(raw)
			for b := out; norms != nil && len(b) > 0; b = b[row:] {
				m.t.Format.Decode(w, b[:row])
				Wanda(zero, w, norms, x.zeros.Shares[m.layer])
				for i, z := range zero {
					if z {
						at(b, i)
						x.zeros.Zero++
					}
				}
			}
			if x.c.Release(raw); !yield(out) {
				return
			}
		}
	}
}

// zeroAt makes value i of a row zero, and changes no other.
var zeroAt = map[*quant.Format]func(row []byte, i int){
	quant.F32:  func(row []byte, i int) { clear(row[4*i:][:4]) },
	quant.F16:  func(row []byte, i int) { clear(row[2*i:][:2]) },
	quant.BF16: func(row []byte, i int) { clear(row[2*i:][:2]) },
	quant.Q8_0: func(row []byte, i int) { row[i/32*34+2+i%32] = 0 },
}
