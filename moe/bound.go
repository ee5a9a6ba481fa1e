package moe

import (
	"math"
	"slices"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Bound follows the rounding of the logits into scores and factors. Where two experts are as good as equal, either may be chosen, and where one is
// as good as at the edge of what a wish leaves, it may stay or go.
func (o *Route) Bound(out *tensor.Mat) func(i int) float64 {
	x, w, tol := tensor.RowNorms(o.X), tensor.RowNorms(o.W), tensor.Tolerance(quant.F32)
	var widest float64
	for _, n := range w {
		if n > widest { // which no NaN is
			widest = n
		}
	}
	most := func(m tensor.Mat) (b float64) {
		for _, v := range floats(m) {
			if a := math.Abs(float64(v)); a > b && !math.IsInf(a, 1) {
				b = a
			}
		}
		return b
	}
	bias := most(o.Bias)
	logit := func(row int) float64 { return tol*x[row]*widest + tensor.Roundoff*bias }
	return func(i int) float64 {
		row := i / out.Cols
		switch {
		case out == &o.Logits:
			return logit(row)
		case o.tied(row, 4*(logit(row)+tensor.Roundoff)):
			return math.Inf(1)
		case out == &o.IDs:
			return 0
		}
		if out == &o.Mass {
			return 4 * (logit(row) + tensor.Roundoff)
		}
		scale := max(math.Abs(float64(o.Spec.Scale)), math.Abs(float64(o.Weights.F32()[i])))
		return 4 * (logit(row) + tensor.Roundoff) * scale
	}
}

// tied says whether one of the row's choices beats or is beaten by another live expert by less than margin, or a wish leaves or drops one by less.
func (o *Route) tied(row int, margin float64) bool {
	n, phys := o.Spec.Experts, o.Phys.I32()
	var choice []float32
	if o.Select.Present() {
		choice = o.Select.F32()
	}
	z, _ := live(o.Logits.F32()[row*n:(row+1)*n], phys)
	score := o.Spec.scores(z)
	own := Choice{make([]int32, o.Spec.K), make([]float32, o.Spec.K)} // as the model would choose by itself
	o.Spec.Choose(o.Logits.F32()[row*n:(row+1)*n], choice, phys, own)
	u := slices.Clone(score)
	for e := range u {
		if choice != nil {
			u[e] += float64(choice[e])
		}
	}
	for _, id := range own.IDs {
		for e := range u {
			if id < 0 || e == int(id) || math.IsInf(z[e], -1) {
				continue
			}
			if math.Abs(u[e]-u[id]) < margin && z[e] != z[id] || o.Spec.Weight == SparseMixer && o.Spec.edge(z[id], z[e]) < margin {
				return true
			}
		}
	}
	return o.wish(row).near(o.Spec.factors(z, score, own.IDs), margin)
}

// edge is how far a logit is from the edge of the band around a pick.
func (s RouterSpec) edge(pick, v float64) float64 {
	return math.Abs(pick - v - 2*float64(s.Band)*max(math.Abs(v), pick))
}

// Bound is a share of the norm of the output's row, or of the average row where that is larger: three products follow each other, of which
// each may lose its format's tolerance.
func (o *FFN) Bound(out *tensor.Mat) func(i int) float64 {
	var tol, sum float64
	for _, b := range o.Banks {
		for _, w := range []tensor.Mat{b.Gate, b.Up, b.Down} {
			tol = max(tol, tensor.Tolerance(w.Format))
		}
	}
	used := int(slices.Max(o.Plan.Offset.I32()))
	if out == &o.Y {
		used = tensor.Live(o.N, o.Y.Rows)
	}
	norms := tensor.RowNorms(*out)
	for _, n := range norms[:used] {
		sum += n * n
	}
	average := math.Sqrt(sum / float64(max(used, 1)))
	return func(i int) float64 { return 4 * tol * max(average, norms[i/out.Cols]) }
}
