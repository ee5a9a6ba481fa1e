package moetest

import (
	"fmt"
	"math"
	"testing"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// trees is what routers of trees differ in, beside their size, of which k is how many trees there are.
type trees struct {
	gamma    float32
	columns  int // most choices of a row; 0 = every expert
	byExpert bool
	bare     bool // neither leaves nor biases
	pruned   bool
	bad      bool // a few weights are no numbers
}

func treeRoutes() []tensortest.Case {
	var cases []tensortest.Case
	for n := 1; n <= 9; n++ {
		for k := 1; k <= 4; k++ {
			s := size{1 + (n+k)%9, n, k, 1 + n*k%9}
			cases = append(cases,
				treeCase(s, trees{gamma: 1, byExpert: n%2 == 0}), treeCase(s, trees{gamma: 0.01, bare: k == 1, columns: 1 + k%n}),
				treeCase(s, trees{gamma: 10, columns: 1 + n/3, pruned: true, byExpert: k%2 == 0}), treeCase(s, trees{gamma: 3, bad: true}))
		}
	}
	for _, gamma := range []float32{0.01, 1, 10} {
		cases = append(cases, treeCase(size{7, 16, 4, 32}, trees{gamma: gamma}), treeCase(size{3, 96, 2, 100}, trees{gamma: gamma, columns: 8}),
			treeCase(size{5, 128, 8, 64}, trees{gamma: gamma, columns: 16, pruned: true}), treeCase(size{2, 1024, 2, 48}, trees{gamma: gamma, columns: 64}))
	}
	return cases
}

func treeCase(s size, r trees) tensortest.Case {
	name := tensortest.Labels("tree", fmt.Sprintf("%+v", r), s.rows, "x", s.dim, "experts", s.experts, "trees", s.k)
	return tensortest.Case{Name: name, Rows: s.rows, Make: func(w *tensortest.World) tensortest.Trial {
		o := makeTree(w, s, r)
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.IDs, &o.Weights, &o.Active}}
	}}
}

func makeTree(w *tensortest.World, s size, r trees) *moe.RouteTree {
	spec := moe.TreeSpec{Experts: s.experts, Trees: s.k, Gamma: r.gamma, Cut: moe.TreeCut}
	columns := s.experts
	if r.columns > 0 {
		columns = r.columns
	}
	o := &moe.RouteTree{
		X: w.Batch(1, s.dim), IDs: w.Output(quant.I32, 1, columns), Weights: w.Output(quant.F32, 1, columns),
		Active: w.Output(quant.I32, 1, 2), N: w.Count(), Spec: spec,
	}
	if nodes := s.k * spec.Nodes(); nodes > 0 {
		o.Nodes = w.Floats(nodes, s.dim)
		if !r.bare {
			o.NodeBias = w.Floats(1, nodes)
		}
	}
	scorers, by := s.k*s.experts, moe.ScorerByLeaf
	if r.byExpert {
		scorers, by = s.experts, moe.ScorerByExpert
	}
	if !r.bare {
		o.Leaves, o.LeafBias = w.Floats(scorers, s.dim), w.Floats(1, scorers)
	}
	if r.bad {
		spoil(w, o.LeafBias.F32()[:scorers/2])
		if o.NodeBias.Present() {
			spoil(w, o.NodeBias.F32()[:o.NodeBias.Cols/4])
		}
	}
	o.Places = places(w, spec, r, by)
	return o
}

// places are those of leaves in any order, some of them pruned.
func places(w *tensortest.World, spec moe.TreeSpec, r trees, by moe.Scorers) tensor.Mat {
	leaves := make([]int32, 0, spec.Trees*spec.Experts)
	for range spec.Trees {
		for _, e := range w.Perm(spec.Experts) {
			leaves = append(leaves, int32(e))
		}
	}
	if r.pruned {
		for i := 1; i < len(leaves); i++ {
			if w.IntN(2) == 0 {
				leaves[i] = -1
			}
		}
	}
	at, err := spec.Places(leaves, by)
	if err != nil {
		panic("winnow: bug: moetest: " + err.Error())
	}
	return tensor.FromI32(len(at)/2, 2, at)
}

// GoldenTree checks a device's trees against weights that were computed independently.
func GoldenTree(t *testing.T, d tensor.Device) {
	spec := moe.TreeSpec{Experts: 3, Trees: 2, Gamma: 1, Cut: moe.TreeCut}
	at, err := spec.Places(spec.EveryLeaf(), moe.ScorerByLeaf)
	if err != nil {
		t.Fatal(err)
	}
	o := &moe.RouteTree{
		X:        tensor.FromF32(1, 2, []float32{0.4, -0.2}),
		Nodes:    tensor.FromF32(4, 2, []float32{1, 0, 0, 1, -1, 1, 0.5, 0.5}),
		NodeBias: tensor.FromF32(1, 4, []float32{0, 0.1, 0, 0}),
		Leaves:   tensor.FromF32(6, 2, []float32{1, 0, 0, 1, 1, 1, 0, 2, 1, -1, -1, 0}),
		Places:   tensor.FromI32(len(at)/2, 2, at), N: tensor.FromI32(1, 1, []int32{1}), Spec: spec,
		IDs: tensor.FromI32(1, 3, make([]int32, 3)), Weights: tensor.FromF32(1, 3, make([]float32, 3)), Active: tensor.FromI32(1, 2, make([]int32, 2)),
	}
	ids, weights, active := tensor.FromI32(1, 3, make([]int32, 3)), tensor.FromF32(1, 3, make([]float32, 3)), tensor.FromI32(1, 2, make([]int32, 2))
	run(t, d, o, []wanted{{&o.IDs, ids}, {&o.Weights, weights}, {&o.Active, active}})
	if fmt.Sprint(ids.I32(), active.I32()) != "[2 1 0] [3 0]" {
		t.Errorf("experts %v of which %v are active, want [2 1 0] and [3 0]", ids.I32(), active.I32())
	}
	for i, want := range []float64{0.407091, 0.297975, 0.294934} {
		if have := float64(weights.F32()[i]); !(math.Abs(have-want) <= goldenTolerance) {
			t.Errorf("weight %d is %v, want %v", i, have, want)
		}
	}
}
