package attentiontest

import (
	"math/rand/v2"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// Span is the positions First to First+Rows of a sequence, which lie in as many pages as those of the other spans of a step.
type Span struct {
	Seq, First, Rows int
	Policy           int
	Knob             float32 // NaN = the selector's own
}

// Grouped is a step for selectors that plan groups. A row of its case is a span.
type Grouped struct {
	Heads Heads
	Size  int
	Spans []Span // of at most Size rows
	Room  Room
}

// numbers are few and short, so that sums of their products are exact in any order.
func numbers(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.IntN(17)-8) / 4
	}
	return v
}

// counted is the numbers from 0 to n, n excluded.
func counted(n int) []int {
	v := make([]int, n)
	for i := range v {
		v[i] = i
	}
	return v
}

// make is what groups are planned from: the queries of the picked spans, and keys that are NaN where no span sees them.
func (g Grouped) make(w *tensortest.World) attention.Groups {
	batch := Batch{make([]int, 2), make([]int, 2)}
	var queries []float32
	at := make([]int, len(g.Spans))
	for i, r := range g.Spans {
		at[i] = len(queries)
		queries = append(queries, numbers(w.Rand, r.Rows*g.Heads.Query*g.Heads.Dim)...)
		batch.Past[r.Seq] = max(batch.Past[r.Seq], r.First+r.Rows)
	}
	var picked []Tile
	var q []float32
	for _, n := range w.Picked {
		r := g.Spans[n]
		picked = append(picked, TilesOf(r.Seq, r.First, r.First+r.Rows, r.Policy, r.Knob)...)
		q = append(q, queries[at[n]:][:r.Rows*g.Heads.Query*g.Heads.Dim]...)
	}
	p := newPast(w, batch, g.Heads)
	for s, keys := range p.k {
		copy(keys, numbers(w.Rand, len(keys)))
		p.reads(s, batch.Past[s]-1, Parts{}, 0, g.Heads.KV)
	}
	cache, layout := p.place(w)
	tiles := &tensortest.World{Picked: counted(len(picked))}
	l := tiled(tiles, picked, []int32{1 << 20, 1 << 20}, layout.Pages[1])
	for range tensortest.Spare * g.Heads.Query * g.Heads.Dim {
		q = append(q, Own)
	}
	each := len(picked) / len(w.Picked)
	spare := &tensortest.World{Picked: counted(len(picked) + tensortest.Spare*(each-1))} // spare rows of the case are spans too
	return attention.Groups{
		Layout: l, Plan: empty(spare, l, g.Room), Cache: cache, Q: tensor.FromF32(len(q)/g.Heads.Query/g.Heads.Dim, g.Heads.Query*g.Heads.Dim, q),
		Lane: 1, Heads: g.Heads.Query, Serves: 1, Size: g.Size, Scale: 0.25,
	}
}

// spans are steps of two sequences: whole groups at the start and deep, one that is no group, one that is not whole, and one that another
// policy serves.
func (g Grouped) spans(knob float32) Grouped {
	n := g.Size
	g.Spans = []Span{
		{0, 0, n, 1, Own}, {0, n, n, 1, Own}, {0, 2 * n, n, 0, Own}, {0, 3 * n, n, 1, knob}, {0, 4 * n, n - 1, 1, Own},
		{1, 3 * n, n, 1, Own}, {1, 4*n + page, n, 1, Own},
	}
	return g
}

// deeper lets the spans behind the first two begin 8 pages later, so that there is something to leave away.
func (g Grouped) deeper() Grouped {
	for i := range g.Spans[2:] {
		g.Spans[2+i].First += 8 * page
	}
	return g
}

// SelectMInference plans lines and slashes.
func SelectMInference(g Grouped, columns, diagonals int) tensortest.Case {
	name := tensortest.Labels("minference", g.Size, g.Spans, g.Heads.Format, g.Heads.Query, "on", g.Heads.KV, "x", g.Heads.Dim, columns, diagonals)
	return tensortest.Case{Name: name, Rows: len(g.Spans), Make: func(w *tensortest.World) tensortest.Trial {
		o := &attention.SelectMInference{Groups: g.make(w), Columns: columns, Diagonals: diagonals, Times: 1}
		return tensortest.Trial{Op: o, ByRow: byTile(o.Plan)}
	}}
}

func minferences() []tensortest.Case {
	var cases []tensortest.Case
	for _, f := range []*quant.Format{quant.F32, quant.F16} {
		for _, size := range []int{64, 128, 256} {
			g := Grouped{Heads: Heads{4, 2, 16, f}, Size: size, Room: Room{4, 64, 300}}.spans(0.5).deeper()
			cases = append(cases, SelectMInference(g, 40, 101), SelectMInference(g, 150, 101))
		}
		odd := Grouped{Heads: Heads{3, 1, 5, f}, Size: 128, Room: Room{3, 64, 20}}.spans(3).deeper()
		cases = append(cases, SelectMInference(odd, 100, 1), SelectMInference(odd, 0, 34))
	}
	for _, f := range []*quant.Format{quant.Q8_0, quant.Q4_0} {
		packed := Grouped{Heads: Heads{4, 2, 32, f}, Size: 128, Room: Room{4, 64, 300}}.spans(0.5).deeper()
		cases = append(cases, SelectMInference(packed, 40, 101))
	}
	return cases
}

// SelectFlexPrefill plans blocks by the share of attention that they hold.
func SelectFlexPrefill(g Grouped, least int, tau, gamma float32) tensortest.Case {
	name := tensortest.Labels("flexprefill", g.Size, g.Spans, g.Heads.Format, g.Heads.Query, "on", g.Heads.KV, "x", g.Heads.Dim, least, tau, gamma)
	return tensortest.Case{Name: name, Rows: len(g.Spans), Make: func(w *tensortest.World) tensortest.Trial {
		o := &attention.SelectFlexPrefill{Groups: g.make(w), Least: least, Tau: tau, Gamma: gamma}
		return tensortest.Trial{Op: o, ByRow: byTile(o.Plan)}
	}}
}

// flexprefills cut at shares that are no whole number of rows of the map of blocks, each of which sums to 1. Of the heads, tau 0.1 trusts some.
func flexprefills() []tensortest.Case {
	var cases []tensortest.Case
	for _, f := range []*quant.Format{quant.F32, quant.F16} {
		for _, size := range []int{128, 256} {
			g := Grouped{Heads: Heads{4, 2, 16, f}, Size: size, Room: Room{4, 64, 3}}.spans(0.45)
			cases = append(cases, SelectFlexPrefill(g, 1, 0, 0.3), SelectFlexPrefill(g, 2, 1, 0.63), SelectFlexPrefill(g, 1, 0.1, 0.47))
		}
		odd := Grouped{Heads: Heads{3, 1, 5, f}, Size: 128, Room: Room{3, 64, 20}}.spans(0)
		cases = append(cases, SelectFlexPrefill(odd, 1, 0.1, 0.2), SelectFlexPrefill(odd, 3, 1, 0.91))
	}
	for _, f := range []*quant.Format{quant.Q8_0, quant.Q4_0} {
		packed := Grouped{Heads: Heads{4, 2, 32, f}, Size: 128, Room: Room{4, 64, 3}}.spans(0.45)
		cases = append(cases, SelectFlexPrefill(packed, 1, 0, 0.3), SelectFlexPrefill(packed, 1, 0.1, 0.47))
	}
	return cases
}
