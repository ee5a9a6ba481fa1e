package attention

import (
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// Bound grows with the scores, whose rounding the exponential multiplies, and with the values that are averaged.
func (o *Attend) Bound(*tensor.Mat) func(i int) float64 {
	last, bound, past := -1, 0.0, o.Layout.past(o.Cache, o.Lane)
	return func(i int) float64 {
		if at := i / o.Cache.Dim; at != last {
			last, bound = at, o.boundOf(past, at/o.Heads, at%o.Heads)
		}
		return bound
	}
}

// boundOf is the bound for one query head of a batch row.
func (o *Attend) boundOf(past *past, row, head int) float64 {
	c := o.Cache
	var key, value float64
	for _, k := range o.keys(past, row, head) {
		var sum float64
		ks, vs := past.vectors(k)
		for d := range c.Dim {
			x := float64(ks[d])
			sum += x * x
			value = max(value, math.Abs(float64(vs[d])))
		}
		key = max(key, math.Sqrt(sum))
	}
	query := tensor.RowNorms(tensor.FromF32(1, c.Dim, o.Q.F32()[(row*o.Heads+head)*c.Dim:][:c.Dim]))[0]
	return tensor.Roundoff * (1 + query*key*math.Abs(float64(o.Scale))) * value
}
