package moe

import (
	"slices"

	"github.com/winnow-llm/winnow/tensor"
)

// Columns of Route.Wish. Those from WishK on are the most experts a token takes, one column a layer; 0 in a column is the model's own.
const (
	WishMinP = iota
	WishMass
	WishSkip
	WishK
)

// Wish is with how few of a router's K experts a token makes do. The zero value takes all. Factors are those before norm: what a wish drops
// takes part in no sum, as if the router had not chosen it. The heaviest of those within K stays whatever is asked.
type Wish struct {
	K    int     // the first so many in the order of choice
	MinP float32 // those whose factor is at least so many times the heaviest one's
	Skip float32 // those whose factor is at least so many times the first one's, as NAEE skips; the same as MinP but for routers with a selection bias
	Mass float32 // the fewest heaviest ones of the rest whose share of all K factors reaches it; 0 and 1 are all
}

// wish is the one of a row.
func (o *Route) wish(row int) Wish { return wishOf(o.Wish, o.Of, row, o.Layer) }

// wishOf is the one of a row for a layer: see Route.Wish and Route.Of.
func wishOf(lines, of tensor.Mat, row, layer int) Wish {
	if !of.Present() || of.I32()[row] == 0 {
		return Wish{}
	}
	w := lines.F32()[(int(of.I32()[row])-1)*lines.Cols:][:lines.Cols]
	return Wish{K: int(w[WishK+layer]), MinP: w[WishMinP], Skip: w[WishSkip], Mass: w[WishMass]}
}

// keep says which chosen experts are left by their factors before norm, in the order of choice, and the share of the factors' sum that these have:
// 1 where all are.
func (w Wish) keep(factor []float64) (kept []bool, share float64) {
	kept = make([]bool, len(factor))
	if len(factor) == 0 {
		return kept, 1
	}
	within := len(factor)
	if w.K > 0 {
		within = min(within, w.K)
	}
	best := largest(factor[:within])
	for i, v := range factor[:within] {
		kept[i] = i == best || !(v < float64(w.MinP)*factor[best]) && !(v < float64(w.Skip)*factor[0])
	}
	total, left, held := 0.0, 0, 0.0
	for _, v := range factor {
		total += v
	}
	if w.Mass > 0 && w.Mass < 1 {
		heaviest(factor, kept, float64(w.Mass)*total)
	}
	for i, v := range factor {
		if kept[i] {
			left++
			held += v
		}
	}
	if left == len(factor) || !(total > 0) {
		return kept, 1
	}
	return kept, held / total
}

// heaviest leaves of the kept ones the fewest heaviest whose sum reaches goal, and at least one: equals in the order of choice.
func heaviest(factor []float64, kept []bool, goal float64) {
	rest := slices.Clone(kept)
	clear(kept)
	for sum := 0.0; ; {
		best := -1
		for i, v := range factor {
			if rest[i] && (best < 0 || v > factor[best]) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		rest[best], kept[best] = false, true
		if sum += factor[best]; sum >= goal {
			return
		}
	}
}

// near says whether a wish would leave other experts if factors were wrong by a share of margin.
func (w Wish) near(factor []float64, margin float64) bool {
	if w == (Wish{}) || len(factor) == 0 {
		return false
	}
	even := func(a, b float64) bool { return a != b && a-b < margin*(a+b) && b-a < margin*(a+b) }
	within := len(factor)
	if w.K > 0 {
		within = min(within, w.K)
	}
	best, total := largest(factor[:within]), 0.0
	for _, v := range factor {
		total += v
	}
	for i, v := range factor[:within] {
		if i != best && (even(v, float64(w.MinP)*factor[best]) || even(v, float64(w.Skip)*factor[0]) || even(v, factor[best])) {
			return true
		}
	}
	sorted, sum := slices.Clone(factor), 0.0
	for range sorted {
		best := largest(sorted)
		sum += sorted[best]
		if sorted[best] = -1; even(sum, float64(w.Mass)*total) {
			return true
		}
	}
	return false
}
