package attention

import (
	"slices"

	"github.com/winnow-llm/winnow/tensor"
)

// SelectRanges plans by position alone: the first keys and the last ones. Both ranges are whole pages, so every row of a page has the
// same plan, in whatever step it is computed.
//
// A tile in page p reads keys 0 to Sink and those from page p - n on, n being the pages that Recent keys fill. Heads in Whole read everything.
type SelectRanges struct {
	Layout *Layout
	Plan   *Plan
	Whole  tensor.Mat // plan groups x 1, I32: 1 where the head reads everything; absent = nowhere
	Serves int        // the policy whose tiles it plans
	Sink   int        // keys, a multiple of 64
	Recent float32    // keys before the tile's page, where the request says nothing
}

// Reference works tile by tile.
func (o *SelectRanges) Reference() {
	pos := o.Layout.Pos.I32()
	o.Layout.Tiles.Served(o.Serves, o.Recent, func(tile, first, _ int, recent float32) {
		for g := range o.Plan.Groups {
			sink, local := 0, 0
			if !o.Whole.Present() || o.Whole.I32()[g] == 0 {
				local = max(0, int(pos[first])/PageTokens*PageTokens-wholePages(int(recent)))
				sink = min(o.Sink, local)
			}
			o.Plan.Write(tile*o.Plan.Groups+g, sink, local, nil, nil)
		}
	})
}

// Operands lists the layout's tiles and positions, then the plan's ranges and the lists, which become empty.
func (o *SelectRanges) Operands() (in, out []*tensor.Mat) {
	in = append(o.Layout.Tiles.operands(), &o.Layout.Pos, &o.Whole)
	return in, o.Plan.parts()
}

// Cost counts six numbers written a plan row.
func (o *SelectRanges) Cost() (bytes, flops int64) {
	n := int64(o.Plan.rows())
	return 24 * n, n
}

// rangeKeeps is what the key-value heads of a layer read that have a sink and so many recent keys.
func rangeKeeps(e *Env, sink int, recent float32) []Keep {
	return slices.Repeat([]Keep{{Sink: sink / PageTokens, Recent: wholePages(int(recent)) / PageTokens}}, e.KV())
}

// turned is what a knob is turned to, or where that is NaN the selector's own.
func turned(knob, own float32) float32 {
	if knob != knob {
		return own
	}
	return knob
}

// prepared is a selector of an Env whose plan one op a layer fills; before it, what the op scores is unpacked, where it needs that.
func prepared(e *Env, caps Caps, op func(layer int) tensor.Op) *Selector {
	steps := make([]Steps, len(e.Caches))
	for i := range steps {
		fill := op(i)
		if s, ok := fill.(interface{ unpacks() *Unpack }); ok && s.unpacks() != nil {
			steps[i].Select = append(steps[i].Select, s.unpacks())
		}
		steps[i].Select = append(steps[i].Select, fill)
	}
	return &Selector{Caps: caps, Plan: e.Plan, Layers: steps}
}

// wholePages rounds a number of keys up.
func wholePages(keys int) int { return (keys + PageTokens - 1) / PageTokens * PageTokens }
