package moe

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/winnow-llm/winnow/tensor"
)

// Spelling only the numbers that have mass gives the bits of all numbers, and weights sum to 1.
func TestDSelectIsDense(t *testing.T) {
	for _, n := range []int{1, 2, 5, 8, 9, 96} {
		for _, gamma := range []float32{0.01, 1, 10} {
			draw := func() *RouteDSelect {
				return dselectOf(DSelectSpec{Experts: n, Selectors: 3, Gamma: gamma, Cut: TreeCut})
			}
			sparse, dense := draw(), draw()
			sparse.Reference()
			dense.Dense()
			have, want := fmt.Sprint(sparse.IDs.I32(), sparse.Weights.F32(), sparse.Active.I32()), fmt.Sprint(dense.IDs.I32(), dense.Weights.F32(), dense.Active.I32())
			if have != want {
				t.Errorf("n %d gamma %v: sparse %s, dense %s", n, gamma, have, want)
			}
			for row := range sparse.X.Rows {
				var sum float64
				for _, w := range sparse.Weights.F32()[row*n : (row+1)*n] {
					sum += float64(w)
				}
				if lost := sparse.Active.I32()[2*row] == 0 && n&(n-1) != 0; !lost && math.Abs(sum-1) > 1e-5 {
					t.Errorf("n %d gamma %v row %d: weights sum to %v", n, gamma, row, sum)
				}
			}
		}
	}
}

func dselectOf(s DSelectSpec) *RouteDSelect {
	const rows, dim = 20, 16
	r := rand.New(rand.NewPCG(11, 12))
	normal := func(rows, cols int) tensor.Mat {
		v := make([]float32, rows*cols)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return tensor.FromF32(rows, cols, v)
	}
	o := &RouteDSelect{
		X: normal(rows, dim), Share: normal(s.Selectors, dim), Phys: tensor.FromI32(1, s.Experts, EveryExpert(s.Experts).Phys), Spec: s,
		IDs: tensor.FromI32(rows, s.Experts, make([]int32, rows*s.Experts)), Weights: tensor.FromF32(rows, s.Experts, make([]float32, rows*s.Experts)),
		Active: tensor.FromI32(rows, 2, make([]int32, 2*rows)), N: tensor.FromI32(1, 1, []int32{rows}),
	}
	if s.Bits() > 0 {
		o.Digits = normal(s.Selectors*s.Bits(), dim)
	}
	return o
}

// Two selectors, worked by hand: bits of (1, 0) are 1 with mass 1 and 0.5, so that experts 2 and 3 share the first selector; the second is
// sure of expert 1. Equal scores share the weight.
func TestDSelectByHand(t *testing.T) {
	o := dselectOf(DSelectSpec{Experts: 4, Selectors: 2, Gamma: 1, Cut: TreeCut})
	o.X, o.N = tensor.FromF32(1, 2, []float32{1, 0}), tensor.FromI32(1, 1, []int32{1})
	o.Digits, o.Share = tensor.FromF32(4, 2, []float32{9, 0, 0, 9, -9, 0, 9, 0}), tensor.FromF32(2, 2, make([]float32, 4))
	o.Reference()
	if have := fmt.Sprint(o.IDs.I32()[:4], o.Weights.F32()[:4], o.Active.I32()[:2]); have != "[1 2 3 -1] [0.5 0.25 0.25 0] [3 0]" {
		t.Error(have)
	}
}

// A table chooses, the gate weighs: the weights are those that Route gives to the same experts.
func TestHashWeighsAsRoute(t *testing.T) {
	logits := []float32{1.2, -0.3, 0.8, 2, 0.1, -1, 1.9, 0.5}
	spec := RouterSpec{Experts: 8, K: 2, Score: Softmax, Weight: FromScore, Norm: true, NormMinK: 1, Scale: 1}
	o := &RouteHash{
		X: tensor.FromF32(3, 1, []float32{1, 1, 1}), W: tensor.FromF32(8, 1, logits), Phys: tensor.FromI32(1, 8, EveryExpert(8).Phys),
		Tokens: tensor.FromI32(3, 1, []int32{1, 0, 2}), Table: tensor.FromI32(3, 2, []int32{0, 5, 6, 3, 5, 2}), N: tensor.FromI32(1, 1, []int32{3}),
		Logits: tensor.FromF32(3, 8, make([]float32, 24)), IDs: tensor.FromI32(3, 2, make([]int32, 6)), Weights: tensor.FromF32(3, 2, make([]float32, 6)),
		Spec: spec,
	}
	o.Phys.I32()[5] = -1
	o.Reference()
	if have := fmt.Sprint(o.IDs.I32()); have != "[6 3 0 -1 2 -1]" {
		t.Errorf("chooses %s", have)
	}
	for i, want := range []float64{0.475021, 0.524979, 1, 0, 1, 0} {
		if have := float64(o.Weights.F32()[i]); math.Abs(have-want) > 1e-6 {
			t.Errorf("weights %v", o.Weights.F32())
			break
		}
	}
	for _, table := range [][]int32{{0, 8}, {-2, 0}} {
		if spec.CheckTable(table) == nil {
			t.Errorf("the table %v is taken", table)
		}
	}
	if err := spec.CheckTable([]int32{-1, 7}); err != nil {
		t.Error(err)
	}
}
