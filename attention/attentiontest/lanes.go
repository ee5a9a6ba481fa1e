package attentiontest

import (
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// AttendLanes is Attend where every other page is none any more: its tiles lie among those of others, in two layers, and heads that read
// nothing of it have none.
func AttendLanes(b Batch, h Heads, c Choice) tensortest.Case {
	return attends("attend lanes", b, h, c, (*past).scatter)
}

// scatter puts what is read into pages and, of every other page, into tiles from the end of a cache of two layers backwards.
func (p *past) scatter(w *tensortest.World) (*attention.Cache, *attention.Layout) {
	tables, pages := p.tables(w)
	h, kept := p.heads, pages
	pages += (pages + 1) / 2
	both, err := attention.NewCaches(tensor.Reference(), pages, slices.Repeat([]attention.Shape{{Heads: h.KV, Dim: h.Dim, Format: h.Format}}, 2))
	if err != nil {
		panic(err)
	}
	all := both[0].All.Raw()
	for i := range all {
		all[i] = 0xff
	}
	l := p.layout(w, tables)
	var lanes []int32
	free := 2*pages*h.KV - 1 // tiles of keys from here on are taken
	for i, entry := range tables.I32() {
		var rows []int32
		for head := range h.KV {
			keys := p.in(i/tables.Cols, i%tables.Cols, head)
			if entry < 0 || len(keys) == 0 {
				rows = append(rows, -1, -1)
				continue
			}
			to, layer := spot{entry, head, 0}, 1
			if i%2 == 1 {
				to.page, layer, to.head = int32(free/h.KV/2), free/h.KV%2, free%h.KV
				free--
			}
			rows = append(rows, -1, both[layer].TileOf(to.page, to.head))
			for _, key := range keys {
				at := (key*h.KV + head) * h.Dim
				to.slot = key % attention.PageTokens
				put(both[layer], to, p.k[i/tables.Cols][at:][:h.Dim], p.v[i/tables.Cols][at:][:h.Dim])
			}
		}
		if entry >= 0 && i%2 == 1 {
			tables.I32()[i] = attention.LanesEntry(int32(len(lanes) / (2 * h.KV)))
			for layer := range 2 {
				for head := range h.KV {
					lanes = append(lanes, rows[2*head+layer])
				}
			}
		}
	}
	if free/h.KV/2 < kept-1 {
		panic("winnow: bug: attentiontest: no room for tiles")
	}
	if len(lanes) > 0 {
		l.Lanes = tensor.FromI32(len(lanes)/(2*h.KV), 2*h.KV, lanes)
	}
	return both[1], l
}

// PrunedLanes is a case of Attend where full pages are pruned, and every other one is none any more: its tiles lie in the other layer of pages that nobody has, in another order.
func PrunedLanes(of tensortest.Case, keep int) tensortest.Case {
	dense := of.Make
	of.Name = tensortest.Labels("pruned lanes", keep, of.Name)
	of.Make = func(w *tensortest.World) tensortest.Trial {
		trial := dense(w)
		o := trial.Op.(*attention.Attend)
		c, l := o.Cache, o.Layout
		addPruned(c, l, attention.Shape{Heads: c.Heads, Dim: c.Dim, Format: c.Format, Keep: keep}, keep)
		pruneAll(c, l)
		table, size, all := l.Pages[1].I32(), c.Tiles().RowBytes(), c.Tiles().Raw()
		free, lanes := slices.Max(append(slices.Clone(table), 0))+1, []int32(nil)
		for i, entry := range table {
			if entry < 0 || i%2 == 0 || l.Dense.I32()[i] >= 0 {
				continue
			}
			row := slices.Repeat([]int32{-1}, 2*c.Heads)
			for h := range c.Heads {
				from, to := c.TileOf(entry, h), c.TileOf(free, c.Heads-1-h)-int32(2*c.Heads)
				for _, part := range []int32{0, int32(c.Heads)} {
					was := all[int(from+part)*size:][:size]
					copy(all[int(to+part)*size:], was)
					copy(was, slices.Repeat([]byte{0xff}, size))
				}
				row[c.Heads+h] = to
			}
			table[i] = attention.LanesEntry(int32(len(lanes) / (2 * c.Heads)))
			lanes, free = append(lanes, row...), free+1
		}
		if len(lanes) > 0 {
			l.Lanes = tensor.FromI32(len(lanes)/(2*c.Heads), 2*c.Heads, lanes)
		}
		return trial
	}
	return of
}

// in lists the keys of a page that some row reads in a head.
func (p *past) in(seq, page, head int) (keys []int) {
	for key := page * attention.PageTokens; key < (page+1)*attention.PageTokens && key*p.heads.KV < len(p.read[seq]); key++ {
		if p.read[seq][key*p.heads.KV+head] {
			keys = append(keys, key)
		}
	}
	return keys
}

// MoveTiles moves some of the tiles of a cache; a row of the case is a move.
func MoveTiles(moves, words int) tensortest.Case {
	return tensortest.Case{Name: tensortest.Labels("move tiles", moves, "of", words), Rows: moves, Make: func(w *tensortest.World) tensortest.Trial {
		all := w.Perm(3*moves + 1)
		pairs, tiles := make([]int32, 2*moves), make([]int32, (3*moves+1)*words)
		for i := range pairs {
			pairs[i] = int32(all[i])
		}
		for i := range tiles {
			tiles[i] = int32(w.Uint32())
		}
		o := &attention.MoveTiles{
			Tiles: tensor.FromI32(3*moves+1, words, tiles), Moves: w.Pick(tensor.FromI32(moves, 2, pairs)), N: w.Count(),
		}
		return tensortest.Trial{Op: o}
	}}
}

// lanes are pages that are spread over others.
func lanes() []tensortest.Case {
	cases := []tensortest.Case{MoveTiles(1, 1), MoveTiles(2, 3), MoveTiles(9, 64), MoveTiles(70, 544)}
	for _, c := range []Choice{Full, FullByBlocks, Mixed(2), Neighbours(1, 2, 2)} {
		cases = append(cases, PrunedLanes(Attend(one(700, 5), Heads{4, 2, 64, quant.F16}, c), 20), PrunedLanes(Attend(one(3000, 1), Heads{6, 2, 128, quant.F16}, c), 64))
	}
	cases = append(cases, PrunedLanes(Attend(Batch{[]int{0, 5, 64, 227, 300}, []int{3, 1, 66, 1, 2}}, Heads{8, 4, 128, quant.F16}, Mixed(4)), 40))
	for _, f := range formats(32) {
		for _, n := range []int{1, 64, 65, 129, 193} {
			cases = append(cases, AttendLanes(one(n-1, 1), Heads{4, 2, 32, f}, Mixed(2)), AttendLanes(one(n, 3), Heads{2, 2, 64, f}, Full))
		}
		for _, c := range []Choice{Full, FullByBlocks, FullBySink, Stream, Mixed(1), Mixed(2), Neighbours(1, 2, 2)} {
			cases = append(cases, AttendLanes(one(700, 5), Heads{4, 2, 64, f}, c))
		}
		cases = append(cases, AttendLanes(Batch{[]int{0, 5, 64, 127, 300}, []int{3, 1, 66, 1, 2}}, Heads{8, 4, 128, f}, Mixed(4)),
			AttendLanes(one(3000, 2), Heads{4, 2, 64, f}, Mixed(2)), AttendLanes(one(130, 70), Heads{4, 2, 32, f}, Mixed(1)))
	}
	return cases
}
