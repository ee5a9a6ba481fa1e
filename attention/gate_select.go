package attention

import (
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// Rule says how pages are chosen by their scores.
type Rule int

// The rules: as many pages as a budget of keys has room for; those whose share of the softmax exceeds a threshold; and as many as make up a
// share of all pairs of pages of a prompt that its tokens may read.
const (
	ByBudget Rule = iota
	ByShare
	ByRatio
)

// SelectPages plans the pages whose gate keys meet a gate's query best. Each head of the queries chooses for its part of the plan's groups.
//
// The first pages and the tile's own are read in any case. A tile reads everything where it is among the last pages of a prompt that shall,
// where a budget covers its context, and where the lists would not fit into the plan.
type SelectPages struct {
	Queries  tensor.Mat // tiles*heads x width, F32: see GateQueries
	Keys     tensor.Mat // pages*key heads x width, F16: see GateKeys
	Tails    tensor.Mat // tiles*key heads x width, F32: see GateKeys; absent = a tile's own page has no score and no share
	Plan     *Plan
	Layout   *Layout // with tiles
	Lane     int     // which page table
	Heads    int     // of the queries; neighbours share a head of the keys
	KeyHeads int
	Serves   int // the policy whose tiles it plans
	Rule     Rule
	Fixed    float32 // the rule's number; 0 = it is the knob
	Knob     float32 // where the request says nothing
	Scale    float32 // of scores, before the softmax
	Relax    int     // pages above which a threshold shrinks as the number of pages grows; 0 = never
	Sink     int     // pages
	Dense    int     // last pages of a prompt that read everything
}

// Reference works tile by tile and head by head.
func (o *SelectPages) Reference() {
	pos, share := o.Layout.Pos.I32(), o.Plan.Groups/o.Heads
	o.Layout.Tiles.Served(o.Serves, o.Knob, func(tile, first, last int, knob float32) {
		own := int(pos[first]) / PageTokens
		for h := range o.Heads {
			r := reads{at: tile*o.Plan.Groups + h*share, rows: share}
			if !o.whole(first, int(knob)) {
				for _, p := range o.choose(o.scores(tile, last, h), first, knob) {
					if int(p) >= o.Sink && int(p) < own {
						r.blocks = append(r.blocks, p)
					}
				}
				if len(r.blocks) > share*o.Plan.BlockRoom() {
					r.blocks = nil
				} else {
					r.sink, r.local = min(o.Sink, own)*PageTokens, own*PageTokens
				}
			}
			r.write(o.Plan)
		}
	})
}

// whole says whether the tile that begins with a row reads everything.
func (o *SelectPages) whole(row, knob int) bool {
	pos := int(o.Layout.Pos.I32()[row])
	return o.Rule == ByBudget && pos < knob || o.Dense > 0 && pos/PageTokens >= o.prompt(row)-o.Dense
}

// prompt is the number of pages of the prompt of a row's sequence.
func (o *SelectPages) prompt(row int) int {
	return (int(o.Layout.Prompt.I32()[o.Layout.Seq.I32()[row]]) + PageTokens - 1) / PageTokens
}

// scores are the products of a tile's query in a head with the keys of the pages before its own, and of that where it has a key.
func (o *SelectPages) scores(tile, last, head int) []float32 {
	query := o.Queries.F32()[(tile*o.Heads+head)*o.Queries.Cols:][:o.Queries.Cols]
	pos, pages := int(o.Layout.Pos.I32()[last]), o.Layout.Pages[o.Lane]
	table := pages.I32()[int(o.Layout.Seq.I32()[last])*pages.Cols:][:pos/PageTokens+1]
	keyHead, key, scores := head*o.KeyHeads/o.Heads, make([]float32, len(query)), []float32(nil)
	for i, page := range table {
		switch {
		case i < len(table)-1 || o.Tails.Present() && pos%PageTokens == PageTokens-1:
			o.Keys.RowF32(key, int(page)*o.KeyHeads+keyHead)
		case o.Tails.Present():
			o.Tails.RowF32(key, tile*o.KeyHeads+keyHead)
		default:
			continue
		}
		var sum float64
		for d, v := range query {
			sum += float64(v) * float64(key[d])
		}
		scores = append(scores, float32(sum))
	}
	return scores
}

// choose is the pages to read by their scores, for the tile that begins with a row.
func (o *SelectPages) choose(scores []float32, row int, knob float32) (pages []int32) {
	if o.Fixed > 0 {
		knob = o.Fixed
	}
	switch o.Rule {
	case ByBudget:
		return top(scores, int(knob)/PageTokens)
	case ByRatio:
		return top(scores, max(1, int((1-math.Sqrt(1-float64(knob)))*float64(o.prompt(row)))))
	}
	if o.Relax > 0 && len(scores) > o.Relax {
		knob = knob * float32(o.Relax) / float32(len(scores))
	}
	return likely(scores, o.Scale, knob)
}

// likely is the indices whose share of the softmax of scores times scale is above a threshold, ascending.
func likely(scores []float32, scale, threshold float32) (above []int32) {
	if len(scores) == 0 {
		return nil
	}
	most, sum := scores[ranked(scores)[0]], 0.0
	for _, s := range scores {
		sum += math.Exp(float64(scale * (s - most)))
	}
	for i, s := range scores {
		if math.Exp(float64(scale*(s-most))) > float64(threshold)*sum {
			above = append(above, int32(i))
		}
	}
	return above
}

// Operands lists queries, keys, tiles and layout, then the plan.
func (o *SelectPages) Operands() (in, out []*tensor.Mat) {
	in = append([]*tensor.Mat{&o.Queries, &o.Keys, &o.Tails, &o.Layout.Prompt}, o.Layout.Tiles.operands()...)
	return append(in, o.Layout.operands(o.Lane)...), o.Plan.parts()
}

// Cost counts the keys of all pages before each served tile's, read once, and two operations a value and head of the queries; nothing
// where the host cannot see the layout.
func (o *SelectPages) Cost() (bytes, flops int64) {
	rows := servedPages(o.Layout, o.Serves)
	return rows * int64(o.KeyHeads*o.Keys.RowBytes()), 2 * rows * int64(o.Heads*o.Keys.Cols)
}
