package compress

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/moe"
)

// brute recomputes outputs for one subset, from the outputs themselves.
func brute(r moe.RouterSpec, logits, outputs [][]float32, drop []int) float64 {
	run := func(t int, phys []int32) []float64 {
		c := moe.Choice{IDs: make([]int32, r.K), Weights: make([]float32, r.K)}
		r.Choose(logits[t], nil, phys, c)
		dim := len(outputs[t]) / r.Experts
		y := make([]float64, dim)
		for i, e := range c.IDs {
			for d := range y {
				y[d] += float64(c.Weights[i]) * float64(outputs[t][int(e)*dim+d])
			}
		}
		return y
	}
	phys := moe.EveryExpert(r.Experts).Phys
	for _, e := range drop {
		phys[e] = -1
	}
	var sum float64
	for t := range logits {
		a, b := run(t, moe.EveryExpert(r.Experts).Phys), run(t, phys)
		var square float64
		for d := range a {
			square += (a[d] - b[d]) * (a[d] - b[d])
		}
		sum += math.Sqrt(square)
	}
	return sum
}

func TestExhaustiveFindsTheBestSubset(t *testing.T) {
	for seed := range uint64(5) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		r := topK(6, 2)
		s, err := NewSample(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		var logits, outputs [][]float32
		for range 20 {
			z, y := make([]float32, 6), make([]float32, 6*5)
			for i := range z {
				z[i] = float32(rnd.NormFloat64())
			}
			for i := range y {
				y[i] = float32(rnd.NormFloat64())
			}
			logits, outputs = append(logits, z), append(outputs, y)
			if err := s.Add(z, y); err != nil {
				t.Fatal(err)
			}
		}
		got, err := s.Exhaustive(4)
		if err != nil || len(got) != 2 {
			t.Fatal(got, err)
		}
		for a := range 6 {
			for b := range a {
				if other := brute(r, logits, outputs, []int{b, a}); other < brute(r, logits, outputs, got)-1e-9 {
					t.Errorf("seed %d: without %v outputs move less than without %v", seed, []int{b, a}, got)
				}
			}
		}
		if all, err := s.Exhaustive(6); err != nil || len(all) != 0 {
			t.Error(all, err)
		}
	}
}

func TestExhaustiveDropsWhoeverIsNeverChosen(t *testing.T) {
	s, err := NewSample(topK(3, 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Add([]float32{1, -5, 2}, []float32{1, 1, 5, 5, 2, 2}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Exhaustive(1); err != nil || !slices.Equal(got, []int{0, 1}) {
		t.Error(got, err)
	}
}

func TestExhaustiveRefuses(t *testing.T) {
	if _, err := NewSample(topK(17, 2), nil); !errors.Is(err, ErrPlan) {
		t.Error(err)
	}
	if _, err := NewSample(topK(4, 5), nil); !errors.Is(err, ErrPlan) {
		t.Error(err)
	}
	if _, err := NewSample(topK(4, 2), []float32{1}); !errors.Is(err, ErrPlan) {
		t.Error(err)
	}
	s, err := NewSample(topK(4, 2), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Exhaustive(3); !errors.Is(err, ErrPlan) {
		t.Error(err)
	}
	if err := s.Add([]float32{1, 2, 3, 4}, []float32{1, 2, 3}); !errors.Is(err, ErrPlan) {
		t.Error(err)
	}
	if err := s.Add([]float32{1, 2, 3, 4}, []float32{1, 2, 3, 4}); err != nil {
		t.Error(err)
	}
	for _, keep := range []int{1, 5} {
		if _, err := s.Exhaustive(keep); !errors.Is(err, ErrPlan) {
			t.Error(keep, err)
		}
	}
}

func TestSkipBelowIsTheMedian(t *testing.T) {
	var l LayerProfile
	if got := l.SkipBelow(); got != 0 {
		t.Error(got)
	}
	l.Skips[32] = 10 // all ratios in [0.5, 0.515625)
	if got := l.SkipBelow(); got != (32+0.5)/64 {
		t.Error(got)
	}
	l.Skips[0] = 30
	if got := l.SkipBelow(); got != 20.0/30/64 {
		t.Error(got)
	}
	l.Skips[0] = 10
	if got := l.SkipBelow(); got != 1.0/64 {
		t.Error(got)
	}
}
