package attentiontest

import (
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// Tile is a run of rows that share a plan row: positions First to First+Rows of a sequence, in one page.
type Tile struct {
	Seq, First, Rows int
	Policy           int
	Knob             float32 // NaN = the selector's own
}

// Own is the knob of tiles whose request has none.
var Own = float32(math.NaN())

// TilesOf cuts positions from to to, to excluded, of a sequence at the ends of pages, for one policy.
func TilesOf(seq, from, to, policy int, knob float32) (tiles []Tile) {
	for from < to {
		end := min(to, (from/page+1)*page)
		tiles = append(tiles, Tile{seq, from, end - from, policy, knob})
		from = end
	}
	return tiles
}

// tiled is the layout of the picked ones of a list of tiles. Rows of picked tiles follow each other in the order of picking. Prompt is the
// length of every sequence's prompt, and tables is the page table.
func tiled(w *tensortest.World, list []Tile, prompt []int32, tables tensor.Mat) *attention.Layout {
	var seqs, positions, of, first, policy []int32
	var knobs []float32
	for i, n := range w.Picked {
		t := list[n]
		first, policy, knobs = append(first, int32(len(seqs))), append(policy, int32(t.Policy)), append(knobs, t.Knob)
		for r := range t.Rows {
			seqs, positions, of = append(seqs, int32(t.Seq)), append(positions, int32(t.First+r)), append(of, int32(i))
		}
	}
	rows := int32(len(seqs))
	for range tensortest.Spare {
		knobs = append(knobs, Own)
	}
	return &attention.Layout{
		Pages: []tensor.Mat{{}, tables}, Prompt: tensor.FromI32(len(prompt), 1, prompt),
		Seq: column(seqs), Pos: column(positions), Rows: tensor.FromI32(1, 1, []int32{rows}),
		Tiles: attention.Tiles{
			Of: column(of), First: column(append(first, rows)), N: w.Count(), Policy: column(policy), Knob: tensor.FromF32(len(knobs), 1, knobs),
		},
	}
}

// Room is what an empty plan has room for in each of its rows.
type Room struct{ Groups, Blocks, Keys int }

// empty is a plan for the picked tiles, full of what no op writes.
func empty(w *tensortest.World, l *attention.Layout, r Room) *attention.Plan {
	out := func(n int) tensor.Mat { return w.Output(quant.I32, n, 1) }
	return &attention.Plan{
		Tile: l.Tiles.Of, Groups: r.Groups, Sink: out(r.Groups), Local: out(r.Groups),
		BlockAt: out(r.Groups), BlockN: out(r.Groups), Blocks: out(r.Groups * r.Blocks),
		KeyAt: out(r.Groups), KeyN: out(r.Groups), Keys: out(r.Groups * r.Keys),
	}
}

// byTile lists what a plan holds for each tile, whatever other tiles there are.
func byTile(p *attention.Plan) []*tensor.Mat {
	return []*tensor.Mat{&p.Sink, &p.Local, &p.BlockN, &p.Blocks, &p.KeyN, &p.Keys}
}

// SelectRanges plans by position; a row of the case is a tile.
func SelectRanges(tiles []Tile, sink, recent int, whole []int32) tensortest.Case {
	name := tensortest.Labels("ranges", len(tiles), "tiles", tiles[0].First, "sink", sink, "recent", recent, fmt.Sprint(whole))
	return tensortest.Case{Name: name, Rows: len(tiles), Make: func(w *tensortest.World) tensortest.Trial {
		l := tiled(w, tiles, []int32{1 << 20, 1 << 20}, tensor.FromI32(2, 1, []int32{0, 1}))
		o := &attention.SelectRanges{Layout: l, Plan: empty(w, l, Room{4, 3, 5}), Serves: 1, Sink: sink, Recent: float32(recent)}
		if whole != nil {
			o.Whole = tensor.FromI32(1, 4, whole)
		}
		return tensortest.Trial{Op: o, ByRow: byTile(o.Plan)}
	}}
}

func ranges() []tensortest.Case {
	var cases []tensortest.Case
	for _, n := range edges {
		tiles := append(TilesOf(0, n-1, n+140, 1, Own), TilesOf(1, n, n+1, 0, Own)...)
		tiles = append(tiles, TilesOf(1, n+1, n+2, 1, 100)...)
		cases = append(cases, SelectRanges(tiles, 64, 128, nil), SelectRanges(tiles, 0, 0, nil), SelectRanges(tiles, 128, 64, []int32{1, 0, 0, 1}))
	}
	return cases
}
