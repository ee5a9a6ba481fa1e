package attentiontest

import (
	"cmp"
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// SelectAnchor plans by anchors; a row of the case is a group, or as many as the first is asked for. theta is in quarters, as scores are.
func SelectAnchor(b Runs, block, unit, single int, theta float32) tensortest.Case {
	return softAnchor(b, attention.SelectAnchor{Block: block, Unit: unit, Single: single, Theta: theta, Every: 1})
}

// softAnchor is the same with all that an anchor may be.
func softAnchor(b Runs, by attention.SelectAnchor) tensortest.Case {
	lead := page * len(b.Runs[0])
	group := cmp.Or(b.Block, lead)
	name := tensortest.Labels("anchor", b.Heads.Format, b.Heads.Query, "on", b.Heads.KV, "x", b.Heads.Dim, "block", by.Block, "group", group, "unit", by.Unit, "single", by.Single, "theta", by.Theta, "room", b.Room.Keys)
	if lead > group {
		name += fmt.Sprint(" lead ", lead)
	}
	if by.Soft {
		name += " soft"
	}
	if by.Every > 1 {
		name += fmt.Sprint(" every ", by.Every)
	}
	return tensortest.Case{Name: name, Rows: len(b.Runs), Make: func(w *tensortest.World) tensortest.Trial {
		o := by
		o.Groups = b.make(w)
		o.Scale, o.Lead, o.Size = 0.25, lead, group
		return tensortest.Trial{Op: &o, ByRow: byTile(o.Plan)}
	}}
}

// groups cuts a sequence into groups of some pages.
func groups(seq, pages, from, to int, knob float32) (runs [][]Tile) {
	for ; from < to; from += pages {
		runs = append(runs, TilesOf(seq, from*page, (from+pages)*page, 1, knob))
	}
	return runs
}

// anchors has early groups, with nothing to choose, groups of other knobs and policies, groups of which the first is asked, and the ends of
// prompts.
func anchors() []tensortest.Case {
	var cases []tensortest.Case
	inf := float32(math.Inf(1))
	for _, h := range []Heads{{4, 2, 8, quant.F16}, {3, 3, 5, quant.F32}, {7, 2, 24, quant.F16}, {1, 1, 16, quant.F32}, {4, 2, 32, quant.Q8_0}, {4, 2, 32, quant.Q4_0}} {
		small := Runs{h, append(groups(0, 1, 2, 6, Own), groups(1, 1, 7, 8, 0.5)...), Room{0, 8, 8 * 32}, 0}
		small.Runs = append(small.Runs, TilesOf(1, 8*page, 8*page+40, 1, Own), TilesOf(2, 8*page, 9*page, 0, Own))
		large := Runs{h, append(groups(0, 4, 0, 12, Own), groups(1, 4, 8, 12, 2)...), Room{0, 3, 100}, 0}
		large.Runs = append(large.Runs, TilesOf(2, 4*page, 7*page+9, 1, Own))
		for _, theta := range []float32{-inf, 0, 0.5, inf} {
			cases = append(cases, SelectAnchor(small, 32, 16, 48, theta), SelectAnchor(large, 128, 1, 32, theta))
		}
		cases = append(cases, SelectAnchor(small, 16, 1, 4, 0.5), SelectAnchor(small, 64, 2, 0, 0.5), SelectAnchor(large, 64, 16, 64, 0.75))
		led := Runs{h, append(groups(0, 4, 0, 8, Own), groups(1, 4, 8, 12, 0.75)...), Room{0, 16, 100}, page}
		led.Runs = append(led.Runs, TilesOf(1, 12*page, 15*page+40, 1, Own), TilesOf(2, 4*page, 7*page+9, 1, 0.25))
		cases = append(cases, SelectAnchor(led, 64, 16, 48, 0), SelectAnchor(led, 32, 16, 48, 0.75), SelectAnchor(led, 32, 16, 48, 2))
		cases = append(cases, softAnchor(led, attention.SelectAnchor{Block: 32, Unit: 16, Single: 48, Theta: 2.3, Soft: true, Every: 4}))
		cases = append(cases, softAnchor(small, attention.SelectAnchor{Block: 16, Unit: 1, Single: 4, Theta: 3.1, Soft: true, Every: 1}))
		cases = append(cases, softAnchor(large, attention.SelectAnchor{Block: 128, Unit: 16, Single: 32, Theta: 2.7, Soft: true, Every: 128}))
		cases = append(cases, softAnchor(large, attention.SelectAnchor{Block: 32, Unit: 16, Single: 48, Theta: 0.5, Every: 8}))
		small.Room.Keys = 35
		cases = append(cases, SelectAnchor(small, 32, 1, 32, 0.5), SelectAnchor(small, 32, 16, 48, 0.75))
	}
	return cases
}
