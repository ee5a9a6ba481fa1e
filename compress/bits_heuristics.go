package compress

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Rank says in which order Promote raises units: the largest first.
type Rank func(*Unit) float64

// Ranks of QuantMoE-Bench, which policies of ours are compared with. Only experts differ in the first two of them.
var (
	ByUsage   Rank = func(u *Unit) float64 { return float64(u.Tokens) } // how many tokens chose the expert
	ByOutlier Rank = func(u *Unit) float64 { return u.Outlier }         // how far a column's largest value stands out
)

// ByEnds ranks the layers at both ends of a model of so many layers first: 0, the last, 1, the last but one ...
func ByEnds(layers int) Rank {
	return func(u *Unit) float64 { return -math.Min(float64(u.Layer), float64(layers-1-u.Layer)+0.5) }
}

// ByImportance ranks layers by how much they change what passes through them.
func ByImportance(p *Profile) Rank {
	return func(u *Unit) float64 {
		if u.Layer >= len(p.Layers) {
			return 0
		}
		return p.Layers[u.Layer].Importance
	}
}

// promoted is in how many bits a unit is kept that a heuristic raises.
const promoted = 4

// Promote starts all units at their floors, like Allocate, and raises units to 4 bits in the order of rank, until the next does not fit.
// If all are raised and bytes are left, it raises them to their next choices in the same order.
func Promote(units []Unit, budget int64, rank Rank) ([]int, error) {
	a := &allocation{units: units, chosen: make([]int, len(units))}
	left, err := a.start(budget)
	if err != nil {
		return nil, err
	}
	order := make([]int, len(units))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(rank(&units[j]), rank(&units[i])) })
	for round := 0; ; round++ {
		raised := false
		for _, i := range order {
			u, to := &units[i], a.chosen[i]
			if round > 0 {
				to = min(to+1, len(u.Choices)-1)
			}
			for round == 0 && to+1 < len(u.Choices) && u.bits(to) < promoted {
				to++
			}
			bytes := u.Choices[to].Bytes - u.Choices[a.chosen[i]].Bytes
			if bytes > left {
				return a.chosen, nil
			}
			left -= bytes
			raised = raised || to != a.chosen[i]
			a.chosen[i] = to
		}
		if !raised && round > 0 {
			return a.chosen, nil
		}
	}
}

// Uniform gives all units their largest choices within the same bits a value, as many as fit the budget; units with higher floors stay on
// them.
func Uniform(units []Unit, budget int64) ([]int, error) {
	a := &allocation{units: units, chosen: make([]int, len(units))}
	if _, err := a.start(budget); err != nil {
		return nil, err
	}
	var widths []float64
	for i := range units {
		for c := range units[i].Choices {
			widths = append(widths, units[i].bits(c))
		}
	}
	slices.Sort(widths)
	for _, width := range slices.Backward(slices.Compact(widths)) {
		level, bytes := make([]int, len(units)), int64(0)
		for i := range units {
			u := &units[i]
			level[i] = u.Floor
			for c := u.Floor + 1; c < len(u.Choices) && u.bits(c) <= width; c++ {
				level[i] = c
			}
			bytes += u.Choices[level[i]].Bytes
		}
		if bytes <= budget {
			return level, nil
		}
	}
	return a.chosen, nil
}

// Outlier says how far the largest value of a column stands out of it: the maximum over columns of the largest magnitude over the mean
// magnitude. The matrix is rows of so many values; of nothing but zeros it is 0.
func Outlier(values []float32, cols int) float64 {
	if cols <= 0 || len(values)%cols != 0 {
		panic(fmt.Sprintf("winnow: bug: compress: %d values are no rows of %d", len(values), cols))
	}
	score := 0.0
	for j := range cols {
		var largest, sum float64
		for i := j; i < len(values); i += cols {
			v := math.Abs(float64(values[i]))
			largest, sum = max(largest, v), sum+v
		}
		if sum > 0 {
			score = max(score, largest*float64(len(values)/cols)/sum)
		}
	}
	return score
}
