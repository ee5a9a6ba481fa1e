package compress

import (
	"context"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// eavesdropper keeps what the attention of each layer read of the last sequence.
type eavesdropper struct {
	walk   walk
	layers []reading
}

// read runs a sequence through the model.
func (e *eavesdropper) read(ctx context.Context, ids []int32) error {
	if err := checkSequence(ids, e.walk.models[0]); err != nil {
		return err
	}
	for i := range e.layers {
		e.layers[i] = reading{q: e.layers[i].q[:0], k: e.layers[i].k[:0], tokens: len(ids)}
	}
	if err := e.walk.feed(ctx, ids); err != nil {
		return err
	}
	return e.walk.run(ctx)
}

// see takes queries and keys as their projections leave them, and again when they were normed. After that they are turned in place.
func (e *eavesdropper) see(op tensor.Op, read func(tensor.Mat) []byte) {
	take := func(to *[]float32, y, n tensor.Mat, groups int) {
		rows := y.Rows
		if n.Present() {
			rows = groups * int(tensor.HostMat("", quant.I32, 1, 1, read(n)).I32()[0])
		}
		*to = append(*to, tensor.HostMat("", quant.F32, rows, y.Cols, read(y.Slice(0, rows))).F32()...)
	}
	switch op := op.(type) {
	case *tensor.Linear:
		if layer, ok := layerOf(op.W.Name, "attn_q.weight"); ok {
			take(&e.layers[layer].q, op.Y, op.N, 1)
		} else if layer, ok := layerOf(op.W.Name, "attn_k.weight"); ok {
			take(&e.layers[layer].k, op.Y, op.N, 1)
		}
	case *tensor.Norm:
		for part, of := range map[string]func(r *reading) *[]float32{
			"attn_q_norm.weight": func(r *reading) *[]float32 { return &r.q }, "attn_k_norm.weight": func(r *reading) *[]float32 { return &r.k },
		} {
			if layer, ok := layerOf(op.W.Name, part); ok {
				to := of(&e.layers[layer])
				before := len(*to)
				take(to, op.Y, op.N, op.Groups)
				n := len(*to) - before
				*to = append((*to)[:before-n], (*to)[before:]...) // in place of what was not normed yet
			}
		}
	}
}
