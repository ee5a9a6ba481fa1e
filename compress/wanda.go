package compress

import (
	"iter"
	"math"
	"slices"
)

// Wanda chooses the weights of one output row that become zero: exactly floor(share * columns) of them, those of the lowest |w| * norm, where norms
// are of the columns of the inputs that reached the row. It sets their places in zero, which is as long as the row, and clears the others.
// Of equal scores weights that are 0 already go first, then the leftmost. A weight that is no number stays.
func Wanda(zero []bool, row []float32, norms []float64, share float64) {
	score := make([]float64, len(row))
	for i, w := range row {
		score[i] = math.Abs(float64(w)) * norms[i]
	}
	lowest(zero, score, int(share*float64(len(row))), func(i int) bool { return row[i] == 0 })
}

// lowest sets the places of the n lowest scores in zero, and clears the others. Of equal ones first those go that gone says are 0 already, then
// the leftmost. What is no number counts as the highest.
func lowest(zero []bool, score []float64, n int, gone func(i int) bool) {
	clear(zero)
	if n <= 0 {
		return
	}
	for i, s := range score {
		if math.IsNaN(s) {
			score[i] = math.Inf(1)
		}
	}
	sorted := slices.Clone(score)
	slices.Sort(sorted)
	limit := sorted[n-1]
	for _, chosen := range []func(i int) bool{
		func(i int) bool { return score[i] < limit },
		func(i int) bool { return score[i] == limit && gone(i) },
		func(i int) bool { return score[i] == limit },
	} {
		for i := range score {
			if n > 0 && !zero[i] && chosen(i) {
				zero[i] = true
				n--
			}
		}
	}
}

// Outliers is the percentage of a layer's Wanda scores that are above so many times their mean: where it is high, a layer has weights that matter
// far more than others. The scores come in pieces, twice.
func Outliers(times float64, scores iter.Seq[[]float64]) float64 {
	sum, n := 0.0, 0
	for piece := range scores {
		for _, s := range piece {
			sum += s
		}
		n += len(piece)
	}
	if n == 0 {
		return 0
	}
	limit, above := times*sum/float64(n), 0
	for piece := range scores {
		for _, s := range piece {
			if s > limit {
				above++
			}
		}
	}
	return 100 * float64(above) / float64(n)
}

const (
	leastShare = 0.01 // of a layer's weights; what a budget at or below 0 becomes
	mostShare  = 0.99
)

// Shares divides a share of zeros among layers by OWL's rule: a layer with more outliers keeps more. lambda is how far a layer may be from the
// mean; 0 = all have share. The mean of the shares is share, but for those at a limit, 0.01 and 0.99.
func Shares(share, lambda float64, outliers []float64) []float64 {
	out := make([]float64, len(outliers))
	if len(outliers) == 0 {
		return out
	}
	low, high := slices.Min(outliers), slices.Max(outliers)
	mean := 0.0
	for i, o := range outliers {
		if high > low {
			out[i] = 2 * lambda * (o - low) / (high - low)
		}
		mean += out[i] / float64(len(outliers))
	}
	for i := range out {
		if out[i] = share - (out[i] - mean); out[i] <= 0 && lambda > 0 {
			out[i] = leastShare
		}
		out[i] = min(out[i], mostShare)
	}
	return out
}
