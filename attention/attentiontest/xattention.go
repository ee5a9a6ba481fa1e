package attentiontest

import (
	"cmp"
	"fmt"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// Antidiagonals are how xattention scores and chooses.
type Antidiagonals struct{ Stride, Mean, Unit, Cut int }

// SelectXAttention plans by antidiagonals; a row of the case is a block of rows, or a group of them.
func SelectXAttention(b Runs, by Antidiagonals, gamma float32) tensortest.Case {
	group := page * len(b.Runs[0])
	block := cmp.Or(b.Block, group)
	name := tensortest.Labels("xattention", b.Heads.Format, b.Heads.Query, "on", b.Heads.KV, "x", b.Heads.Dim, "block", block, "stride", by.Stride, "mean", by.Mean,
		"unit", by.Unit, "cut", by.Cut, "gamma", gamma)
	if group > block {
		name += fmt.Sprint(" groups ", group)
	}
	return tensortest.Case{Name: name, Rows: len(b.Runs), Make: func(w *tensortest.World) tensortest.Trial {
		o := &attention.SelectXAttention{Groups: b.make(w), Gamma: gamma, Stride: by.Stride, Mean: by.Mean, Unit: by.Unit, Cut: by.Cut}
		o.Scale, o.Lead, o.Size = 4, group, block
		return tensortest.Trial{Op: o, ByRow: byTile(o.Plan)}
	}}
}

// antidiagonals has early blocks, with nothing to choose, blocks of other knobs and policies, and the ends of prompts with and without a
// whole mean.
func antidiagonals() []tensortest.Case {
	var cases []tensortest.Case
	for _, h := range []Heads{{4, 2, 8, quant.F16}, {3, 3, 5, quant.F32}, {7, 2, 24, quant.F16}, {1, 1, 16, quant.F32}, {4, 2, 32, quant.Q8_0}, {4, 2, 32, quant.Q4_0}} {
		small := Runs{h, append(groups(0, 1, 0, 5, Own), groups(1, 1, 10, 11, 0.75)...), Room{0, 11, 90}, 0}
		small.Runs = append(small.Runs, TilesOf(1, 11*page, 11*page+40, 1, Own), TilesOf(2, 3*page, 3*page+7, 1, Own), TilesOf(3, 3*page, 4*page, 0, Own))
		large := Runs{h, append(groups(0, 2, 0, 6, Own), groups(1, 2, 8, 10, 0.75)...), Room{0, 5, 50}, 0}
		large.Runs = append(large.Runs, TilesOf(2, 4*page, 5*page+9, 1, Own))
		// Groups of blocks, of which the first is asked, and the ends of prompts.
		grouped := Runs{h, append(groups(0, 4, 0, 8, Own), groups(1, 4, 8, 12, 0.75)...), Room{0, 16, 100}, 0}
		grouped.Runs = append(grouped.Runs, TilesOf(1, 12*page, 15*page+40, 1, Own), TilesOf(2, 4*page, 7*page+9, 1, 0.25))
		for _, by := range []Antidiagonals{{Stride: 8, Mean: 1}, {Stride: 16, Mean: 2}, {Stride: 4, Mean: 8}} {
			with := func(unit, cut int) Antidiagonals { return Antidiagonals{by.Stride, by.Mean, unit, cut} }
			for _, gamma := range []float32{0, 0.75, 1} {
				cases = append(cases, SelectXAttention(small, with(64, 0), gamma), SelectXAttention(large, with(16, 0), gamma))
			}
			cases = append(cases, SelectXAttention(small, with(16, 32), 0.5), SelectXAttention(large, with(128, 4), 0.5))
			for _, cut := range []int{2, 32, 500} {
				grouped.Block = page
				cases = append(cases, SelectXAttention(grouped, with(16, cut), 0.5))
				grouped.Block = 2 * page
				cases = append(cases, SelectXAttention(grouped, with(64, cut), 0.5))
			}
		}
	}
	return cases
}
