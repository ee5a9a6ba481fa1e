package compress

import "math"

// Columns is what is known of the values of each column of what a matrix multiplies.
type Columns struct {
	Norm     []float64 // Euclidean, over all rows
	Mean     []float64 // of a row
	Variance []float64 // likewise
}

const mostSwaps = 50 // of a row: as DSnoT's authors do

// DSnoT exchanges zeros of an output row for weights that stay, as long as that lowers the error of the row's outputs; the number of zeros stays,
// and no weight changes (Zhang et al., Dynamic Sparse No Training, arXiv 2310.08915). The mean error of a row is the sum of w * mean
// over its zeros. In turn, and at most 50 times, the zero comes back of those that bring the mean error nearer to 0 whose |w * mean| / variance is
// highest, the growing criterion; then of the weights that do so when they go the one goes whose |w| * norm is lowest, the pruning criterion.
// A weight moves once.
//
// Where the paper stops at a mean error of 0.1, which depends on how inputs are scaled, this stops before an exchange that would not lower the
// expected square of the error, columns taken as uncorrelated: its mean squared and the sum of w² * variance over the zeros.
func DSnoT(zero []bool, row []float32, c Columns) {
	mean := 0.0
	for i, z := range zero {
		if z {
			mean += float64(row[i]) * c.Mean[i]
		}
	}
	moved := make([]bool, len(row))
	for range mostSwaps {
		grow, prune := exchange(zero, moved, row, &c, mean)
		if grow < 0 || prune < 0 {
			return
		}
		g, p := float64(row[grow]), float64(row[prune])
		next := mean - g*c.Mean[grow] + p*c.Mean[prune]
		if !(next*next+p*p*c.Variance[prune] < mean*mean+g*g*c.Variance[grow]) {
			return
		}
		zero[grow], zero[prune] = false, true
		moved[grow], moved[prune] = true, true
		mean = next
	}
}

// exchange is the zero that the criteria bring back and the weight that goes for it; -1 = there is none.
func exchange(zero, moved []bool, row []float32, c *Columns, mean float64) (grow, prune int) {
	grow, prune = -1, -1
	most, least := 0.0, math.Inf(1)
	for i, w := range row {
		if moved[i] {
			continue
		}
		part := float64(w) * c.Mean[i]
		if mean < 0 {
			part = -part
		}
		switch {
		case zero[i] && part > 0:
			if v := part / c.Variance[i]; v > most {
				grow, most = i, v
			}
		case !zero[i] && part < 0:
			if v := math.Abs(float64(w)) * c.Norm[i]; v < least {
				prune, least = i, v
			}
		}
	}
	return grow, prune
}
