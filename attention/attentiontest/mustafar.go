package attentiontest

import (
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

func pruned() []tensortest.Case {
	var cases []tensortest.Case
	for _, n := range edges {
		h := Heads{4, 2, 64, quant.F16}
		cases = append(cases, Prune(one(n-1, 1), h, 20), Prune(one(0, n), h, 64), AttendPruned(Attend(one(n-1, 1), h, Full), h, 20),
			AttendPruned(Attend(one(n, 3), h, Mixed(2)), h, 32))
	}
	for _, dim := range []int{16, 32, 80, 128} {
		h := Heads{6, 2, dim, quant.F16}
		cases = append(cases, Prune(Batch{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 20}}, h, dim/2), AttendPruned(Attend(one(130, 130), h, Full), h, 4),
			AttendPruned(Attend(one(700, 70), h, Mixed(1)), h, dim), AttendPruned(Attend(one(1500, 3), h, Window(300)), h, dim/2))
	}
	h := Heads{8, 2, 64, quant.F16}
	return append(cases, AttendPruned(Attend(Batch{[]int{900, 1300, 40}, []int{1, 1, 70}}, h, Full), h, 24),
		AttendPruned(Attend(one(700, 5), h, Neighbours(1, 2, 2)), h, 24))
}

// prunedPages gives a cache pruned pages, all bits of which are set, and turns the layout's pages into its dense ones: those come in another order.
func prunedPages(c *attention.Cache, l *attention.Layout, keep int) {
	dense := l.Pages[1]
	most := slices.Max(append(slices.Clone(dense.I32()), 0))
	table := make([]int32, len(dense.I32()))
	for i, page := range dense.I32() {
		table[i] = most - page // numbers without a place have none here either
		if page < 0 {
			table[i] = -1
		}
	}
	shapes := []attention.Shape{{Heads: 1, Dim: 16, Format: quant.F16, Keep: 3}, {Heads: c.Heads, Dim: c.Dim, Format: c.Format, Keep: keep}}
	both := []*attention.Cache{{}, c}
	if _, err := attention.AddPruned(tensor.Reference(), int(most)+1, shapes, both); err != nil {
		panic(err) // the reference has memory or the process has none
	}
	for _, m := range []tensor.Mat{c.Pruned.K, c.Pruned.V} {
		raw := m.Raw()
		for i := range raw {
			raw[i] = 0xff
		}
	}
	l.Dense, l.Pages[1] = dense, tensor.FromI32(dense.Rows, dense.Cols, table)
}

// Prune packs the pages that a batch fills.
func Prune(b Batch, h Heads, keep int) tensortest.Case {
	name := tensortest.Labels("prune", keep, "of", h.KV, "x", h.Dim, "past", b.Past, "rows", b.Rows)
	return tensortest.Case{Name: name, Rows: b.total(), Make: func(w *tensortest.World) tensortest.Trial {
		p := newPast(w, b, h)
		for _, v := range slices.Concat(p.k, p.v) { // some are alike
			for i := range v {
				if i%3 == 0 {
					v[i] = float32(int(v[i]*2)) / 2
				}
			}
		}
		for row := range b.total() {
			seq, pos := b.at(row)
			p.reads(seq, pos, Parts{}, 0, h.KV)
		}
		o := &attention.Prune{Lane: 1}
		o.Cache, o.Layout = p.place(w)
		prunedPages(o.Cache, o.Layout, keep)
		return tensortest.Trial{Op: o}
	}}
}

// AttendPruned is a case of Attend where all pages but the rows' own are pruned.
func AttendPruned(of tensortest.Case, h Heads, keep int) tensortest.Case {
	dense := of.Make
	of.Name = tensortest.Labels("pruned", keep, of.Name)
	of.Make = func(w *tensortest.World) tensortest.Trial {
		trial := dense(w)
		o := trial.Op.(*attention.Attend)
		l := o.Layout
		prunedPages(o.Cache, l, keep)
		var seqs, positions []int32
		own := map[int]bool{}
		for i, pos := range l.Pos.I32() {
			own[int(l.Seq.I32()[i])*l.Dense.Cols+int(pos)/attention.PageTokens] = true
		}
		for i, page := range l.Dense.I32() {
			if page >= 0 {
				seqs = append(seqs, int32(i/l.Dense.Cols))
				positions = append(positions, int32(i%l.Dense.Cols*attention.PageTokens+attention.PageTokens-1))
			}
		}
		all := *l
		all.Seq, all.Pos, all.Rows = tensor.FromI32(len(seqs), 1, seqs), tensor.FromI32(len(seqs), 1, positions), tensor.Mat{}
		(&attention.Prune{Cache: o.Cache, Layout: &all, Lane: 1}).Reference()
		for i := range l.Dense.I32() {
			if !own[i] {
				l.Dense.I32()[i] = -1
			}
		}
		return trial
	}
	return of
}
