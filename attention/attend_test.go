package attention

import (
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// What attention reads is counted key by key: four query heads on two key-value heads of 8 floats, so a key and its value are 2*32 bytes in each.
func TestAttendCost(t *testing.T) {
	const heads, kv, dim, each = 4, 2, 8, 2 * 2 * 32
	caches, err := NewCaches(tensor.Reference(), 9, []Shape{{Heads: kv, Dim: dim, Format: quant.F32}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name        string
		seq, pos    []int32
		tables      [][]int32 // of three pages
		sink, local []int32
		blocks      []int32 // of the first row
		keys        []int32 // likewise
		distinct    int64   // keys that some row reads
		read        int64   // keys read, row by row
	}{
		{name: "a token", seq: []int32{0}, pos: []int32{70}, tables: [][]int32{{3, 1, 0}}, sink: []int32{0}, local: []int32{0}, distinct: 71, read: 71},
		{name: "a chunk reads its past once", seq: []int32{0, 0, 0}, pos: []int32{69, 70, 71}, tables: [][]int32{{3, 1, 0}},
			sink: []int32{0, 0, 0}, local: []int32{0, 0, 0}, distinct: 72, read: 70 + 71 + 72},
		{name: "a prefix that two share", seq: []int32{0, 1}, pos: []int32{70, 66}, tables: [][]int32{{3, 1, 0}, {3, 2, 0}},
			sink: []int32{0, 0}, local: []int32{0, 0}, distinct: 64 + 7 + 3, read: 71 + 67},
		{name: "windows that overlap", seq: []int32{0, 0}, pos: []int32{100, 101}, tables: [][]int32{{3, 1, 0}},
			sink: []int32{0, 0}, local: []int32{61, 62}, distinct: 41, read: 40 + 40},
		{name: "every part of a plan", seq: []int32{0}, pos: []int32{190}, tables: [][]int32{{3, 1, 0}},
			sink: []int32{64}, local: []int32{189}, keys: []int32{130, 140, 150}, distinct: 64 + 3 + 2, read: 69},
		{name: "a block", seq: []int32{0}, pos: []int32{190}, tables: [][]int32{{3, 1, 0}},
			sink: []int32{0}, local: []int32{190}, blocks: []int32{1}, distinct: 65, read: 65},
	} {
		rows := len(c.seq)
		var table []int32
		for _, pages := range c.tables {
			table = append(table, pages...)
		}
		column := func(v []int32) tensor.Mat { return tensor.FromI32(len(v), 1, v) }
		plan := &Plan{Groups: 1, Sink: column(c.sink), Local: column(c.local)}
		if n := len(c.blocks) + len(c.keys); n > 0 {
			plan.BlockAt, plan.BlockN, plan.Blocks = column([]int32{0}), column([]int32{int32(len(c.blocks))}), column(c.blocks)
			plan.KeyAt, plan.KeyN, plan.Keys = column([]int32{0}), column([]int32{int32(len(c.keys))}), column(c.keys)
		}
		o := &Attend{
			Q: tensor.FromF32(rows, heads*dim, make([]float32, rows*heads*dim)), Y: tensor.FromF32(rows, heads*dim, make([]float32, rows*heads*dim)),
			Cache: caches[0], Plan: plan, Heads: heads, Scale: 1,
			Layout: &Layout{Seq: column(c.seq), Pos: column(c.pos), Pages: []tensor.Mat{tensor.FromI32(len(c.tables), 3, table)}},
		}
		bytes, flops := o.Cost()
		if want := c.distinct*each + int64(rows)*2*heads*dim*4; bytes != want {
			t.Errorf("%s: %d bytes, want %d", c.name, bytes, want)
		}
		if want := 4 * c.read * heads * dim; flops != want {
			t.Errorf("%s: %d operations, want %d", c.name, flops, want)
		}
	}
}

// Where heads read different keys of one tile, each key-value head is counted for those of its own query heads.
func TestAttendCostByHead(t *testing.T) {
	caches, err := NewCaches(tensor.Reference(), 2, []Shape{{Heads: 2, Dim: 8, Format: quant.F32}})
	if err != nil {
		t.Fatal(err)
	}
	column := func(v ...int32) tensor.Mat { return tensor.FromI32(len(v), 1, v) }
	o := &Attend{
		Q: tensor.FromF32(1, 32, make([]float32, 32)), Y: tensor.FromF32(1, 32, make([]float32, 32)), Cache: caches[0], Heads: 4, Scale: 1,
		Plan:   &Plan{Groups: 4, Sink: column(0, 0, 0, 0), Local: column(10, 12, 19, 15)},
		Layout: &Layout{Seq: column(0), Pos: column(19), Pages: []tensor.Mat{tensor.FromI32(1, 1, []int32{1})}},
	}
	bytes, flops := o.Cost()
	if want := int64(10+5)*2*32 + 2*32*4; bytes != want { // heads 0 and 1 share ten keys, 2 and 3 five
		t.Errorf("%d bytes, want %d", bytes, want)
	}
	if want := int64(4 * (10 + 8 + 1 + 5) * 8); flops != want {
		t.Errorf("%d operations, want %d", flops, want)
	}
}
