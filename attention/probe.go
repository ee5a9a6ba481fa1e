package attention

import (
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// Probe is the receipt for a plan: for some rows of a batch, what share of the softmax over all visible keys lies on those that the plan
// lists. It reads every visible key of these rows, pruned or not as the rows do, so a step probes few. A plan that lists everything has exactly 1.
type Probe struct {
	Q      tensor.Mat // rows x heads*dim, F32
	Rows   tensor.Mat // probes x 1, I32: rows of the batch
	N      tensor.Mat // 1 x 1, I32: probes in use
	Y      tensor.Mat // probes x heads, F32: from 0 to 1
	Cache  *Cache     // keys, the rows' own included
	Plan   *Plan      // which keys are read
	Layout *Layout    // whose rows these are and where their pages lie
	Lane   int        // which page table
	Heads  int        // query heads
	Scale  float32    // of scores, as Attend has it
}

// Reference takes the softmax over all visible keys in float64 and adds up what is listed, in the order of positions.
func (o *Probe) Reference() {
	y, pos := o.Y.F32(), o.Layout.Pos.I32()
	for i := range tensor.Live(o.N, o.Rows.Rows) {
		row := int(o.Rows.I32()[i])
		for h := range o.Heads {
			mass := o.masses(row, h)
			reads := make([]bool, len(mass))
			o.Plan.keys(o.Plan.row(row, h, o.Heads), int(pos[row]), func(k int) { reads[k] = true })
			var all, listed float64
			for k, m := range mass {
				all += m
				if reads[k] {
					listed += m
				}
			}
			y[i*o.Heads+h] = float32(listed / all)
		}
	}
}

// masses are the exponentials of a row's scores in one head, less the largest score.
func (o *Probe) masses(row, head int) []float64 {
	c, past := o.Cache, o.Layout.past(o.Cache, o.Lane)
	q := o.Q.F32()[(row*o.Heads+head)*c.Dim:][:c.Dim]
	scores, top := make([]float64, int(o.Layout.Pos.I32()[row])+1), math.Inf(-1)
	for k := range scores {
		key := past.at(row, head*c.Heads/o.Heads, k)
		for d, v := range q {
			scores[k] += float64(v) * float64(past.key(key, d))
		}
		scores[k] *= float64(o.Scale)
		top = max(top, scores[k])
	}
	for k, s := range scores {
		scores[k] = math.Exp(s - top)
	}
	return scores
}

// Operands lists queries, rows, cache, plan and layout, then the shares.
func (o *Probe) Operands() (in, out []*tensor.Mat) {
	in = append([]*tensor.Mat{&o.Q, &o.Rows, &o.N, &o.Cache.K}, o.Plan.operands()...)
	if p := o.Cache.Pruned; p != nil {
		in = append(in, &p.K, &o.Layout.Dense)
	}
	return append(in, o.Layout.operands(o.Lane)...), []*tensor.Mat{&o.Y}
}

// Cost counts the keys that are read once a probe and key-value head, and two operations a value of a key and query head, where the host
// sees how many they are.
func (o *Probe) Cost() (bytes, flops int64) {
	n := int64(tensor.Live(o.N, o.Rows.Rows))
	bytes = n * int64(o.Q.RowBytes()+o.Y.RowBytes())
	if o.Layout.Pos.Buf.Host() == nil || o.Rows.Buf.Host() == nil {
		return bytes, 0
	}
	for _, row := range o.Rows.I32()[:n] {
		keys := int64(o.Layout.Pos.I32()[row]) + 1
		bytes += o.Cache.stored(keys * int64(o.Cache.Heads))
		flops += 2 * keys * int64(o.Heads*o.Cache.Dim)
	}
	return bytes, flops
}

// Bound grows with the scores, whose rounding the exponential multiplies.
func (o *Probe) Bound(*tensor.Mat) func(i int) float64 {
	return func(i int) float64 {
		row, head := int(o.Rows.I32()[i/o.Heads]), i%o.Heads
		c, past := o.Cache, o.Layout.past(o.Cache, o.Lane)
		var most float64
		for k := range int(o.Layout.Pos.I32()[row]) + 1 {
			key, sum := past.at(row, head*c.Heads/o.Heads, k), 0.0
			for d := range c.Dim {
				x := float64(past.key(key, d))
				sum += x * x
			}
			most = max(most, math.Sqrt(sum))
		}
		query := tensor.RowNorms(tensor.FromF32(1, c.Dim, o.Q.F32()[(row*o.Heads+head)*c.Dim:][:c.Dim]))[0]
		return tensor.Roundoff * (1 + query*most*math.Abs(float64(o.Scale)))
	}
}
