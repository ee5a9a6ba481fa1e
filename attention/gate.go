package attention

import (
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// Trained gates (SeerAttention, Gao et al. 2024, arXiv 2410.13276, and SeerAttention-R, 2025, arXiv 2506.08889) score whole pages: a gate's
// query, made of a tile's queries before they are turned, meets a gate's key, made of a page's keys before they are turned.

// gateEps is what the norms of gates add to the mean of squares.
const gateEps = 1e-6

// Rotation is RoPE as the ops of gates need it, see tensor.Angles and tensor.Rope.
type Rotation struct {
	Freq  tensor.Mat // 1 x pairs, F32: radians a position; absent = nothing turns
	Scale float32    // of sines and cosines
	Pairs tensor.Pairing
}

// pairs is the number of pairs that turn.
func (r *Rotation) pairs() int { return r.Freq.Cols }

// turn turns x by a position's angles, or back by those of a negative share: way is 1 or -1.
func (r *Rotation) turn(x []float32, pos int, way float64) {
	for j := range r.pairs() {
		a, b := j, j+r.pairs()
		if r.Pairs == tensor.Neighbours {
			a, b = 2*j, 2*j+1
		}
		sin, cos := math.Sincos(float64(float32(pos) * r.Freq.F32()[j]))
		s, c := float32(sin), float32(cos)
		if way < 0 {
			u, v := x[a]/r.Scale, x[b]/r.Scale
			x[a], x[b] = u*c+v*s, v*c-u*s
			continue
		}
		u, v := x[a]*r.Scale, x[b]*r.Scale
		x[a], x[b] = u*c-v*s, u*s+v*c
	}
}

// pool joins the largest, the least and the mean of each channel of some keys.
func pool(keys [][]float32) []float32 {
	dim := len(keys[0])
	out := make([]float32, 3*dim)
	for d := range dim {
		most, least, sum := keys[0][d], keys[0][d], float32(0)
		for _, k := range keys {
			most, least, sum = max(most, k[d]), min(least, k[d]), sum+k[d]
		}
		out[d], out[dim+d], out[2*dim+d] = most, least, sum/float32(len(keys))
	}
	return out
}

// project multiplies x with rows from on of a gate's projection. Without one, x is the result.
func project(x []float32, w *tensor.Mat, from int) []float32 {
	if !w.Present() {
		return x
	}
	sums, row := make([]float64, w.Cols), make([]float32, w.Cols)
	for i, v := range x {
		w.RowF32(row, from+i)
		for j := range row {
			sums[j] += float64(v) * float64(row[j])
		}
	}
	out := make([]float32, w.Cols)
	for j, v := range sums {
		out[j] = float32(v)
	}
	return out
}

// finish norms, where the gate has norms, and turns by a position.
func finish(x []float32, norm *tensor.Mat, r *Rotation, pos int) {
	if norm.Present() {
		m := tensor.FromF32(1, len(x), x)
		(&tensor.Norm{X: m, W: *norm, Y: m, Groups: 1, Eps: gateEps}).Reference()
	}
	r.turn(x, pos, 1)
}

// GateKeys makes the gate's keys of pages: the largest, the least and the mean of each channel of the page's 64 keys, projected, normed and
// turned by the position of the page's first token. A page's gate keys are written when the step holds its last token, whoever serves it.
//
// Keys are those in the cache, turned back: a function of what is cached, however the keys came and whatever was taken back. Where full pages are
// pruned they are those before that.
type GateKeys struct {
	Cache  *Cache     // keys, the rows' own included
	W      tensor.Mat // gate heads*3*dim x width, F32 or BF16
	Norm   tensor.Mat // 1 x width, F32; absent = none
	Keys   tensor.Mat // pages*gate heads x width, F16; written for the pages that the rows end
	Tails  tensor.Mat // tiles*gate heads x width, F32: of the tokens up to a tile's end, where the tile is served and ends no page; absent = not asked for
	Model  Rotation   // of the keys in the cache
	Gate   Rotation
	Layout *Layout // whose rows these are and where their pages lie, with tiles
	Lane   int     // which page table
	Serves int     // the policy whose tiles are served
	Late   int     // 0, or 63 to turn by the position of the page's last token
}

// heads is the number of the gate's heads.
func (o *GateKeys) heads() int { return o.W.Rows / (3 * o.Cache.Dim) }

// Reference works page by page.
func (o *GateKeys) Reference() {
	l := o.Layout
	seq, pos, pages, own, t := l.Seq.I32(), l.Pos.I32(), l.Pages[o.Lane], l.Own(o.Cache, o.Lane).I32(), &o.Layout.Tiles
	for tile := range int(t.N.I32()[0]) {
		last := int(t.First.I32()[tile+1]) - 1
		at, whole := int(pos[last]), pos[last]%PageTokens == PageTokens-1
		if !whole && (!o.Tails.Present() || int(t.Policy.I32()[tile]) != o.Serves) {
			continue
		}
		in := int(seq[last])*pages.Cols + at/PageTokens
		page := pages.I32()[in]
		for h := range o.heads() {
			x := o.key(own[in], h, at)
			for d, v := range x {
				if whole {
					store(o.Keys, (int(page)*o.heads()+h)*o.Keys.Cols+d, v)
				} else {
					o.Tails.F32()[(tile*o.heads()+h)*o.Tails.Cols+d] = v
				}
			}
		}
	}
}

// key is the gate key of the keys of a page of the cache up to a position.
func (o *GateKeys) key(page int32, head, pos int) []float32 {
	c, first := o.Cache, pos/PageTokens*PageTokens
	key, tile := c.key(), c.Tile(page, head*c.Heads/o.heads())
	var keys [][]float32
	for slot := range pos - first + 1 {
		x := make([]float32, c.Dim)
		for d := range x {
			x[d] = key(tile, slot, d)
		}
		o.Model.turn(x, first+slot, -1)
		keys = append(keys, x)
	}
	x := project(pool(keys), &o.W, head*3*c.Dim)
	finish(x, &o.Norm, &o.Gate, first+o.Late)
	return x
}

// Bound allows for rounding to F16, and for sums in another order.
func (o *GateKeys) Bound(out *tensor.Mat) func(i int) float64 { return ofRow(out, 0x1p-10) }

// ofRow is a share of the largest magnitude in a value's row, and of 1.
func ofRow(m *tensor.Mat, share float64) func(i int) float64 {
	row := make([]float32, m.Cols)
	return func(i int) float64 {
		m.RowF32(row, i/m.Cols)
		top := 1.0
		for _, v := range row {
			if v == v {
				top = max(top, math.Abs(float64(v)))
			}
		}
		return share * top
	}
}

// Operands lists cache, gate, rotations, tiles and layout, then what is made.
func (o *GateKeys) Operands() (in, out []*tensor.Mat) {
	out = []*tensor.Mat{&o.Keys, &o.Tails}
	in = append([]*tensor.Mat{&o.Cache.K, &o.W, &o.Norm, &o.Model.Freq, &o.Gate.Freq, &o.Layout.Dense}, o.Layout.Tiles.operands()...)
	return append(append(in, o.Layout.operands(o.Lane)...), out...), out
}

// Cost counts each row's key read once and turned back, which is all that most steps amount to for each row in the long run, and its share of
// the projection.
func (o *GateKeys) Cost() (bytes, flops int64) {
	n := int64(tensor.Live(o.Layout.Rows, o.Layout.Pos.Rows))
	values := n * int64(o.Cache.Heads*o.Cache.Dim)
	return o.Cache.stored(n * int64(o.Cache.Heads)), 10*values + 2*n*int64(o.W.Rows*o.W.Cols)/PageTokens
}

// GateQueries makes the gate's queries of the tiles that a selector serves: the mean of the tile's queries, projected, normed and turned by
// the position of the tile's first row.
//
// With a projection, what a gate head projects is the queries of its query heads, one behind another. Without one, gate heads are query
// heads and the mean is turned as it is.
type GateQueries struct {
	Q      tensor.Mat // rows x heads*dim, F32: not yet turned
	W      tensor.Mat // heads*dim x width, F32 or BF16; absent = none
	Norm   tensor.Mat // 1 x width, F32; absent = none
	Y      tensor.Mat // tiles*gate heads x width, F32; written for the tiles served
	Gate   Rotation
	Layout *Layout // with tiles
	Serves int     // the policy whose tiles are served
	Heads  int     // of the gate
	Whole  int     // 1, or 64 to turn by the position of the first token of the tile's page
}

// Reference works tile by tile.
func (o *GateQueries) Reference() {
	pos, each := o.Layout.Pos.I32(), o.Q.Cols/o.Heads
	o.Layout.Tiles.Served(o.Serves, 0, func(tile, first, last int, _ float32) {
		for h := range o.Heads {
			x := make([]float32, each)
			for d := range x {
				for row := first; row <= last; row++ {
					x[d] += o.Q.F32()[row*o.Q.Cols+h*each+d]
				}
				x[d] /= float32(last - first + 1)
			}
			x = project(x, &o.W, h*each)
			finish(x, &o.Norm, &o.Gate, int(pos[first])/o.Whole*o.Whole)
			copy(o.Y.F32()[(tile*o.Heads+h)*o.Y.Cols:], x)
		}
	})
}

// Bound allows for sums in another order.
func (o *GateQueries) Bound(out *tensor.Mat) func(i int) float64 {
	return ofRow(out, 4*tensor.Roundoff)
}

// Operands lists queries, gate, rotation, tiles and positions, then what is made.
func (o *GateQueries) Operands() (in, out []*tensor.Mat) {
	in = append([]*tensor.Mat{&o.Q, &o.W, &o.Norm, &o.Gate.Freq}, o.Layout.Tiles.operands()...)
	return append(in, &o.Layout.Pos, &o.Y), []*tensor.Mat{&o.Y}
}

// Cost counts the projection read once, and two operations a number of it for each tile served.
func (o *GateQueries) Cost() (bytes, flops int64) {
	if o.Layout.Pos.Buf.Host() == nil {
		return 0, 0
	}
	var tiles int64
	o.Layout.Tiles.Served(o.Serves, 0, func(int, int, int, float32) { tiles++ })
	if !o.W.Present() {
		return tiles * int64(o.Q.RowBytes()), 2 * tiles * int64(o.Q.Cols)
	}
	return int64(o.W.Bytes()), 2 * tiles * int64(o.W.Rows*o.W.Cols)
}
