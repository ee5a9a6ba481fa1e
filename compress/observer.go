package compress

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// observer adds up what ops of a model did. It takes the router's choices from the op that dispatches them, whatever router made them, and
// the experts' outputs from the op that ran them; which layer an op is of it reads from the names of its weights. All sums are in float64
// and go row by row, so that they depend on the order of tokens but not on how these were cut into steps.
type observer struct {
	layers   []LayerProfile
	cosines  []float64              // sums, one a layer
	columns  bool                   // inputs and hidden rows too
	hessians map[int]*layerHessians // by layer, of those that are wanted
	err      error                  // the first number that is none

	ids, phys []int32   // of the dispatch that ran last
	weights   []float32 // likewise
	layer     int       // whose input stream is; -1 = no layer runs
	stream    []float32 // rows x dim
}

// newObserver prepares sums for the layers of a model.
func newObserver(s *model.Spec, columns bool) *observer {
	o := &observer{layers: make([]LayerProfile, len(s.Layers)), cosines: make([]float64, len(s.Layers)), columns: columns, layer: -1}
	for i, l := range s.Layers {
		if l.Router == nil {
			continue
		}
		n := l.Router.Experts
		p := LayerProfile{K: l.Router.K, Usage: make([]int64, n)}
		for _, sums := range []*[]float64{&p.Weight, &p.Weight2, &p.Saliency, &p.Largest} {
			*sums = make([]float64, n)
		}
		if n <= mostTogether {
			p.Together = matrix[int64](n, n)
		}
		if columns {
			p.Inputs, p.Hidden = matrix[float64](n, s.Dim), matrix[float64](n, l.ExpertWidth)
			p.InputSums, p.HiddenSums = matrix[float64](n, s.Dim), matrix[float64](n, l.ExpertWidth)
		}
		o.layers[i] = p
	}
	return o
}

// matrix is zeroed rows in one piece of memory.
func matrix[T any](rows, cols int) [][]T {
	all, out := make([]T, rows*cols), make([][]T, rows)
	for i := range out {
		out[i] = all[i*cols : (i+1)*cols : (i+1)*cols]
	}
	return out
}

// see is called after each op: see tensor.Observed.
func (o *observer) see(op tensor.Op, read func(tensor.Mat) []byte) {
	if o.err != nil {
		return
	}
	floats := func(m tensor.Mat, rows int) []float32 {
		m = m.Slice(0, rows)
		return tensor.HostMat("", quant.F32, rows, m.Cols, read(m)).F32()
	}
	integers := func(m tensor.Mat, rows int) []int32 {
		m = m.Slice(0, rows)
		return tensor.HostMat("", quant.I32, rows, m.Cols, read(m)).I32()
	}
	live := func(n tensor.Mat, most int) int {
		if !n.Present() {
			return most
		}
		return int(integers(n, 1)[0])
	}
	switch op := op.(type) {
	case *tensor.Norm:
		if layer, ok := layerOf(op.W.Name, "attn_norm.weight"); ok {
			o.flow(layer, floats(op.X, live(op.N, op.X.Rows)), op.X.Cols)
		}
	case *tensor.Gather: // of the wanted rows, from what the last layer left
		if o.layer == len(o.layers)-1 {
			o.flow(len(o.layers), floats(op.X, len(o.stream)/op.X.Cols), op.X.Cols)
		}
	case *moe.Dispatch:
		rows := live(op.N, op.IDs.Rows)
		o.ids, o.weights, o.phys = integers(op.IDs, rows), floats(op.Weights, rows), integers(op.Phys, 1)
	case *moe.FFN:
		layer, ok := layerOf(op.Banks[0].Gate.Name, "")
		rows := live(op.N, op.X.Rows)
		if !ok || layer >= len(o.layers) || len(o.ids) != rows*op.Plan.Place.Cols {
			panic(fmt.Sprintf("winnow: bug: compress: experts of %s after a dispatch of %d choices", op.Banks[0].Gate, len(o.ids)))
		}
		run := ran{place: integers(op.Plan.Place, rows), k: op.Plan.Place.Cols, dim: op.X.Cols}
		run.out = floats(op.Out, rows*run.k)
		if o.columns || o.hessians[layer] != nil {
			run.x, run.hidden, run.width = floats(op.X, rows), floats(op.Hidden, rows*run.k), op.Hidden.Cols
		}
		o.experts(layer, &run)
	}
}

// layerOf is the layer that a weight's name begins with, if what follows ends in part.
func layerOf(name, part string) (layer int, ok bool) {
	rest, ok := strings.CutPrefix(name, "blk.")
	number, rest, dot := strings.Cut(rest, ".")
	layer, err := strconv.Atoi(number)
	return layer, ok && dot && err == nil && layer >= 0 && (part == "" || rest == part)
}

// flow takes the residual stream before a layer, which is what the one before it gave.
func (o *observer) flow(next int, x []float32, dim int) {
	if o.layer >= 0 {
		for at := 0; at < len(x); at += dim {
			o.cosines[o.layer] += cosine(o.stream[at:at+dim], x[at:at+dim])
		}
		if v := o.cosines[o.layer]; math.IsNaN(v) || math.IsInf(v, 0) {
			o.err = fmt.Errorf("%w: layer %d: the residual stream holds numbers that are none", ErrNumber, o.layer)
		}
	}
	o.layer, o.stream = next, x
	if next == len(o.layers) {
		o.layer = -1
	}
}

// cosine is that of the angle between two vectors; nothing is like nothing and unlike all else.
func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i, v := range a {
		x, y := float64(v), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	if aa == 0 || bb == 0 {
		if aa == bb {
			return 1
		}
		return ab // 0, unless one holds NaN
	}
	return ab / math.Sqrt(aa) / math.Sqrt(bb)
}

// ran is what the experts of a layer did for the rows of a step.
type ran struct {
	k, dim, width int
	place         []int32   // rows x k: the dispatched row of each choice, -1 = none or merged with an earlier one of its row
	out           []float32 // dispatched rows x dim
	x             []float32 // rows x dim; nil unless columns or Hessians are wanted
	hidden        []float32 // dispatched rows x width; likewise
}

// experts adds the rows that the experts of a layer ran.
func (o *observer) experts(layer int, r *ran) {
	p := &o.layers[layer]
	for at := 0; at < len(o.ids); at += r.k {
		ids, weights := o.ids[at:at+r.k], o.weights[at:at+r.k]
		p.Tokens++
		var first, second float64
		chosen := 0
		for s, e := range ids {
			if e < 0 {
				continue
			}
			w := math.Abs(float64(weights[s]))
			if chosen++; w > first {
				first, second = w, first
			} else {
				second = max(second, w)
			}
			row := int(o.placeOf(r.place[at:at+r.k], ids, s))
			norm, largest := measure(r.out[row*r.dim : (row+1)*r.dim])
			p.Usage[e]++
			p.Weight[e] += w
			p.Weight2[e] += w * w
			p.Saliency[e] += w * norm
			p.Largest[e] = max(p.Largest[e], largest)
			if v := p.Saliency[e]; o.err == nil && !(v <= math.MaxFloat64 && w <= math.MaxFloat64) {
				o.err = fmt.Errorf("%w: layer %d, expert %d: weight %v, output of norm %v", ErrNumber, layer, e, w, norm)
			}
			if r.x == nil {
				continue
			}
			x, hidden := r.x[at/r.k*r.dim:][:r.dim], r.hidden[row*r.width:][:r.width]
			if o.columns {
				sum(p.InputSums[e], p.Inputs[e], x)
				sum(p.HiddenSums[e], p.Hidden[e], hidden)
			}
			if h := o.hessians[layer]; h != nil {
				h.see(e, x, hidden)
			}
		}
		p.pair(ids)
		if chosen > 1 && first > 0 {
			p.Skips[min(int(second/first*float64(len(p.Skips))), len(p.Skips)-1)]++
		}
	}
	if h := o.hessians[layer]; h != nil {
		h.add()
	}
}

// placeOf is the dispatched row of choice s of a token. A choice that leads to the same expert as an earlier one shares its row.
func (o *observer) placeOf(place, ids []int32, s int) int32 {
	if place[s] >= 0 {
		return place[s]
	}
	for j := range s {
		if ids[j] >= 0 && place[j] >= 0 && o.phys[ids[j]] == o.phys[ids[s]] {
			return place[j]
		}
	}
	panic(fmt.Sprintf("winnow: bug: compress: choice %d of %v was not dispatched: %v", s, ids, place))
}

// pair counts the pairs of a token's experts.
func (p *LayerProfile) pair(ids []int32) {
	if p.Together == nil {
		return
	}
	for _, a := range ids {
		for _, b := range ids {
			if a >= 0 && b >= 0 {
				p.Together[a][b]++
			}
		}
	}
}

// measure is a vector's Euclidean norm and its largest absolute value.
func measure(v []float32) (norm, largest float64) {
	for _, x := range v {
		y := float64(x)
		norm += y * y
		largest = max(largest, math.Abs(y))
	}
	return math.Sqrt(norm), largest
}

// sum adds values and their squares, as many as there are sums.
func sum(sums, squares []float64, v []float32) {
	for i := range sums {
		x := float64(v[i])
		sums[i] += x
		squares[i] += x * x
	}
}
