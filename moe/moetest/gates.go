package moetest

import (
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// gates are the routers that are neither one matrix nor trees.
func gates() []tensortest.Case {
	var cases []tensortest.Case
	for n := 1; n <= 9; n++ {
		for k := 1; k <= min(n, 4); k++ {
			s := size{1 + (n+k)%9, n, k, 1 + n*k%9}
			cases = append(cases, hash(families[(n+k)%len(families)], s), dselect(s, 0.01), dselect(s, 1), dselect(s, 10))
		}
	}
	for _, f := range families {
		cases = append(cases, hash(f, size{5, 40, 8, 64}))
	}
	for _, f := range []string{"mixtral", "gpt-oss", "glm", "bad"} {
		for _, s := range []size{{9, 5, 2, 7}, {3, 40, 8, 64}, {17, 128, 2, 33}} {
			short := shortlist(families[slices.IndexFunc(families, func(x family) bool { return x.name == f })], s)
			cases = append(cases, short, wishing(short))
		}
	}
	return append(cases, hash(family{name: "no gate"}, size{9, 16, 2, 32}), dselect(size{5, 96, 4, 100}, 1), dselect(size{2, 1024, 2, 48}, 10))
}

// hash is a table of eleven tokens, some of whose experts are pruned or left open. A family without a name of a score has no gate.
func hash(f family, s size) tensortest.Case {
	name := tensortest.Labels("hash", f.name, s.rows, "x", s.dim, "experts", s.experts, "k", s.k)
	return tensortest.Case{Name: name, Rows: s.rows, Make: func(w *tensortest.World) tensortest.Trial {
		const vocab = 11
		table := make([]int32, 0, vocab*s.k)
		for range vocab {
			for _, e := range w.Perm(s.experts)[:s.k] {
				if w.IntN(9) == 0 {
					e = -1
				}
				table = append(table, int32(e))
			}
		}
		o := &moe.RouteHash{
			X: w.Batch(1, s.dim), Tokens: w.Pick(w.Ints(1, vocab)), Table: tensor.FromI32(vocab, s.k, table), Phys: pruned(w, s.experts, s.k), N: w.Count(),
			IDs: w.Output(quant.I32, 1, s.k), Weights: w.Output(quant.F32, 1, s.k), Spec: f.spec,
		}
		o.Spec.Experts, o.Spec.K, o.Spec.Scale = s.experts, s.k, max(f.spec.Scale, 1)
		byRow := []*tensor.Mat{&o.IDs, &o.Weights}
		if f.spec.Score != "" {
			o.W, o.Logits = w.Floats(s.experts, s.dim), w.Output(quant.F32, 1, s.experts)
			byRow = append(byRow, &o.Logits)
		}
		if f.bias {
			o.Bias = w.Floats(1, s.experts)
		}
		if f.bad {
			spoil(w, o.Bias.F32())
		}
		return tensortest.Trial{Op: o, ByRow: byRow}
	}}
}

// dselect has as many selectors as choices.
func dselect(s size, gamma float32) tensortest.Case {
	name := tensortest.Labels("dselect", fmt.Sprint(gamma), s.rows, "x", s.dim, "experts", s.experts, "selectors", s.k)
	return tensortest.Case{Name: name, Rows: s.rows, Make: func(w *tensortest.World) tensortest.Trial {
		spec := moe.DSelectSpec{Experts: s.experts, Selectors: s.k, Gamma: gamma, Cut: moe.TreeCut}
		o := &moe.RouteDSelect{
			X: w.Batch(1, s.dim), Share: w.Floats(s.k, s.dim), ShareBias: w.Floats(1, s.k), Phys: pruned(w, s.experts, s.k), N: w.Count(),
			IDs: w.Output(quant.I32, 1, s.k), Weights: w.Output(quant.F32, 1, s.k), Active: w.Output(quant.I32, 1, 2), Spec: spec,
		}
		if rows := s.k * spec.Bits(); rows > 0 {
			o.Digits = w.Floats(rows, s.dim)
			if s.k%2 == 0 {
				o.DigitBias = w.Floats(1, rows)
			}
		}
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.IDs, &o.Weights, &o.Active}}
	}}
}

// shortlist has twice as many experts as choices, and leaves in any order.
func shortlist(f family, s size) tensortest.Case {
	name := tensortest.Labels("shortlist", f.name, s.rows, "x", s.dim, "experts", s.experts, "k", s.k)
	return tensortest.Case{Name: name, Rows: s.rows, Make: func(w *tensortest.World) tensortest.Trial {
		leaves := make([]int32, 2*s.experts-1)
		for i, e := range w.Perm(s.experts) {
			leaves[s.experts-1+i] = int32(e)
		}
		o := &moe.RouteShortlist{
			X: w.Batch(1, s.dim), Nodes: w.Floats(s.experts-1, s.dim), NodeBias: w.Floats(1, s.experts-1), Leaves: tensor.FromI32(1, len(leaves), leaves),
			W: w.Floats(s.experts, s.dim), Phys: pruned(w, s.experts, s.k), N: w.Count(), Spec: f.spec, Size: 2 * s.k,
			IDs: w.Output(quant.I32, 1, s.k), Weights: w.Output(quant.F32, 1, s.k), Read: w.Output(quant.I32, 1, 2),
		}
		o.Spec.Experts, o.Spec.K = s.experts, s.k
		if f.bias {
			o.Bias = w.Floats(1, s.experts)
		}
		if f.pick {
			o.Select = w.Floats(1, s.experts)
		}
		if f.bad {
			spoil(w, o.Bias.F32())
		}
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.IDs, &o.Weights, &o.Read}}
	}}
}
