package compress

import (
	"context"
	"fmt"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// Samples runs all experts of every layer on what the layer's router read, an expert at a time, and makes of it what NAEE needs; see is told how
// many experts are done. The inputs are those that Capture has kept. ErrPlan: a layer is not searchable.
func Samples(ctx context.Context, c *store.Checkpoint, d tensor.Device, seen map[int]*Captured, see func(done, total int)) (map[int]*Sample, error) {
	spec, err := model.Describe(c)
	if err != nil {
		return nil, err
	}
	if err := allSearchable(&spec); err != nil {
		return nil, err
	}
	total, done := 0, 0
	for _, l := range layersOf(seen) {
		total += spec.Layers[l].Router.Experts
	}
	out, weights := map[int]*Sample{}, NewWeights(c, spec)
	for _, l := range layersOf(seen) {
		r, rows := spec.Layers[l].Router, len(seen[l].Rows)/spec.Dim
		x := tensor.FromF32(rows, spec.Dim, seen[l].Rows)
		outputs := make([][]float32, r.Experts)
		for e := range outputs {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if outputs[e], err = expertOn(d, weights, x, l, e); err != nil {
				return nil, fmt.Errorf("layer %d, expert %d: %w", l, e, err)
			}
			done++
			see(done, total)
		}
		router, err := weights.Router(l)
		if err != nil {
			return nil, err
		}
		gate := moe.Gate{Spec: *r, W: tensor.FromF32(r.Experts, spec.Dim, router), Bias: seen[l].Bias}
		if out[l], err = NewSample(*r, seen[l].Select); err != nil {
			return nil, err
		}
		for row := range rows {
			all := make([]float32, 0, r.Experts*spec.Dim)
			for _, y := range outputs {
				all = append(all, y[row*spec.Dim:(row+1)*spec.Dim]...)
			}
			if err := out[l].Add(gate.Logits(seen[l].Rows[row*spec.Dim:(row+1)*spec.Dim]), all); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Subsets says of which layer of a model not all subsets of experts can be tried, if there is one. ErrPlan.
func Subsets(c *store.Checkpoint) error {
	spec, err := model.Describe(c)
	if err != nil {
		return err
	}
	return allSearchable(&spec)
}

func allSearchable(spec *model.Spec) error {
	for l := range spec.Layers {
		ls := &spec.Layers[l]
		if ls.Router == nil {
			continue
		}
		if !plain(ls) {
			return fmt.Errorf("%w: layer %d chooses its experts by another router than top-k", ErrPlan, l)
		}
		if err := searchable(ls.Router); err != nil {
			return fmt.Errorf("%w: layer %d: %w", ErrPlan, l, err)
		}
	}
	return nil
}

// expertOn is what an expert makes of rows: rows x dim.
func expertOn(d tensor.Device, w *Weights, x tensor.Mat, layer, expert int) ([]float32, error) {
	gate, up, down, err := w.Matrices(layer, expert)
	if err != nil {
		return nil, err
	}
	b := newWorkbench(d)
	defer b.free()
	n := b.place(tensor.FromI32(1, 1, []int32{int32(x.Rows)}))
	in := b.place(x)
	hidden := tensor.Mat{Rows: x.Rows, Cols: gate.Rows, Format: x.Format}
	g, u, y := b.alloc(hidden), b.alloc(hidden), b.alloc(x)
	ops := []tensor.Op{
		&tensor.Linear{X: in, W: b.load(gate), Y: g, N: n}, &tensor.Linear{X: in, W: b.load(up), Y: u, N: n},
		&tensor.GLU{Gate: g, Up: u, Y: g, N: n}, &tensor.Linear{X: g, W: b.load(down), Y: y, N: n},
	}
	if b.err != nil {
		return nil, b.err
	}
	for _, op := range ops {
		b.queue.Run(op)
	}
	out := make([]float32, x.Rows*x.Cols)
	model.ReadF32(b.queue, y, out)
	return out, b.queue.Sync()
}
