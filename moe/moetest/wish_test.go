package moetest

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// routed is what a router chooses of logits under a wish.
func routed(spec moe.RouterSpec, logits, pick []float32, wish moe.Wish) (ids []int32, weights []float32, mass float32) {
	n, k := len(logits), spec.K
	spec.Experts = n
	table := make([]float32, moe.WishK+1)
	table[moe.WishMinP], table[moe.WishMass], table[moe.WishSkip], table[moe.WishK] = wish.MinP, wish.Mass, wish.Skip, float32(wish.K)
	o := &moe.Route{
		X: tensor.FromF32(1, 1, []float32{1}), W: tensor.FromF32(n, 1, logits), Phys: tensor.FromI32(1, n, moe.EveryExpert(n).Phys),
		Logits: tensor.FromF32(1, n, make([]float32, n)), IDs: tensor.FromI32(1, k, make([]int32, k)),
		Weights: tensor.FromF32(1, k, make([]float32, k)), N: tensor.FromI32(1, 1, []int32{1}), Spec: spec,
		Wish: tensor.FromF32(1, len(table), table), Of: tensor.FromI32(1, 1, []int32{1}), Mass: tensor.FromF32(1, 1, make([]float32, 1)),
	}
	if pick != nil {
		o.Select = tensor.FromF32(1, n, pick)
	}
	if wish == (moe.Wish{}) {
		o.Of.I32()[0] = 0
	}
	o.Reference()
	return o.IDs.I32(), o.Weights.F32(), o.Mass.F32()[0]
}

// The softmax of z is 0.314653, 0.284710, 0.141383, 0.094772 for the four best, 0.835518 together.
func TestWishes(t *testing.T) {
	normed := moe.RouterSpec{K: 4, Score: moe.Softmax, Weight: moe.FromScore, Norm: true, NormMinK: 1, Scale: 1}
	plain := normed
	plain.Norm = false
	after := normed
	after.Norm, after.Weight = false, moe.SoftmaxTopK
	for _, c := range []struct {
		name    string
		spec    moe.RouterSpec
		pick    []float32
		wish    moe.Wish
		ids     []int32
		weights []float64
		mass    float64
	}{
		{"k", plain, nil, moe.Wish{K: 2}, []int32{3, 6, -1, -1}, []float64{0.314653, 0.284710, 0, 0}, 0.717355},
		{"k of a family with norm", normed, nil, moe.Wish{K: 2}, []int32{3, 6, -1, -1}, []float64{0.524979, 0.475021, 0, 0}, 0.717355},
		{"k of a softmax behind the choice", after, nil, moe.Wish{K: 2}, []int32{3, 6, -1, -1}, []float64{0.524979, 0.475021, 0, 0}, 0.717355},
		{"min-p", plain, nil, moe.Wish{MinP: 0.4}, []int32{3, 6, 0, -1}, []float64{0.314653, 0.284710, 0.141383, 0}, 0.886571},
		{"skip", plain, nil, moe.Wish{Skip: 0.95}, []int32{3, -1, -1, -1}, []float64{0.314653, 0, 0, 0}, 0.376596},
		{"mass", plain, nil, moe.Wish{Mass: 0.72}, []int32{3, 6, 0, -1}, []float64{0.314653, 0.284710, 0.141383, 0}, 0.886571},
		{"mass within k", plain, nil, moe.Wish{K: 1, Mass: 0.9}, []int32{3, -1, -1, -1}, []float64{0.314653, 0, 0, 0}, 0.376596},
		{"all of the mass", plain, nil, moe.Wish{Mass: 1}, []int32{3, 6, 0, 2}, []float64{0.314653, 0.284710, 0.141383, 0.094772}, 1},
		// A selection bias chooses 1 and 6 first, then 7 and 4; 6 is the heaviest, so min-p drops the first one, and skipping measures by it.
		{"min-p under a bias", plain, bias, moe.Wish{MinP: 0.2}, []int32{6, 7, -1, -1}, []float64{0.284710, 0.070209, 0, 0}, 0.818675},
		{"skip under a bias", plain, bias, moe.Wish{Skip: 1}, []int32{1, 6, 7, 4}, []float64{0.031547, 0.284710, 0.070209, 0.047062}, 1},
	} {
		ids, weights, mass := routed(c.spec, z, c.pick, c.wish)
		if !reflect.DeepEqual(ids, c.ids) || !(math.Abs(float64(mass)-c.mass) < 2e-6) {
			t.Errorf("%s: %v with a share of %v, want %v with %v", c.name, ids, mass, c.ids, c.mass)
		}
		for i, w := range weights {
			if !(math.Abs(float64(w)-c.weights[i]) <= goldenTolerance) {
				t.Errorf("%s: weights %v, want %v", c.name, weights, c.weights)
			}
		}
	}
}

// A wish for the model's own K changes no bit, one for k is the router of k experts, and more experts hold more of the mass.
func TestWishesForK(t *testing.T) {
	r := rand.New(rand.NewPCG(tensortest.Seed, 0))
	for _, f := range families {
		spec := f.spec
		spec.K, spec.NormMinK = 8, 1
		logits, before := make([]float32, 24), float32(-1)
		for i := range logits {
			logits[i] = float32(r.NormFloat64())
		}
		for k := 1; k <= spec.K; k++ {
			ids, weights, mass := routed(spec, logits, nil, moe.Wish{K: k})
			fewer := spec
			fewer.K = k
			wantIDs, wantWeights, _ := routed(fewer, logits, nil, moe.Wish{})
			if !reflect.DeepEqual(ids[:k], wantIDs) || !reflect.DeepEqual(weights[:k], wantWeights) {
				t.Errorf("%s: a wish for %d is %v %v, the router of %d is %v %v", f.name, k, ids, weights, k, wantIDs, wantWeights)
			}
			for i := k; i < spec.K; i++ {
				if ids[i] != -1 || weights[i] != 0 {
					t.Errorf("%s: a wish for %d leaves %v %v", f.name, k, ids, weights)
				}
			}
			if f.spec.Score != moe.Identity && mass < before || k == spec.K && mass != 1 {
				t.Errorf("%s: %d experts have a share of %v, fewer had %v", f.name, k, mass, before)
			}
			before = mass
		}
	}
}

// A logit that is NaN is never chosen, and takes nothing from others.
func TestNaNIsPruned(t *testing.T) {
	spec := moe.RouterSpec{K: 2, Score: moe.Softmax, Weight: moe.FromScore, Norm: true, NormMinK: 1, Scale: 1}
	ids, weights, _ := routed(spec, []float32{1, float32(math.NaN()), 1, 0}, nil, moe.Wish{})
	if !reflect.DeepEqual(ids, []int32{0, 2}) || weights[0] != 0.5 || weights[1] != 0.5 {
		t.Errorf("%v %v", ids, weights)
	}
	nan := float32(math.NaN())
	if ids, weights, _ = routed(spec, []float32{nan, nan, nan}, nil, moe.Wish{}); ids[0] != -1 || weights[0] != 0 {
		t.Errorf("of nothing but NaN %v %v are chosen", ids, weights)
	}
}
