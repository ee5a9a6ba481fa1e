// Package attentiontest holds the cases of the ops that read and keep the past: one list for conformance, as fuzz seeds and for
// benchmarks.
package attentiontest

import (
	"math"
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// Batch is a step over sequences: sequence s has Past[s] tokens cached and Rows[s] new ones.
type Batch struct{ Past, Rows []int }

// Heads is the shape of attention: query heads, key-value heads, values a head and how the cache stores them.
type Heads struct {
	Query, KV, Dim int
	Format         *quant.Format
}

// Choice draws which keys are read: the plan for rows at positions first to last of one sequence, which share a plan row, and one group
// of heads.
type Choice struct {
	Name   string
	Tile   int // rows that share a plan row; above 1 for batches of one sequence
	Groups int // groups of heads with plan rows of their own
	Draw   func(w *tensortest.World, first int) Parts
}

// Parts is a plan row.
type Parts struct {
	Sink, Local  int
	Blocks, Keys []int32
}

// total is the number of rows of the batch.
func (b Batch) total() int {
	n := 0
	for _, r := range b.Rows {
		n += r
	}
	return n
}

// at is the sequence and the position of a row.
func (b Batch) at(row int) (seq, pos int) {
	for seq = range b.Rows {
		if row < b.Rows[seq] {
			break
		}
		row -= b.Rows[seq]
	}
	return seq, b.Past[seq] + row
}

// Attend reads what a choice says with every row of a batch. All the rest of the cache is NaN, and the page table leads nowhere for
// pages that no row reads.
func Attend(b Batch, h Heads, c Choice) tensortest.Case {
	return attends("attend", b, h, c, (*past).place)
}

// attends is a case of Attend whose cache and layout come of what it reads.
func attends(what string, b Batch, h Heads, c Choice, lay func(*past, *tensortest.World) (*attention.Cache, *attention.Layout)) tensortest.Case {
	name := tensortest.Labels(what, c.Name, h.Format, h.Query, "on", h.KV, "x", h.Dim, "past", b.Past, "rows", b.Rows)
	return tensortest.Case{Name: name, Rows: b.total(), Make: func(w *tensortest.World) tensortest.Trial {
		past := newPast(w, b, h)
		plan, parts := choose(w, b, c)
		o := &attention.Attend{
			Q: w.Batch(1, h.Query*h.Dim), Y: w.Output(quant.F32, 1, h.Query*h.Dim), Plan: plan,
			Lane: 1, Heads: h.Query, Scale: float32(1 / math.Sqrt(float64(h.Dim))),
		}
		for i, row := range w.Picked {
			seq, pos := b.at(row)
			for g := range c.Groups {
				past.reads(seq, pos, parts[i*c.Groups+g], h.KV*g/c.Groups, (h.KV*(g+1)+c.Groups-1)/c.Groups)
			}
		}
		o.Cache, o.Layout = lay(past, w)
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.Y}}
	}}
}

// choose draws the plan of the whole batch and makes one for the picked rows. Parts are those of each picked row and group. Unless the
// whole batch is picked, no rows share a plan row.
func choose(w *tensortest.World, b Batch, c Choice) (*attention.Plan, []Parts) {
	var all []Parts
	for row := 0; row < b.total(); row += c.Tile {
		_, pos := b.at(row)
		for range c.Groups {
			all = append(all, c.Draw(w, pos))
		}
	}
	var parts, rows []Parts
	var tiles []int32
	whole := len(w.Picked) == b.total() && slices.IsSorted(w.Picked)
	for i, row := range w.Picked {
		own := all[row/c.Tile*c.Groups:][:c.Groups]
		parts = append(parts, own...)
		if !whole || i%c.Tile == 0 {
			rows = append(rows, own...)
		}
		tiles = append(tiles, int32(len(rows)/c.Groups-1))
	}
	p := plan(rows, c.Groups)
	if c.Tile > 1 {
		p.Tile = column(tiles)
	}
	return p, parts
}

// plan lays parts out as an op reads them, with some room to spare: the lists of the last row first. Groups of a tile and tiles of a group
// share lists with the next one if that says the same.
func plan(rows []Parts, groups int) *attention.Plan {
	n := len(rows)
	sink, local := make([]int32, n), make([]int32, n)
	blockAt, blockN, keyAt, keyN := make([]int32, n), make([]int32, n), make([]int32, n), make([]int32, n)
	var blocks, keys []int32
	for i := n - 1; i >= 0; i-- {
		r := rows[i]
		sink[i], local[i], blockN[i], keyN[i] = int32(r.Sink), int32(r.Local), int32(len(r.Blocks)), int32(len(r.Keys))
		blockAt[i], keyAt[i] = int32(len(blocks)), int32(len(keys))
		if with := sharer(rows, i, groups); with < n {
			blockAt[i], keyAt[i] = blockAt[with], keyAt[with]
			continue
		}
		blocks, keys = append(blocks, r.Blocks...), append(keys, r.Keys...)
	}
	p := &attention.Plan{Sink: column(sink), Local: column(local), Groups: groups}
	if len(blocks) > 0 {
		p.BlockAt, p.BlockN, p.Blocks = column(blockAt), column(blockN), column(blocks)
	}
	if len(keys) > 0 {
		p.KeyAt, p.KeyN, p.Keys = column(keyAt), column(keyN), column(keys)
	}
	return p
}

// sharer is the next plan row or that of the next tile, if it lists what row i does; past the end if neither does.
func sharer(rows []Parts, i, groups int) int {
	for _, with := range []int{i + 1, i + groups} {
		if with < len(rows) && slices.Equal(rows[i].Blocks, rows[with].Blocks) && slices.Equal(rows[i].Keys, rows[with].Keys) {
			return with
		}
	}
	return len(rows)
}

// column is a matrix of one column with spare rows of -1.
func column(v []int32) tensor.Mat {
	for range tensortest.Spare {
		v = append(v, -1)
	}
	return tensor.FromI32(len(v), 1, v)
}
