package compress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/winnow-llm/winnow/store"
)

// Sparsity says how many weights inside of experts become zero, and which.
type Sparsity struct {
	Share   float64 // of each row's weights, of a matrix's for SparseGPT; 0 to 0.99
	Lambda  float64 // OWL's: how far a layer may be from Share; 0 = all layers alike, the paper has 0.08
	Outlier float64 // OWL's M: how many times the mean a score has to be to be an outlier; 0 = 5
	Method  Pruning // "" = ByWanda
	Repair  Repair  // "" = none
	Seeing  Seeing  // for BySparseGPT
}

// Pruning is how weights are chosen.
type Pruning string

const (
	ByWanda     Pruning = "wanda"     // those that go by Wanda; the others stay as they are
	BySparseGPT Pruning = "sparsegpt" // by SparseGPT, which changes those that stay too. With a repair it only chooses, as DSnoT's authors have it
)

// Repair is how zeros are exchanged for weights after they were chosen.
type Repair string

// ByDSnoT exchanges them by DSnoT, which takes a profile's InputSums and HiddenSums.
const ByDSnoT Repair = "dsnot"

func (s *Sparsity) check() error {
	switch {
	case !(s.Share >= 0 && s.Share <= mostShare) || !(s.Lambda >= 0 && s.Lambda <= 1) || !(s.Outlier >= 0):
		return fmt.Errorf("compress: sparsity %v, lambda %v, outliers above %v: want 0 to %v, 0 to 1, 0 or more", s.Share, s.Lambda, s.Outlier, mostShare)
	case s.Method == "":
		s.Method = ByWanda
	case s.Method != ByWanda && s.Method != BySparseGPT:
		return fmt.Errorf("compress: method %.100q, want %s or %s", s.Method, ByWanda, BySparseGPT)
	}
	switch {
	case s.Repair != "" && s.Repair != ByDSnoT:
		return fmt.Errorf("compress: repair %.100q, want %s", s.Repair, ByDSnoT)
	case s.Method == BySparseGPT && (s.Seeing.Study.Device == nil || s.Seeing.Study.Text.Sequences == nil):
		return fmt.Errorf("%w: %s takes the text itself, a profile is not enough", ErrCalibration, BySparseGPT)
	}
	return nil
}

// updates says whether weights that stay change too.
func (s *Sparsity) updates() bool { return s.Method == BySparseGPT && s.Repair == "" }

// Zeros is what has become of a model.
type Zeros struct {
	Weights int64           // of the experts' matrices
	Zero    int64           // those that were made zero; fewer than asked for where experts are dead
	Shares  map[int]float64 // by layer of experts: of each row's weights
	Dead    map[int][]int   // by layer: router rows that no token of the calibration chose; their weights stay
	Rounded int             // tensors of Q8_0 whose other weights changed, and that were rounded to new blocks
}

// ErrCalibration: a profile does not fit a model, or has not what is needed.
var ErrCalibration = errors.New("compress: calibration")

// Sparsify writes a copy of a model in which the weights of experts that matter least are zero. Wanda, and the budgets of OWL, take a profile's Usage,
// Inputs and Hidden: the score of a weight is |weight| times the norm of its input over the tokens that reached the expert. SparseGPT sees the text
// again. Nothing but experts changes, the formats included, and but for SparseGPT the bytes of weights that stay; so the model is no smaller, and
// needs kernels for sparse weights to be faster.
//
// Only F32, F16, BF16 and Q8_0 hold zeros that are zero; others are refused, as are models that were quantised further, and those that have no
// experts: store.ErrUnsupported. ErrCalibration: p does not fit. ErrMemory: Hessians take more than is allowed. Other errors are those of Apply, and
// for SparseGPT those of Observe.
func Sparsify(ctx context.Context, c *store.Checkpoint, p *Profile, s Sparsity, w Writing) (Zeros, error) {
	x := &sparsifier{ctx: ctx, c: c, profile: p, s: s, zeros: Zeros{Shares: map[int]float64{}, Dead: map[int][]int{}}}
	err := cmp.Or(w.check(), x.s.check())
	if err == nil {
		err = x.write(&w)
	}
	if err = cmp.Or(x.err, err); err != nil {
		return Zeros{}, fmt.Errorf("write %s: %w", w.Out, err)
	}
	return x.zeros, nil
}

// sparsifier is a model whose experts get zeros.
type sparsifier struct {
	ctx      context.Context
	c        *store.Checkpoint
	profile  *Profile
	s        Sparsity
	layers   map[int]*expertLayer
	groups   [][]int                // layers whose Hessians are there at a time
	hessians map[int]*layerHessians // of one group
	zeros    Zeros
	err      error // of making a tensor's bytes
}

func (x *sparsifier) write(w *Writing) error {
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
		err = x.share()
	}
	if err == nil && x.s.Method == BySparseGPT {
		err = x.planHessians(x.order())
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
	g := store.NewGGUF{Meta: withoutSplit(x.c.Meta), Keys: append(slices.Clone(x.c.Keys), keySparsity, keySparsityBy)}
	g.Meta[keySparsity], g.Meta[keySparsityBy] = float32(x.s.Share), x.s.by()
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

// Layout: keys of a GGUF file whose experts hold zeros.
const (
	keySparsity   = "winnow.sparsity"        // F32: the share of zeros in experts that was asked for
	keySparsityBy = "winnow.sparsity_method" // what chose them, as by gives it
)

// by names what chooses the zeros: "wanda", "owl", which is Wanda with budgets, "sparsegpt", "sparsegpt+owl", or one of these and "+dsnot".
func (s *Sparsity) by() string {
	out := string(s.Method)
	switch {
	case s.Lambda > 0 && s.Method == ByWanda:
		out = "owl"
	case s.Lambda > 0:
		out += "+owl"
	}
	if s.Repair != "" {
		out += "+" + string(s.Repair)
	}
	return out
}

// share decides how many weights of each layer become zero.
func (x *sparsifier) share() error {
	s := &x.s
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
	if len(x.layers) == 0 {
		return &store.FileError{File: x.c.Path, Limit: "no layer has experts whose weights could become zero", Err: store.ErrUnsupported}
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
