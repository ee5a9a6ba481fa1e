package moe

import (
	"math"
	"slices"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Bound follows the rounding of the logits into scores and factors. Where two experts are as good as equal, either may be chosen.
func (o *Route) Bound(out *tensor.Mat) func(i int) float64 {
	x, w, tol := tensor.RowNorms(o.X), tensor.RowNorms(o.W), tensor.Tolerance(quant.F32)
	var widest float64
	for _, n := range w {
		widest = max(widest, n)
	}
	logit := func(row int) float64 {
		var b float64
		if o.Bias.Present() {
			for _, v := range o.Bias.F32() {
				b = max(b, math.Abs(float64(v)))
			}
		}
		return tol*x[row]*widest + tensor.Roundoff*b
	}
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
		scale := max(math.Abs(float64(o.Spec.Scale)), math.Abs(float64(o.Weights.F32()[i])))
		return 4 * (logit(row) + tensor.Roundoff) * scale
	}
}

// tied says whether one of the row's choices beats or is beaten by another live expert by less than margin.
func (o *Route) tied(row int, margin float64) bool {
	z, n, k := make([]float64, o.Spec.Experts), o.Spec.Experts, o.Spec.K
	for e, v := range o.Logits.F32()[row*n : (row+1)*n] {
		if z[e] = float64(v); o.Phys.I32()[e] < 0 {
			z[e] = math.Inf(-1)
		}
	}
	u := o.Spec.scores(z)
	for e := range u {
		if o.Select.Present() {
			u[e] += float64(o.Select.F32()[e])
		}
	}
	for _, id := range o.IDs.I32()[row*k : (row+1)*k] {
		for e := range u {
			if id >= 0 && e != int(id) && o.Phys.I32()[e] >= 0 && math.Abs(u[e]-u[id]) < margin && z[e] != z[id] {
				return true
			}
		}
	}
	return false
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
