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
		cases = append(cases, Prune(one(n-1, 1), h, 20), Prune(one(0, n), h, 64), Pruned(Attend(one(n-1, 1), h, Full), 20),
			Pruned(Attend(one(n, 3), h, Mixed(2)), 32))
	}
	for _, dim := range []int{16, 32, 80, 128} {
		h := Heads{6, 2, dim, quant.F16}
		cases = append(cases, Prune(Batch{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 20}}, h, dim/2), Pruned(Attend(one(130, 130), h, Full), 4),
			Pruned(Attend(one(700, 70), h, Mixed(1)), dim), Pruned(Attend(one(1500, 3), h, Window(300)), dim/2))
	}
	cases = append(cases, besidePruned()...)
	h := Heads{8, 2, 64, quant.F16}
	return append(cases, Pruned(Attend(Batch{[]int{900, 1300, 40}, []int{1, 1, 70}}, h, Full), 24),
		Pruned(Attend(one(700, 5), h, Neighbours(1, 2, 2)), 24))
}

// prunedPages gives a cache pruned pages, all bits of which are set, and turns the layout's pages into its dense ones: those come in another order.
func prunedPages(c *attention.Cache, l *attention.Layout, keep int) {
	addPruned(c, l, attention.Shape{Heads: 1, Dim: 16, Format: quant.F16, Keep: 3}, keep)
}

// addPruned is prunedPages behind another layer. There are as many pages again that nobody has.
func addPruned(c *attention.Cache, l *attention.Layout, before attention.Shape, keep int) {
	dense := l.Pages[1]
	most := slices.Max(append(slices.Clone(dense.I32()), 0))
	table := make([]int32, len(dense.I32()))
	for i, page := range dense.I32() {
		table[i] = most - page // numbers without a place have none here either
		if page < 0 {
			table[i] = -1
		}
	}
	shapes := []attention.Shape{before, {Heads: c.Heads, Dim: c.Dim, Format: c.Format, Keep: keep}}
	both := []*attention.Cache{{}, c}
	if _, err := attention.AddPruned(tensor.Reference(), 2*(int(most)+1), shapes, both); err != nil {
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

// Pruned is a case of an op that reads keys where full pages are pruned.
func Pruned(of tensortest.Case, keep int) tensortest.Case {
	dense := of.Make
	of.Name = tensortest.Labels("pruned", keep, of.Name)
	of.Make = func(w *tensortest.World) tensortest.Trial {
		trial := dense(w)
		switch o := trial.Op.(type) {
		case *attention.Attend:
			prunePast(o.Cache, o.Layout, keep)
		case *attention.Probe:
			prunePast(o.Cache, o.Layout, keep)
		case *attention.KeyBounds:
			prunedPages(o.Cache, o.Layout, keep)
		case *attention.GateKeys:
			prunedPages(o.Cache, o.Layout, keep)
		}
		return trial
	}
	return of
}

// prunePast prunes all pages of a batch. Those that the rows are in lie beside that where they were, and no others.
func prunePast(c *attention.Cache, l *attention.Layout, keep int) {
	prunedPages(c, l, keep)
	pruneAll(c, l)
}

func pruneAll(c *attention.Cache, l *attention.Layout) {
	var seqs, positions []int32
	own := map[int]bool{}
	for i, pos := range l.Pos.I32() {
		own[int(l.Seq.I32()[i])*l.Dense.Cols+int(pos)/page] = true
	}
	for i, at := range l.Dense.I32() {
		if at >= 0 {
			seqs = append(seqs, int32(i/l.Dense.Cols))
			positions = append(positions, int32(i%l.Dense.Cols*page+page-1))
		}
	}
	all := *l
	all.Seq, all.Pos, all.Rows = tensor.FromI32(len(seqs), 1, seqs), tensor.FromI32(len(seqs), 1, positions), tensor.Mat{}
	(&attention.Prune{Cache: c, Layout: &all, Lane: 1}).Reference()
	for i := range l.Dense.I32() {
		if !own[i] {
			l.Dense.I32()[i] = -1
		}
	}
}

// Unpack makes keys to be scored of the pages of sequences, each served up to the end of its tiles. A row of the case is a sequence.
func Unpack(ends []int, h Heads, keep int) tensortest.Case {
	name := tensortest.Labels("unpack", keep, "of", h.KV, "x", h.Dim, "to", ends)
	return tensortest.Case{Name: name, Rows: len(ends), Make: func(w *tensortest.World) tensortest.Trial {
		p := newPast(w, Batch{make([]int, len(ends)), ends}, h)
		var tiles []Tile
		for _, s := range w.Picked {
			p.reads(s, ends[s]-1, Parts{}, 0, h.KV)
			from := max(0, (ends[s]-1)/page-s%2) * page
			tiles = append(tiles, TilesOf(s, from, ends[s], 1-s%4/3, Own)...)
		}
		o := &attention.Unpack{Lane: 1, Serves: 1}
		everyone := tensortest.World{Rand: w.Rand, Total: p.batch.total(), Picked: make([]int, len(w.Picked))}
		o.From, o.Layout = p.place(&everyone)
		o.Layout = tiled(&tensortest.World{Picked: counted(len(tiles))}, tiles, nil, o.Layout.Pages[1])
		prunePast(o.From, o.Layout, keep)
		pages := int(slices.Max(append(slices.Clone(o.Layout.Pages[1].I32()), 0))) + 1
		o.To = &attention.Cache{K: sidecar(quant.F16, pages*h.KV*h.Dim, page), Format: quant.F16, Heads: h.KV, Dim: h.Dim, Stride: h.KV * h.Dim * page}
		return tensortest.Trial{Op: o}
	}}
}

// besidePruned are cases of the ops that look at keys beside Attend, where full pages are pruned.
func besidePruned() (cases []tensortest.Case) {
	h := Heads{4, 2, 64, quant.F16}
	for _, n := range edges {
		cases = append(cases, Pruned(Probe(one(n-1, 1), h, Mixed(2)), 20), Pruned(Probe(one(n, 5), h, Full), 32), Unpack([]int{n, n + 1, 3, n}, h, 20))
		for _, unit := range []int{16, 64} {
			cases = append(cases, Pruned(KeyBounds(one(n/2, n), h, unit), 20))
		}
	}
	tiles := append(TilesOf(0, 0, 150, 1, Own), append(TilesOf(1, 64, 200, 0, Own), decoding(63, 127, 128, 191, 192)...)...)
	for _, dim := range []int{16, 48, 128} {
		h := Heads{6, 2, dim, quant.F16}
		cases = append(cases, Unpack([]int{64, 700, 130, 90, 1, 127}, h, 4), Unpack([]int{300}, h, dim), Pruned(GateKeys(tiles, h, Gate{2, 32, quant.F32}), dim/2),
			Pruned(GateKeys(tiles, h, Gate{6, 30, quant.BF16}), 4), Pruned(Probe(one(700, 70), h, Mixed(1)), dim/2),
			Pruned(Probe(Batch{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 20}}, h, Window(65)), 8),
			Pruned(KeyBounds(Batch{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 130}}, h, 32), dim/2))
	}
	return cases
}
