package compress

import (
	"fmt"
	"math"
)

// Assign gives each row of a square matrix of costs a column of its own so that their sum is least, by the Hungarian algorithm in time n^3:
// row i takes column out[i]. The same costs give the same permutation. ErrPlan: the matrix is not square or holds what is not a number.
func Assign(cost [][]float64) ([]int, error) {
	n := len(cost)
	for i, row := range cost {
		if len(row) != n {
			return nil, fmt.Errorf("%w: row %d of %d has %d costs", ErrPlan, i, n, len(row))
		}
		for j, c := range row {
			if math.Abs(c) > math.MaxFloat64/4 || c != c {
				return nil, fmt.Errorf("%w: row %d costs %v in column %d", ErrPlan, i, c, j)
			}
		}
	}
	// Prices of rows and columns keep cost - row - column at 0 or above, and at 0 where a row has a column.
	a := assignment{cost: cost, row: make([]float64, n), column: make([]float64, n), owner: make([]int, n)}
	for j := range a.owner {
		a.owner[j] = none
	}
	for i := range n {
		a.add(i)
	}
	out := make([]int, n)
	for j, i := range a.owner {
		out[i] = j
	}
	return out, nil
}

const none = -1

type assignment struct {
	cost        [][]float64
	row, column []float64
	owner       []int // of each column; none
}

// add finds the row a column along the cheapest path of columns that change hands.
func (a *assignment) add(start int) {
	n := len(a.owner)
	slack, from, seen := make([]float64, n), make([]int, n), make([]bool, n)
	for j := range n {
		slack[j], from[j] = math.Inf(1), none
	}
	i, at := start, none // the row that looks for a column, and the column that it would leave
	for {
		next := none
		for j := range n {
			if seen[j] {
				continue
			}
			if d := a.cost[i][j] - a.row[i] - a.column[j]; d < slack[j] {
				slack[j], from[j] = d, at
			}
			if next == none || slack[j] < slack[next] {
				next = j
			}
		}
		step := slack[next]
		a.row[start] += step
		for j := range n {
			if seen[j] {
				a.row[a.owner[j]] += step
				a.column[j] -= step
			} else {
				slack[j] -= step
			}
		}
		seen[next], at = true, next
		if i = a.owner[next]; i == none {
			break
		}
	}
	for at != none {
		before := from[at]
		if a.owner[at] = start; before != none {
			a.owner[at] = a.owner[before]
		}
		at = before
	}
}
