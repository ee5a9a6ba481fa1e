package attentiontest

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// KeyBounds bounds the units of the new tokens of a batch.
func KeyBounds(b Batch, h Heads, unit int) tensortest.Case {
	name := tensortest.Labels("bounds", h.Format, h.KV, "x", h.Dim, "unit", unit, "past", b.Past, "rows", b.Rows)
	return tensortest.Case{Name: name, Rows: b.total(), Make: func(w *tensortest.World) tensortest.Trial {
		p := newPast(w, b, h)
		for row := range b.total() {
			seq, pos := b.at(row)
			p.reads(seq, pos, Parts{Local: pos / page * page}, 0, h.KV)
		}
		o := &attention.KeyBounds{Lane: 1, Unit: unit}
		o.Cache, o.Layout = p.place(w)
		o.Bounds = sidecar(o.Cache.Sidecar(), pagesOf(o.Cache)*h.KV, 2*h.Dim*(page/unit))
		return tensortest.Trial{Op: o}
	}}
}

// pagesOf is the number of pages of a cache in which it is the last layer.
func pagesOf(c *attention.Cache) int {
	return (c.K.Rows*page-c.Heads*c.Dim*page)/c.Stride + 1
}

// sidecar is a matrix of which every bit is set: NaN.
func sidecar(f *quant.Format, rows, cols int) tensor.Mat {
	return tensor.HostMat("", f, rows, cols, slices.Repeat([]byte{0xff}, rows*f.RowBytes(cols)))
}

// SelectQuest chooses among units whose bounds are fractions, so that every order of a sum gives the same; many are equal. A row of the case
// is a tile.
func SelectQuest(tiles []Tile, h Heads, unit int, budget float32) tensortest.Case {
	name := tensortest.Labels("quest", h.Format, h.Query, "on", h.KV, "x", h.Dim, "unit", unit, "budget", budget, len(tiles), "tiles", tiles[0].First)
	return tensortest.Case{Name: name, Rows: len(tiles), Make: func(w *tensortest.World) tensortest.Trial {
		tables, pages := tableOf(w, tiles)
		o := &attention.SelectQuest{
			Q: rowsOf(w, tiles, h.Query*h.Dim), Bounds: sidecar(h.Format, pages*h.KV, 2*h.Dim*(page/unit)),
			Layout: tiled(w, tiles, []int32{1, 1}, tables), Lane: 1, Heads: h.Query, KV: h.KV, Unit: unit, Serves: 1, Budget: budget,
		}
		half := o.Bounds.Cols / 2
		for _, row := range scored(w, tiles, tables, h.KV) {
			r := rand.New(rand.NewPCG(3, uint64(row)))
			for i := range half {
				least := fraction(r)
				set(o.Bounds, row*2*half+i, least)
				set(o.Bounds, row*2*half+half+i, least+float32(r.IntN(4))/4)
			}
		}
		o.Plan = empty(w, o.Layout, Room{h.Query, max(8, int(budget)/256), max(160, int(budget)/4)})
		return tensortest.Trial{Op: o, ByRow: byTile(o.Plan)}
	}}
}

// fraction is a number with few bits.
func fraction(r *rand.Rand) float32 { return float32(r.IntN(17)-8) / 4 }

// tableOf gives each page of the sequences of a list of tiles a place; one place more is nobody's.
func tableOf(w *tensortest.World, tiles []Tile) (tables tensor.Mat, pages int) {
	wide, seqs := 0, 0
	for _, t := range tiles {
		wide, seqs = max(wide, (t.First+t.Rows+page-1)/page), max(seqs, t.Seq+1)
	}
	table := make([]int32, seqs*wide)
	for i, p := range w.Perm(len(table)) {
		table[i] = int32(p)
	}
	return tensor.FromI32(seqs, wide, table), len(table) + 1
}

// rowsOf is a matrix of fractions for the rows of the picked tiles.
func rowsOf(w *tensortest.World, tiles []Tile, cols int) tensor.Mat {
	r := rand.New(rand.NewPCG(w.Uint64(), 0))
	var at []int
	total := 0
	for _, t := range tiles {
		at, total = append(at, total), total+t.Rows
	}
	all := make([]float32, total*cols)
	for i := range all {
		all[i] = fraction(r)
	}
	var v []float32
	for _, n := range w.Picked {
		v = append(v, all[at[n]*cols:][:tiles[n].Rows*cols]...)
	}
	for range tensortest.Spare * cols {
		v = append(v, Own)
	}
	return tensor.FromF32(len(v)/cols, cols, v)
}

// scored lists the rows of a sidecar with some rows a page that the picked tiles which policy 1 serves may read: those of all pages before
// their own.
func scored(w *tensortest.World, tiles []Tile, tables tensor.Mat, each int) (rows []int) {
	for _, n := range w.Picked {
		t := tiles[n]
		for i := 0; i < t.First/page && t.Policy == 1; i++ {
			for r := range each {
				rows = append(rows, int(tables.I32()[t.Seq*tables.Cols+i])*each+r)
			}
		}
	}
	slices.Sort(rows)
	return slices.Compact(rows)
}

// decoding is tiles of one token each at the given positions, by turns of two sequences, with some that another policy serves, some with a
// knob of their own, and one of several rows.
func decoding(positions ...int) []Tile {
	var tiles []Tile
	for i, p := range positions {
		t := Tile{Seq: i % 2, First: p, Rows: 1, Policy: 1, Knob: Own}
		switch i % 5 {
		case 2:
			t.Policy = 0
		case 3:
			t.Knob = 192
		case 4:
			t.Rows = min(3, page-p%page)
		}
		tiles = append(tiles, t)
	}
	return tiles
}

func quests() []tensortest.Case {
	var cases []tensortest.Case
	for _, unit := range []int{16, 32, 64} {
		for _, n := range edges {
			cases = append(cases, KeyBounds(one(n/2, n), Heads{2, 2, 96, quant.Q8_0}, unit), KeyBounds(one(n/2, n), Heads{2, 2, 64, quant.Q4_0}, unit))
		}
	}
	for _, f := range []*quant.Format{quant.F32, quant.F16} {
		for _, unit := range []int{16, 32, 64} {
			for _, n := range edges {
				cases = append(cases, KeyBounds(one(n-1, 1), Heads{1, 1, 8, f}, unit), KeyBounds(one(n/2, n), Heads{2, 2, 24, f}, unit))
			}
			cases = append(cases, KeyBounds(Batch{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 130}}, Heads{2, 2, 100, f}, unit))
			for dim := 1; dim <= 9; dim++ {
				cases = append(cases, KeyBounds(one(14, 20), Heads{2, 2, dim, f}, unit),
					SelectQuest(decoding(300, 200, 200, 500, 700), Heads{dim, 1, 10 - dim, f}, unit, 128))
			}
			for _, h := range []Heads{{4, 2, 32, f}, {14, 2, 40, f}, {8, 8, 128, f}} {
				cases = append(cases, SelectQuest(decoding(0, 63, 64, 65, 127, 128, 191, 192, 1000, 1023, 1024, 3000), h, unit, 128),
					SelectQuest(decoding(10000, 9000, 64, 300), h, unit, 256), SelectQuest(decoding(900), h, unit, 1024))
			}
		}
	}
	return cases
}

// SteadyQuest is Steady for quest with units of all sizes.
func SteadyQuest(t *testing.T, d tensor.Device) {
	for _, unit := range []float64{16, 32, 64} {
		s := attention.Setting{Knobs: []float32{128}, Params: map[string]float64{"unit": unit, "dense_layers": 0}}
		Steady(t, d, "quest", s, 7)
	}
}
