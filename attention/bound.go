package attention

import (
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// Bound grows with the scores, whose rounding the exponential multiplies, and with the values that are averaged.
func (o *Attend) Bound(*tensor.Mat) func(i int) float64 {
	last, bound := -1, 0.0
	return func(i int) float64 {
		if at := i / o.Cache.Dim; at != last {
			last, bound = at, o.boundOf(at/o.Heads, at%o.Heads)
		}
		return bound
	}
}

// boundOf is the bound for one query head of a batch row.
func (o *Attend) boundOf(row, head int) float64 {
	c := o.Cache
	pages, pos := o.Layout.Pages[o.Lane], int(o.Layout.Pos.I32()[row])
	table := pages.I32()[int(o.Layout.Seq.I32()[row])*pages.Cols:]
	keys, values := c.key(), c.value()
	var key, value float64
	o.Plan.keys(o.Plan.row(row, head, o.Heads), pos, func(k int) {
		tile := c.Tile(table[k/PageTokens], head*c.Heads/o.Heads)
		var sum float64
		for d := range c.Dim {
			x := float64(keys(tile, k%PageTokens, d))
			sum += x * x
			value = max(value, math.Abs(float64(values(tile, k%PageTokens, d))))
		}
		key = max(key, math.Sqrt(sum))
	})
	query := tensor.RowNorms(tensor.FromF32(1, c.Dim, o.Q.F32()[(row*o.Heads+head)*c.Dim:][:c.Dim]))[0]
	return tensor.Roundoff * (1 + query*key*math.Abs(float64(o.Scale))) * value
}
