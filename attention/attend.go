package attention

import (
	"math"
	"math/bits"

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
	y, c, past := o.Y.F32(), o.Cache, o.Layout.past(o.Cache, o.Lane)
	for i := range tensor.Live(o.Layout.Rows, o.Q.Rows) {
		for h := range o.Heads {
			at := (i*o.Heads + h) * c.Dim
			o.head(o.Q.F32()[at:at+c.Dim], y[at:at+c.Dim], past, o.keys(past, i, h))
		}
	}
}

// head attends with one query over keys.
func (o *Attend) head(q, y []float32, past *past, keys []pastKey) {
	scores, top := make([]float64, len(keys)), math.Inf(-1)
	for n, k := range keys {
		key, _ := past.vectors(k)
		for d, v := range q {
			scores[n] += float64(v) * float64(key[d])
		}
		scores[n] *= float64(o.Scale)
		top = max(top, scores[n])
	}
	var total float64
	out := make([]float64, len(q))
	for n, k := range keys {
		p := math.Exp(scores[n] - top)
		total += p
		_, value := past.vectors(k)
		for d := range out {
			out[d] += p * float64(value[d])
		}
	}
	for d := range y {
		y[d] = float32(out[d] / total)
	}
}

// Operands lists queries, cache, plan and layout, then the outputs.
func (o *Attend) Operands() (in, out []*tensor.Mat) {
	in = append([]*tensor.Mat{&o.Q, &o.Cache.K, &o.Cache.V}, o.Plan.operands()...)
	if p := o.Cache.Pruned; p != nil {
		in = append(in, &p.K, &p.V, &o.Layout.Dense)
	}
	if o.Layout.Lanes.Present() {
		in = append(in, o.Cache.Tiles(), &o.Layout.Lanes)
	}
	return append(in, o.Layout.operands(o.Lane)...), []*tensor.Mat{&o.Y}
}

// Cost counts the queries, the outputs, and once each key and value that the plan lists, however many rows, query heads and sequences share it; and
// four operations a key, value and query head. Of a plan that is not in host memory it knows only the rows.
func (o *Attend) Cost() (bytes, flops int64) {
	rows := tensor.Live(o.Layout.Rows, o.Q.Rows)
	bytes = int64(rows) * int64(o.Q.RowBytes()+o.Y.RowBytes())
	if o.Layout.Pos.Buf.Host() == nil {
		return bytes, 0
	}
	seq, pos, pages := o.Layout.Seq.I32(), o.Layout.Pos.I32(), o.Layout.Pages[o.Lane]
	seen := map[int]uint64{} // tile of the cache -> the keys in it that are read, a bit each
	for i := range rows {
		table := pages.I32()[int(seq[i])*pages.Cols:]
		within := i+1 < rows && seq[i] == seq[i+1] && pos[i] <= pos[i+1] && (o.Plan.row(i, 0, o.Heads) == o.Plan.row(i+1, 0, o.Heads) || o.dense(i) && o.dense(i+1))
		for h := range o.Heads {
			r := o.Plan.row(i, h, o.Heads)
			flops += 4 * o.Plan.count(r, int(pos[i])) * int64(o.Cache.Dim)
			if within {
				continue // the next row reads all that this one does
			}
			o.Plan.pages(r, int(pos[i]), func(page int, keys uint64) {
				seen[o.Layout.tile(o.Cache, table[page], h*o.Cache.Heads/o.Heads)] |= keys
			})
		}
	}
	var read int64
	for _, keys := range seen {
		read += int64(bits.OnesCount64(keys))
	}
	return bytes + 2*o.Cache.stored(read), flops
}

// dense says whether the two ranges of a row's plan leave nothing out.
func (o *Attend) dense(row int) bool {
	for g := range o.Plan.Groups {
		if r := o.Plan.row(row, g, o.Plan.Groups); o.Plan.Sink.I32()[r] < o.Plan.Local.I32()[r] {
			return false
		}
	}
	return true
}
