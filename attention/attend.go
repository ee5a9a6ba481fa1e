package attention

import (
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// Attend is softmax attention over the keys that a plan lists (Vaswani et al. 2017), with grouped query heads: query head h reads
// key-value head h*kv/heads. One op executes every plan, so sparse attention is dense attention over a shorter list.
type Attend struct {
	Q      tensor.Mat // rows x heads*dim, F32
	Y      tensor.Mat // rows x heads*dim, F32
	Cache  *Cache     // keys and values, the rows' own included
	Plan   *Plan      // which keys
	Layout *Layout    // whose rows these are and where their pages lie
	Lane   int        // which page table
	Heads  int        // query heads
	Scale  float32    // scores are multiplied by it: 1/sqrt(dim) in most models
}

// Reference scores every listed key, then takes the softmax in float64 and sums the values.
func (o *Attend) Reference() {
	y, c := o.Y.F32(), o.Cache
	seq, pos, pages := o.Layout.Seq.I32(), o.Layout.Pos.I32(), o.Layout.Pages[o.Lane]
	var keys, tiles []int
	for i := range tensor.Live(o.Layout.Rows, o.Q.Rows) {
		table := pages.I32()[int(seq[i])*pages.Cols:]
		for h := range o.Heads {
			keys, tiles = keys[:0], tiles[:0]
			o.Plan.keys(o.Plan.row(i, h, o.Heads), int(pos[i]), func(k int) {
				keys = append(keys, k%PageTokens)
				tiles = append(tiles, c.Tile(table[k/PageTokens], h*c.Heads/o.Heads))
			})
			at := (i*o.Heads + h) * c.Dim
			o.head(o.Q.F32()[at:at+c.Dim], y[at:at+c.Dim], keys, tiles)
		}
	}
}

// head attends with one query over keys, each a slot in a page tile.
func (o *Attend) head(q, y []float32, keys, tiles []int) {
	c, scores, top := o.Cache, make([]float64, len(keys)), math.Inf(-1)
	key, value := c.key(), c.value()
	for n, slot := range keys {
		for d, v := range q {
			scores[n] += float64(v) * float64(key(tiles[n], slot, d))
		}
		scores[n] *= float64(o.Scale)
		top = max(top, scores[n])
	}
	var total float64
	out := make([]float64, len(q))
	for n, slot := range keys {
		p := math.Exp(scores[n] - top)
		total += p
		for d := range out {
			out[d] += p * float64(value(tiles[n], slot, d))
		}
	}
	for d := range y {
		y[d] = float32(out[d] / total)
	}
}

// Operands lists queries, cache, plan and layout, then the outputs.
func (o *Attend) Operands() (in, out []*tensor.Mat) {
	in = append([]*tensor.Mat{&o.Q, &o.Cache.K, &o.Cache.V}, o.Plan.operands()...)
	return append(in, o.Layout.operands(o.Lane)...), []*tensor.Mat{&o.Y}
}

// Cost counts the keys and values of plans made of ranges, read once a row and key-value head, and four operations a key, value
// and query head. Blocks and single keys are counted when the plan is in host memory.
func (o *Attend) Cost() (bytes, flops int64) {
	rows := tensor.Live(o.Layout.Rows, o.Q.Rows)
	if o.Layout.Pos.Buf.Host() == nil {
		return int64(rows) * int64(o.Q.RowBytes()+o.Y.RowBytes()), 0
	}
	var read int64
	for i := range rows {
		for h := range o.Heads {
			read += o.Plan.count(o.Plan.row(i, h, o.Heads), int(o.Layout.Pos.I32()[i]))
		}
	}
	dim := int64(o.Cache.Dim)
	return 2*o.Cache.stored(read*int64(o.Cache.Heads)/int64(o.Heads)) + int64(rows*(o.Q.RowBytes()+o.Y.RowBytes())), 4 * read * dim
}
