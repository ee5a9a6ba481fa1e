package compress

import (
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// chunkValues is the most values of a piece of an expert; every format's block divides it.
const chunkValues = 4096

// Weights reads what plans need of a checkpoint's experts, a little at a time. The checkpoint must stay open. One goroutine at a time.
type Weights struct {
	c      *store.Checkpoint
	spec   model.Spec
	at     int         // the layer that is laid out
	stacks []stack     // of that layer; nil = not yet
	whole  map[int]int // pieces of an expert, by layer
}

// stack is one matrix of every expert of a layer.
type stack struct {
	format *quant.Format
	values int      // of an expert
	data   [][]byte // by expert
}

// NewWeights reads a checkpoint that model.Describe has described so.
func NewWeights(c *store.Checkpoint, spec model.Spec) *Weights {
	return &Weights{c: c, spec: spec, whole: map[int]int{}}
}

// Router is the layer's router: experts x width, row by row.
func (w *Weights) Router(layer int) ([]float32, error) {
	t, err := model.Tensor(w.c, fmt.Sprintf("blk.%d.ffn_gate_inp.weight", layer))
	if err != nil {
		return nil, err
	}
	n := w.spec.Layers[layer].Router.Experts * w.spec.Dim
	if err := w.sized(t, n); err != nil {
		return nil, err
	}
	out := make([]float32, n)
	t.Format.Decode(out, t.Data)
	return out, nil
}

// Chunks is in how many pieces an expert of the layer comes: those of the gate, the up and the down matrix.
func (w *Weights) Chunks(layer int) int {
	l := w.spec.Layers[layer]
	return 3 * pieces(l.ExpertWidth*w.spec.Dim)
}

func pieces(values int) int { return (values + chunkValues - 1) / chunkValues }

// Chunk appends a piece of an expert's weights to dst; a piece has the same place and size in every expert of the layer.
func (w *Weights) Chunk(dst []float32, layer, expert, piece int) ([]float32, error) {
	if err := w.open(layer); err != nil {
		return dst, err
	}
	each := pieces(w.stacks[0].values)
	s, from := w.stacks[piece/each], piece%each*chunkValues
	n, f := min(chunkValues, s.values-from), s.format
	at := len(dst)
	dst = append(dst, make([]float32, n)...)
	f.Decode(dst[at:], s.data[expert][from/f.Block*f.Bytes:][:n/f.Block*f.Bytes])
	return dst, nil
}

// Bytes is what an expert of the layer takes in the file.
func (w *Weights) Bytes(layer int) (int64, error) {
	if err := w.open(layer); err != nil {
		return 0, err
	}
	var sum int64
	for _, s := range w.stacks {
		sum += int64(len(s.data[0]))
	}
	return sum, nil
}

// Matrices are the gate, the up and the down matrix of an expert, as they lie in the file: hidden width x dim, twice, and dim x hidden width.
func (w *Weights) Matrices(layer, expert int) (gate, up, down tensor.Mat, err error) {
	if err := w.open(layer); err != nil {
		return gate, up, down, err
	}
	dim, width := w.spec.Dim, w.spec.Layers[layer].ExpertWidth
	of := func(s stack, rows, cols int) tensor.Mat {
		return tensor.HostMat("", s.format, rows, cols, slices.Clone(s.data[expert])) // which the file need not align
	}
	return of(w.stacks[0], width, dim), of(w.stacks[1], width, dim), of(w.stacks[2], dim, width), nil
}

// open finds and checks the matrices of a layer, and lets go of the pages of the one before.
func (w *Weights) open(layer int) error {
	if w.stacks != nil && w.at == layer {
		return nil
	}
	for _, s := range w.stacks {
		for _, d := range s.data {
			w.c.Release(d)
		}
	}
	w.stacks = nil
	experts := w.spec.Layers[layer].Router.Experts
	all := make([]stack, 3)
	for e := range experts {
		three, err := model.ExpertTensors(w.c, &w.spec, layer, e)
		if err != nil {
			return err
		}
		for i, t := range three {
			s := &all[i]
			if s.format != nil && s.format != t.Format {
				return fmt.Errorf("%w: tensor %q is %s, that of expert 0 is %s", model.ErrAssumption, t.Name, t.Format, s.format)
			}
			s.format, s.values, s.data = t.Format, t.Shape[0]*t.Shape[1], append(s.data, t.Data)
		}
	}
	w.at, w.stacks = layer, all
	return nil
}

// sized refuses a tensor of another size, and one that holds no numbers. Whole rows are whole blocks, and so are whole experts.
func (w *Weights) sized(t store.Tensor, values int) error {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	if n != values || t.Format.Decode == nil || len(t.Data) != n/t.Format.Block*t.Format.Bytes {
		return fmt.Errorf("%s: %w: tensor %q is %s %v, want %d values", w.c.Path, model.ErrSpec, t.Name, t.Format, t.Shape, values)
	}
	return nil
}
