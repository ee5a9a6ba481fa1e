package moetest

import (
	"fmt"
	"testing"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// choices are K router rows for each row of the batch, with their factors, and the map from router rows to experts: some pruned, some merged,
// some choices left open or of a pruned row.
type choices struct {
	ids, weights, phys tensor.Mat
	experts            int // physical
}

func choose(w *tensortest.World, s size) choices {
	m := moe.EveryExpert(s.experts)
	for e := range m.Phys {
		switch {
		case e > 0 && w.IntN(5) == 0:
			m.Phys[e] = m.Phys[w.IntN(e)] // merged with an earlier one
		case e > 0 && w.IntN(6) == 0:
			m.Phys[e] = -1
		}
	}
	ids, weights := make([]int32, w.Total*s.k), w.Floats(w.Total, s.k)
	for i := range ids {
		ids[i] = -1
	}
	for row := range w.Total {
		slot := row * s.k
		for _, e := range w.Perm(s.experts) {
			if slot < (row+1)*s.k && (m.Phys[e] >= 0 || w.IntN(8) == 0) && w.IntN(12) > 0 {
				ids[slot] = int32(e)
				slot++
			}
		}
		for ; slot < (row+1)*s.k; slot++ {
			weights.F32()[slot] = 0
		}
	}
	return choices{w.Pick(tensor.FromI32(w.Total, s.k, ids)), w.Pick(weights), tensor.FromI32(1, s.experts, m.Phys), m.Physical()}
}

// dispatch is the op on choices, with a plan of junk to fill.
func (c choices) dispatch(w *tensortest.World) *moe.Dispatch {
	k := c.ids.Cols
	plan := &moe.DispatchPlan{
		Offset: tensor.FromI32(c.experts+1, 1, make([]int32, c.experts+1)),
		Token:  w.Output(quant.I32, k, 1), Place: w.Output(quant.I32, 1, k), Weight: w.Output(quant.F32, 1, k),
	}
	for i := range plan.Offset.I32() {
		plan.Offset.I32()[i] = -7
	}
	return &moe.Dispatch{IDs: c.ids, Weights: c.weights, Phys: c.phys, Plan: plan, N: w.Count(), Experts: c.experts}
}

func dispatches() []tensortest.Case {
	var cases []tensortest.Case
	for rows := 1; rows <= 9; rows++ {
		for experts := 1; experts <= 9; experts++ {
			for k := 1; k <= min(experts, 4); k++ {
				cases = append(cases, dispatchCase(size{rows, experts, k, 0}))
			}
		}
	}
	return append(cases, dispatchCase(size{100, 128, 8, 0}), dispatchCase(size{3, 1024, 16, 0}))
}

func dispatchCase(s size) tensortest.Case {
	name := tensortest.Labels("dispatch", s.rows, "experts", s.experts, "k", s.k)
	return tensortest.Case{Name: name, Rows: s.rows, Make: func(w *tensortest.World) tensortest.Trial {
		return tensortest.Trial{Op: choose(w, s).dispatch(w)}
	}}
}

// Example checks a device's dispatch against one that was worked out by hand.
func Example(t *testing.T, d tensor.Device) {
	ids := []int32{3, 6, 1, 3, 6, -1, 3, 1}
	int32s := func(rows, cols int) tensor.Mat { return tensor.FromI32(rows, cols, make([]int32, rows*cols)) }
	o := &moe.Dispatch{
		IDs: tensor.FromI32(4, 2, ids), Weights: tensor.FromF32(4, 2, make([]float32, 8)), Phys: tensor.FromI32(1, 8, moe.EveryExpert(8).Phys),
		Plan: &moe.DispatchPlan{Offset: int32s(9, 1), Token: int32s(8, 1), Place: int32s(4, 2), Weight: tensor.FromF32(4, 2, make([]float32, 8))},
		N:    tensor.FromI32(1, 1, []int32{4}), Experts: 8,
	}
	offset, token, place := int32s(9, 1), int32s(8, 1), int32s(4, 2)
	run(t, d, o, []wanted{{&o.Plan.Offset, offset}, {&o.Plan.Token, token}, {&o.Plan.Place, place}})
	for _, c := range []struct {
		name string
		have []int32
		want []int32
	}{
		{"offsets", offset.I32(), []int32{0, 0, 2, 2, 5, 5, 5, 7, 7}},
		{"tokens", token.I32()[:7], []int32{1, 3, 0, 1, 3, 0, 2}},
		{"places", place.I32(), []int32{2, 5, 0, 3, 6, -1, 4, 1}},
	} {
		if fmt.Sprint(c.have) != fmt.Sprint(c.want) {
			t.Errorf("%s %v, want %v", c.name, c.have, c.want)
		}
	}
}

// Collapse checks a device's dispatch where choices lead to one expert, or to none though a router has made them.
func Collapse(t *testing.T, d tensor.Device) {
	int32s := func(rows, cols int) tensor.Mat { return tensor.FromI32(rows, cols, make([]int32, rows*cols)) }
	o := &moe.Dispatch{
		IDs: tensor.FromI32(3, 3, []int32{0, 1, 2, 3, 3, 0, 3, 4, -1}), Phys: tensor.FromI32(1, 5, []int32{1, 0, 1, -1, -1}),
		Weights: tensor.FromF32(3, 3, []float32{0.5, 0.25, 0.125, 8, 8, 0.75, 8, 8, 0}),
		Plan:    &moe.DispatchPlan{Offset: int32s(3, 1), Token: int32s(9, 1), Place: int32s(3, 3), Weight: tensor.FromF32(3, 3, make([]float32, 9))},
		N:       tensor.FromI32(1, 1, []int32{3}), Experts: 2,
	}
	offset, token, place, weight := int32s(3, 1), int32s(9, 1), int32s(3, 3), tensor.FromF32(3, 3, make([]float32, 9))
	run(t, d, o, []wanted{{&o.Plan.Offset, offset}, {&o.Plan.Token, token}, {&o.Plan.Place, place}, {&o.Plan.Weight, weight}})
	got := fmt.Sprint(offset.I32(), token.I32()[:3], place.I32(), weight.F32())
	if want := "[0 1 3] [0 0 1] [1 0 -1 -1 -1 2 -1 -1 -1] [0.625 0.25 0 0 0 0.75 0 0 0]"; got != want {
		t.Errorf("offsets, tokens, places, weights %s, want %s", got, want)
	}
}

// network is the shape of the experts: formats takes turns, a bank each.
type network struct {
	width   int
	formats []*quant.Format
}

func ffns() []tensortest.Case {
	f32 := []*quant.Format{quant.F32}
	var cases []tensortest.Case
	for rows := 1; rows <= 9; rows++ {
		for dim := 1; dim <= 9; dim++ {
			cases = append(cases, ffn(size{rows, 1 + (rows+dim)%6, 1 + rows*dim%2*((rows+dim)%6)/2, dim}, network{10 - dim, f32}))
		}
	}
	for _, f := range tensortest.Formats() {
		dim := max(f.Block, 32)
		cases = append(cases,
			ffn(size{1, 5, 2, dim}, network{2 * dim, []*quant.Format{f}}),
			ffn(size{7, 9, 3, 2 * dim}, network{dim, []*quant.Format{f}}),
			ffn(size{33, 3, 2, dim}, network{dim, []*quant.Format{f}}))
	}
	return append(cases,
		ffn(size{9, 8, 2, 64}, network{96, []*quant.Format{quant.Q8_0, quant.F16}}),
		ffn(size{20, 12, 4, 256}, network{256, []*quant.Format{quant.Q4_K, quant.Q6_K, quant.BF16}}),
		ffn(size{5, 4, 2, 64}, network{32, []*quant.Format{quant.Q4_0, quant.Q4_0}}))
}

// ffn runs experts of several banks over rows that were dispatched by the reference.
func ffn(s size, n network) tensortest.Case {
	name := tensortest.Labels("ffn", n.formats, s.rows, "x", s.dim, "x", n.width, "experts", s.experts, "k", s.k)
	return tensortest.Case{Name: name, Rows: s.rows, Make: func(w *tensortest.World) tensortest.Trial {
		d := choose(w, s).dispatch(w)
		d.Reference()
		o := &moe.FFN{
			X: w.Batch(1, s.dim), Y: w.Output(quant.F32, 1, s.dim), Plan: d.Plan, N: w.Count(),
			Hidden: w.Output(quant.F32, s.k, n.width), Out: w.Output(quant.F32, s.k, s.dim), Banks: n.banks(w, d.Experts, s.dim),
		}
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.Y}}
	}}
}

// banks deals experts out to banks in turn.
func (n network) banks(w *tensortest.World, experts, dim int) []moe.Bank {
	banks := make([]moe.Bank, len(n.formats))
	for b, f := range n.formats {
		count := 0
		slot := make([]int32, experts)
		for e := range slot {
			if slot[e] = -1; e%len(banks) == b {
				slot[e] = int32(count)
				count++
			}
		}
		banks[b] = moe.Bank{Gate: w.Weight(f, count*n.width, dim), Up: w.Weight(f, count*n.width, dim), Down: w.Weight(f, count*dim, n.width), Slot: slot}
	}
	return banks
}
