package moe

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// specs are routers of every score, with experts and K left open.
var specs = map[string]RouterSpec{
	"softmax, renormalised": {Score: Softmax, Weight: FromScore, Norm: true, NormMinK: 1, Scale: 1},
	"softmax":               {Score: Softmax, Weight: FromScore, Scale: 1},
	"softmax of the chosen": {Score: Identity, Weight: SoftmaxTopK, Scale: 1},
	"sigmoid":               {Score: Sigmoid, Weight: FromScore, Norm: true, NormMinK: 2, NormEps: 1e-20, Scale: 2.5},
	"sqrt-softplus":         {Score: SqrtSoftplus, Weight: FromScore, Norm: true, NormMinK: 2, Scale: 1.5},
	"sparse mixer":          {Score: Identity, Weight: SparseMixer, Band: 0.01, Scale: 1},
}

// chosen runs a router on one row with every expert live.
func (s RouterSpec) chosen(z, bias []float32) Choice {
	out := Choice{make([]int32, s.K), make([]float32, s.K)}
	s.Choose(z, bias, EveryExpert(len(z)).Phys, out)
	return out
}

func near(a, b []float32) bool {
	for i := range a {
		if !(math.Abs(float64(a[i]-b[i])) <= 1e-5) {
			return false
		}
	}
	return len(a) == len(b)
}

func TestRouterProperties(t *testing.T) {
	for name, s := range specs {
		r := rand.New(rand.NewPCG(1, uint64(len(name))))
		for _, n := range []int{1, 2, 3, 8, 40, 60, 96, 128, 160, 256, 288, 384, 512, 576, 896, 1024} {
			s.Experts, s.K = n, min(n, 1+r.IntN(16))
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			z, bias := make([]float32, n), make([]float32, n)
			for e, x := range r.Perm(n) { // no ties, and constants add without rounding
				z[e], bias[e] = float32(x-n/2)/64, float32(r.IntN(8))/64+float32(x)/65536
			}
			whole := s.chosen(z, bias)
			if ids := slices.Sorted(slices.Values(whole.IDs)); len(slices.Compact(ids)) != s.K || ids[0] < 0 {
				t.Errorf("%s, n %d: ids %v", name, n, whole.IDs)
			}
			perm := r.Perm(n)
			z2, bias2 := make([]float32, n), make([]float32, n)
			for e, p := range perm {
				z2[p], bias2[p] = z[e], bias[e]
			}
			moved := s.chosen(z2, bias2)
			for i, e := range whole.IDs {
				if moved.IDs[i] != int32(perm[e]) {
					t.Errorf("%s, n %d: slot %d of renumbered experts is %d, want %d", name, n, i, moved.IDs[i], perm[e])
					break
				}
			}
			if !near(moved.Weights, whole.Weights) {
				t.Errorf("%s, n %d: renumbered experts weigh %v, want %v", name, n, moved.Weights, whole.Weights)
			}
			lifted := slices.Clone(bias)
			for e := range lifted {
				lifted[e]++
			}
			if c := s.chosen(z, lifted); !slices.Equal(c.IDs, whole.IDs) || !slices.Equal(c.Weights, whole.Weights) {
				t.Errorf("%s, n %d: a constant in the selection bias changes the choice", name, n)
			}
			if s.Score != Softmax && s.Weight != SoftmaxTopK {
				continue
			}
			for e := range z2 {
				z2[e] = z[e] + 8
			}
			if c := s.chosen(z2, bias); !slices.Equal(c.IDs, whole.IDs) || !near(c.Weights, whole.Weights) {
				t.Errorf("%s, n %d: a constant in the logits changes the choice", name, n)
			}
		}
	}
}

// What is no number is never chosen, leaves slots open and is counted; weights stay numbers.
func TestRouterWithoutNumbers(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, s := range specs {
		for _, c := range []struct {
			z    []float32
			ids  []int32
			bad  int
			bias []float32
		}{
			{[]float32{nan, 1, nan, 2}, []int32{3, 1, -1}, 2, nil},
			{[]float32{inf, 1, -inf, nan}, []int32{1, -1, -1}, 2, nil},
			{[]float32{nan, nan, nan, nan}, []int32{-1, -1, -1}, 4, nil},
			{[]float32{-inf, -inf, -inf, -inf}, []int32{-1, -1, -1}, 0, nil},
			{[]float32{3, 1, 2, 0}, []int32{2, 1, -1}, 0, []float32{nan, 0, 0, -inf}},
			{[]float32{-1e30, -2e30, -3e30, -3e38}, []int32{0, 1, 2}, 0, nil},
		} {
			s.Experts, s.K = 4, 3
			out := Choice{make([]int32, 3), make([]float32, 3)}
			if bad := s.Choose(c.z, c.bias, EveryExpert(4).Phys, out); bad != c.bad || !slices.Equal(out.IDs, c.ids) {
				t.Errorf("%s on %v with %v: %v and %d bad, want %v and %d", name, c.z, c.bias, out.IDs, bad, c.ids, c.bad)
			}
			for i, w := range out.Weights {
				if w != w || math.IsInf(float64(w), 0) || out.IDs[i] < 0 && w != 0 {
					t.Errorf("%s on %v: weights %v", name, c.z, out.Weights)
				}
			}
		}
	}
}

// Pruned rows at -inf choose and weigh as if they were not in the file.
func TestMaskedIsSliced(t *testing.T) {
	for name, s := range specs {
		r := rand.New(rand.NewPCG(5, uint64(len(name))))
		s.Experts, s.K = 12, 3
		for range 50 {
			m, z, left := EveryExpert(12), make([]float32, 12), []float32(nil)
			rows := []int32(nil)
			for e := range z {
				z[e] = float32(r.NormFloat64())
				if m.Phys[e] = int32(e); e%4 == 1 {
					m.Phys[e] = -1
					continue
				}
				left, rows = append(left, z[e]), append(rows, int32(e))
			}
			masked := Choice{make([]int32, 3), make([]float32, 3)}
			s.Choose(z, nil, m.Phys, masked)
			sliced := s.chosen(left, nil)
			for i, e := range sliced.IDs {
				if masked.IDs[i] != rows[e] || masked.Weights[i] != sliced.Weights[i] {
					t.Fatalf("%s: masked %v, sliced %v of %v", name, masked, sliced, rows)
				}
			}
		}
	}
}
