package compress

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// cheapest is the least cost of giving rows from i on the columns that are left.
func cheapest(cost [][]float64, i int, taken []bool) float64 {
	if i == len(cost) {
		return 0
	}
	best := math.Inf(1)
	for j, c := range cost[i] {
		if !taken[j] {
			taken[j] = true
			best = min(best, c+cheapest(cost, i+1, taken))
			taken[j] = false
		}
	}
	return best
}

func TestAssignEqualsBruteForce(t *testing.T) {
	for n := range 8 {
		for seed := range uint64(30) {
			rnd := rand.New(rand.NewPCG(seed, uint64(n)))
			cost := make([][]float64, n)
			for i := range cost {
				for range n {
					c := rnd.NormFloat64()
					if seed%3 == 0 {
						c = float64(rnd.IntN(3)) // ties
					}
					cost[i] = append(cost[i], c)
				}
			}
			got, err := Assign(cost)
			if err != nil {
				t.Fatal(err)
			}
			taken, sum := make([]bool, n), 0.0
			for i, j := range got {
				if taken[j] {
					t.Fatalf("n %d, seed %d: %v is no permutation", n, seed, got)
				}
				taken[j] = true
				sum += cost[i][j]
			}
			if want := cheapest(cost, 0, make([]bool, n)); math.Abs(sum-want) > 1e-9 {
				t.Errorf("n %d, seed %d: %v costs %v, the best costs %v", n, seed, got, sum, want)
			}
			if again, err := Assign(cost); err != nil || !slices.Equal(got, again) {
				t.Errorf("n %d, seed %d: %v, then %v", n, seed, got, again)
			}
		}
	}
}

func TestAssignRefuses(t *testing.T) {
	for _, cost := range [][][]float64{{{1, 2}}, {{1}, {2}}, {{math.NaN()}}, {{1, 2}, {math.Inf(1), 3}}} {
		if _, err := Assign(cost); !errors.Is(err, ErrPlan) {
			t.Errorf("%v: %v", cost, err)
		}
	}
}
