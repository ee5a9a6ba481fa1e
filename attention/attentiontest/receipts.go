package attentiontest

import (
	"math"
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// Probe asks for every second row of a batch how much mass a choice has. A row of the case is a probe; a key that no probed row sees is NaN.
func Probe(b Batch, h Heads, c Choice) tensortest.Case {
	name := tensortest.Labels("probe", c.Name, h.Format, h.Query, "on", h.KV, "x", h.Dim, "past", b.Past, "rows", b.Rows)
	probes := (b.total() + 1) / 2
	return tensortest.Case{Name: name, Rows: probes, Make: func(w *tensortest.World) tensortest.Trial {
		whole := *w // the batch, all of it, whatever rows are probed
		whole.Total, whole.Picked = b.total(), nil
		for row := range b.total() {
			whole.Picked = append(whole.Picked, row)
		}
		past := newPast(&whole, b, h)
		o := &attention.Probe{
			Q: whole.Batch(1, h.Query*h.Dim), Y: w.Output(quant.F32, 1, h.Query), N: w.Count(),
			Lane: 1, Heads: h.Query, Scale: float32(1 / math.Sqrt(float64(h.Dim))),
		}
		o.Plan, _ = choose(&whole, b, c)
		var rows []int32
		for i := range probes {
			rows = append(rows, int32(2*i))
		}
		o.Rows = w.Pick(tensor.FromI32(probes, 1, rows))
		for _, i := range w.Picked {
			seq, pos := b.at(2 * i)
			past.reads(seq, pos, Parts{}, 0, h.KV)
		}
		o.Cache, o.Layout = past.place(&whole)
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.Y}}
	}}
}

// Count adds up the plan of a batch; a row of the case is a sequence.
func Count(b Batch, heads int, c Choice) tensortest.Case {
	name := tensortest.Labels("count", c.Name, heads, "past", b.Past, "rows", b.Rows)
	return tensortest.Case{Name: name, Rows: len(b.Rows), Make: func(w *tensortest.World) tensortest.Trial {
		o := &attention.Count{Y: w.Batch(1, 2), Heads: heads}
		all := make([][]Parts, len(b.Rows)) // of each sequence
		for s := range b.Rows {
			for row := range b.Rows[s] {
				for range c.Groups {
					all[s] = append(all[s], c.Draw(w, b.Past[s]+row))
				}
			}
		}
		var parts []Parts
		var seqs, positions []int32
		for i, s := range w.Picked {
			parts = append(parts, all[s]...)
			for row := range b.Rows[s] {
				seqs, positions = append(seqs, int32(i)), append(positions, int32(b.Past[s]+row))
			}
		}
		o.Plan = plan(parts, c.Groups)
		o.Layout = &attention.Layout{Seq: column(seqs), Pos: column(positions), Rows: tensor.FromI32(1, 1, []int32{int32(len(seqs))})}
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.Y}}
	}}
}

func probes() []tensortest.Case {
	var cases []tensortest.Case
	for _, n := range edges {
		for _, c := range []Choice{Full, Mixed(2)} {
			cases = append(cases, Probe(one(n-1, 1), Heads{4, 2, 32, quant.Q8_0}, c), Probe(one(n, 3), Heads{4, 4, 96, quant.Q8_0}, c), Probe(one(n, 2), Heads{4, 2, 64, quant.Q4_0}, c))
		}
	}
	for _, f := range []*quant.Format{quant.F32, quant.F16} {
		for _, c := range []Choice{Full, FullByBlocks, Itself, Window(65), Stream, Mixed(1), Mixed(2), Mixed(4)} {
			for _, n := range edges {
				cases = append(cases, Probe(one(n-1, 1), Heads{4, 2, 32, f}, c), Probe(one(n, 3), Heads{4, 4, 8, f}, c))
			}
			cases = append(cases, Probe(Batch{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 2}}, Heads{8, 2, 24, f}, c))
		}
		for dim := 1; dim <= 9; dim++ {
			cases = append(cases, Probe(one(66, 2), Heads{dim, 1, dim, f}, Mixed(1)))
		}
		cases = append(cases, Probe(one(3000, 3), Heads{4, 2, 128, f}, Mixed(2)), Probe(one(150, 37), Heads{4, 2, 32, f}, Tiled(16)))
	}
	return cases
}

func counts() []tensortest.Case {
	var cases []tensortest.Case
	for _, c := range []Choice{Full, FullByBlocks, Itself, Stream, Mixed(1), Mixed(2), Mixed(6)} {
		for _, n := range edges {
			cases = append(cases, Count(one(n-1, 1), 6, c), Count(one(n, 70), 6, c))
		}
		cases = append(cases, Count(Batch{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 2}}, 12, c))
	}
	return cases
}

// receipts are the cases of the ops that look at plans after they were made.
func receipts() []tensortest.Case { return slices.Concat(probes(), counts()) }
