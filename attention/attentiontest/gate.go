package attentiontest

import (
	"math/rand/v2"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// Gate is the shape of a trained gate. Those of an even width have norms.
type Gate struct {
	Heads, Width int
	Format       *quant.Format // of projections; nil = queries are not projected
}

// rotation turns up to pairs pairs.
func rotation(pairs int, p tensor.Pairing) attention.Rotation {
	freq := make([]float32, pairs)
	for i := range freq {
		freq[i] = 1 / float32(int(1)<<min(i, 20))
	}
	return attention.Rotation{Freq: tensor.FromF32(1, pairs, freq), Scale: 1.25, Pairs: p}
}

// pairing is how a case's gates turn.
func pairing(tiles []Tile) tensor.Pairing {
	if len(tiles)%2 == 0 {
		return tensor.Neighbours
	}
	return tensor.Halves
}

// weight is a gate's projection: no weight that a device loads in a layout of its own.
func weight(w *tensortest.World, f *quant.Format, rows, cols int) tensor.Mat {
	m := w.Weight(f, rows, cols)
	m.Name = ""
	return m
}

func (g Gate) norm(w *tensortest.World) tensor.Mat {
	if g.Width%2 != 0 {
		return tensor.Mat{}
	}
	return w.Floats(1, g.Width)
}

// GateKeys makes gate keys of the pages that tiles end, and of the tails of those that policy 1 serves. A row of the case is a tile.
func GateKeys(tiles []Tile, h Heads, g Gate) tensortest.Case {
	name := tensortest.Labels("gate keys", h.Format, h.KV, "x", h.Dim, "to", g.Heads, "x", g.Width, g.Format, len(tiles), "tiles", tiles[0].First)
	return tensortest.Case{Name: name, Rows: len(tiles), Make: func(w *tensortest.World) tensortest.Trial {
		tables, pages := tableOf(w, tiles)
		caches, err := attention.NewCaches(tensor.Reference(), pages, []attention.Shape{{Heads: h.KV, Dim: h.Dim, Format: h.Format}})
		if err != nil {
			panic(err) // the reference has memory or the process has none
		}
		o := &attention.GateKeys{
			Cache: caches[0], W: weight(w, g.Format, g.Heads*3*h.Dim, g.Width), Norm: g.norm(w), Keys: sidecar(quant.F16, pages*g.Heads, g.Width),
			Tails: w.Output(quant.F32, g.Heads, g.Width), Model: rotation(h.Dim/2, tensor.Neighbours), Gate: rotation(g.Width/2, pairing(tiles)),
			Layout: tiled(w, tiles, []int32{1, 1}, tables), Lane: 1, Serves: 1, Late: g.Heads % 2 * (page - 1),
		}
		raw := o.Cache.K.Raw()
		for i := range raw {
			raw[i] = 0xff
		}
		for _, n := range w.Picked {
			last := tiles[n].First + tiles[n].Rows - 1
			at := tables.I32()[tiles[n].Seq*tables.Cols+last/page]
			for head := range h.KV {
				r := rand.New(rand.NewPCG(uint64(at), uint64(head)))
				for slot := range last%page + 1 {
					key := make([]float32, h.Dim)
					for d := range key {
						key[d] = float32(r.NormFloat64())
					}
					put(o.Cache, spot{at, head, slot}, key, key)
				}
			}
		}
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.Tails}}
	}}
}

// GateQueries makes gate queries. A row of the case is a tile.
func GateQueries(tiles []Tile, h Heads, g Gate) tensortest.Case {
	name := tensortest.Labels("gate queries", h.Query, "x", h.Dim, "to", g.Heads, "x", g.Width, g.Format, len(tiles), "tiles", tiles[0].First)
	return tensortest.Case{Name: name, Rows: len(tiles), Make: func(w *tensortest.World) tensortest.Trial {
		tables, _ := tableOf(w, tiles)
		o := &attention.GateQueries{
			Q: rowsOf(w, tiles, h.Query*h.Dim), Norm: g.norm(w), Y: w.Output(quant.F32, g.Heads, g.Width), Gate: rotation(g.Width/2, pairing(tiles)),
			Layout: tiled(w, tiles, []int32{1, 1}, tables), Serves: 1, Heads: g.Heads, Whole: 1 + g.Heads%2*(page-1),
		}
		if g.Format != nil {
			o.W = weight(w, g.Format, h.Query*h.Dim, g.Width)
		}
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.Y}}
	}}
}

// SelectPages chooses among pages whose keys are fractions, so that every order of a sum gives the same. A row of the case is a tile; o has
// what is fixed.
func SelectPages(tiles []Tile, group, keyHeads, width int, o attention.SelectPages) tensortest.Case {
	name := tensortest.Labels("pages", "rule", o.Rule, o.Fixed, o.Knob, o.Heads, "on", keyHeads, "x", width, "by", group, o.Sink, o.Dense, len(tiles), "tiles", tiles[0].First)
	return tensortest.Case{Name: name, Rows: len(tiles), Make: func(w *tensortest.World) tensortest.Trial {
		tables, pages := tableOf(w, tiles)
		o := o
		o.Layout, o.Lane, o.KeyHeads, o.Serves, o.Scale = tiled(w, tiles, []int32{900, 1200}, tables), 1, keyHeads, 1, 1.0/32
		o.Queries, o.Keys = w.Pick(fractions(w, len(tiles)*o.Heads, width)), sidecar(quant.F16, pages*keyHeads, width)
		rows := scored(w, tiles, tables, keyHeads)
		if o.Rule != attention.ByBudget {
			o.Tails = w.Pick(fractions(w, len(tiles)*keyHeads, width))
			for _, t := range tiles {
				if last := t.First + t.Rows - 1; last%page == page-1 {
					for h := range keyHeads {
						rows = append(rows, int(tables.I32()[t.Seq*tables.Cols+last/page])*keyHeads+h)
					}
				}
			}
		}
		for _, row := range rows {
			r := rand.New(rand.NewPCG(4, uint64(row)))
			for d := range width {
				set(o.Keys, row*width+d, fraction(r))
			}
		}
		o.Plan = empty(w, o.Layout, Room{o.Heads * group, max(9, int(o.Knob)/page), 1})
		return tensortest.Trial{Op: &o, ByRow: byTile(o.Plan)}
	}}
}

func fractions(w *tensortest.World, rows, cols int) tensor.Mat {
	m := w.Floats(rows, cols)
	for i := range m.F32() {
		m.F32()[i] = fraction(w.Rand)
	}
	return m
}

func gates() []tensortest.Case {
	var cases []tensortest.Case
	prompt := append(TilesOf(0, 0, 150, 1, Own), append(TilesOf(1, 64, 200, 0, Own), decoding(63, 127, 128, 191, 192)...)...)
	for _, f := range []*quant.Format{quant.F32, quant.BF16} {
		for dim := 1; dim <= 9; dim++ {
			for _, width := range []int{dim, 3 * dim, 70 - dim} {
				cases = append(cases, GateKeys(prompt, Heads{4, 2, dim, quant.F32}, Gate{2 * (1 + dim%3), width, f}),
					GateQueries(prompt, Heads{4, 2, dim, quant.F32}, Gate{2, width, f}))
			}
			cases = append(cases, GateQueries(prompt, Heads{3, 1, dim, quant.F32}, Gate{3, dim, nil}))
		}
		cases = append(cases, GateKeys(prompt, Heads{4, 2, 128, quant.F16}, Gate{2, 128, f}), GateKeys(prompt, Heads{4, 2, 96, quant.Q8_0}, Gate{2, 128, f}), GateKeys(prompt, Heads{4, 2, 64, quant.Q4_0}, Gate{2, 128, f}), GateQueries(prompt, Heads{8, 2, 128, quant.F32}, Gate{2, 128, f}))
	}
	blocks := append(TilesOf(0, 0, 900, 1, Own), TilesOf(1, 640, 1200, 1, Own)...)
	for _, kv := range []int{1, 3} {
		for _, group := range []int{1, 2} {
			cases = append(cases,
				SelectPages(decoding(0, 63, 64, 127, 128, 191, 192, 1000, 1023, 1024, 3000), group, kv, 24, attention.SelectPages{Heads: kv, Knob: 256, Sink: 1}),
				SelectPages(decoding(900, 300, 500, 1100), group, kv, 24, attention.SelectPages{Heads: kv, Rule: attention.ByShare, Fixed: 0.05, Knob: 256, Sink: 1}),
				SelectPages(blocks, group, kv, 24, attention.SelectPages{Heads: 2 * kv, Rule: attention.ByShare, Knob: 0.08, Sink: 2, Dense: 2}),
				SelectPages(blocks, group, kv, 24, attention.SelectPages{Heads: 2 * kv, Rule: attention.ByShare, Knob: 0.001, Relax: 4}),
				SelectPages(blocks, group, kv, 24, attention.SelectPages{Heads: 2 * kv, Rule: attention.ByRatio, Fixed: 0.3, Sink: 1, Dense: 2}))
		}
	}
	return cases
}

// SteadyGates is Steady for both selectors with gates.
func SteadyGates(t *testing.T, d tensor.Device) {
	r := rand.New(rand.NewPCG(5, 6))
	mat := func(rows, cols int) tensor.Mat {
		m, err := tensor.NewMat(d, quant.F32, rows, cols)
		if err != nil {
			t.Fatal(err)
		}
		host := tensor.FromF32(rows, cols, make([]float32, rows*cols))
		for i := range host.F32() {
			host.F32()[i] = float32(r.NormFloat64())
		}
		q := d.Queue()
		q.Write(m.Buf, m.Off, host.Raw())
		if err := q.Sync(); err != nil {
			t.Fatal(err)
		}
		return m
	}
	heads, kv, dim := walkHeads.Query, walkHeads.KV, walkHeads.Dim
	Steady(t, d, "seer_decode", attention.Setting{Knobs: []float32{128}, Gates: []attention.Gate{
		{Query: mat(heads*dim, 8), Key: mat(kv*3*dim, 8), QueryNorm: mat(1, 8), KeyNorm: mat(1, 8)}}}, 7)
	Steady(t, d, "seer", attention.Setting{Knobs: []float32{0.05}, Gates: []attention.Gate{{Key: mat(heads*3*dim, dim)}},
		Params: map[string]float64{"last_block_dense": 0}}, page)
}
