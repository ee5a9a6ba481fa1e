package attention

import (
	"cmp"
	"slices"
)

// ranked are the indices of scores, the largest score first and equals by index.
func ranked(scores []float32) []int32 {
	order := make([]int32, len(scores))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(scores[b], scores[a]), cmp.Compare(a, b))
	})
	return order
}

// top is the indices of the k largest scores, ascending; of equal ones the first.
func top(scores []float32, k int) []int32 {
	best := ranked(scores)[:min(max(k, 0), len(scores))]
	slices.Sort(best)
	return best
}

// cover is the fewest indices, ascending, whose masses reach a share of all mass: the largest, of equal ones the first. Sums are taken in
// float32 from the largest down, so that kernels cut at the same place.
func cover(masses []float32, share float32) []int32 {
	order := ranked(masses)
	var total, sum float32
	for _, i := range order {
		total += masses[i]
	}
	k := 0
	for k < len(order) && sum < share*total {
		sum += masses[order[k]]
		k++
	}
	best := order[:k]
	slices.Sort(best)
	return best
}
