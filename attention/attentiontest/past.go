package attentiontest

import (
	"math/rand/v2"
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// past is the keys and values of all sequences of a batch, and which of them are read.
type past struct {
	batch Batch
	heads Heads
	k, v  [][]float32 // sequence -> keys x heads*dim
	read  [][]bool    // sequence -> keys x heads
}

// newPast draws keys and values.
func newPast(w *tensortest.World, b Batch, h Heads) *past {
	p := &past{batch: b, heads: h}
	for s := range b.Past {
		keys := b.Past[s] + b.Rows[s]
		p.k = append(p.k, w.Floats(keys, h.KV*h.Dim).F32())
		p.v = append(p.v, w.Floats(keys, h.KV*h.Dim).F32())
		p.read = append(p.read, make([]bool, keys*h.KV))
	}
	return p
}

// reads notes what a plan row makes a row at a position read in heads lo to hi.
func (p *past) reads(seq, pos int, r Parts, lo, hi int) {
	mark := func(from, to int) {
		for k := from; k < to; k++ {
			for h := lo; h < hi; h++ {
				p.read[seq][k*p.heads.KV+h] = true
			}
		}
	}
	mark(0, r.Sink)
	for _, b := range r.Blocks {
		mark(int(b)*attention.PageTokens, int(b+1)*attention.PageTokens)
	}
	for _, k := range r.Keys {
		mark(int(k), int(k)+1)
	}
	mark(r.Local, pos+1)
}

// place puts what is read into pages, in an order that depends on the picked rows, and everything else is NaN. The batch lies in lane 1.
func (p *past) place(w *tensortest.World) (*attention.Cache, *attention.Layout) {
	tables, pages := p.tables(w)
	c, h := p.cache(pages), p.heads
	for s, read := range p.read {
		for at, ok := range read {
			if !ok {
				continue
			}
			key, head := at/h.KV, at%h.KV
			k, v := p.k[s][at*h.Dim:][:h.Dim], p.v[s][at*h.Dim:][:h.Dim]
			put(c, spot{tables.I32()[s*tables.Cols+key/attention.PageTokens], head, key % attention.PageTokens}, k, v)
		}
	}
	return c, p.layout(w, tables)
}

// cache is that of the second of two layers, of which every bit is set, NaN in all formats.
func (p *past) cache(pages int) *attention.Cache {
	h, first := p.heads, 3
	if packed(h.Format) {
		first = 64
	}
	layers := []attention.Shape{{Heads: 1, Dim: first, Format: h.Format}, {Heads: h.KV, Dim: h.Dim, Format: h.Format}}
	both, err := attention.NewCaches(tensor.Reference(), pages, layers)
	if err != nil {
		panic(err) // the reference has memory or the process has none
	}
	c := both[1]
	for _, m := range []tensor.Mat{c.K, c.V} {
		raw := m.Raw()
		for i := range raw {
			raw[i] = 0xff
		}
	}
	return c
}

// tables gives every page that is read a place, and -1 to the others.
func (p *past) tables(w *tensortest.World) (tables tensor.Mat, pages int) {
	wide := 1
	for s := range p.batch.Past {
		wide = max(wide, (p.batch.Past[s]+p.batch.Rows[s]+attention.PageTokens-1)/attention.PageTokens)
	}
	t := make([]int32, len(p.batch.Past)*wide)
	for i := range t {
		t[i] = -1
	}
	var used []int
	for s, read := range p.read {
		size := p.heads.KV * attention.PageTokens
		for i := range wide {
			if slices.Contains(read[min(i*size, len(read)):min((i+1)*size, len(read))], true) {
				used = append(used, s*wide+i)
			}
		}
	}
	order := rand.New(rand.NewPCG(uint64(len(w.Picked)), uint64(len(used)))).Perm(len(used) + 1)
	for n, i := range used {
		t[i] = int32(order[n])
	}
	return tensor.FromI32(len(p.batch.Past), wide, t), len(used) + 1
}

func (p *past) layout(w *tensortest.World, tables tensor.Mat) *attention.Layout {
	var seqs, positions []int32
	for row := range p.batch.total() {
		seq, pos := p.batch.at(row)
		seqs, positions = append(seqs, int32(seq)), append(positions, int32(pos))
	}
	return &attention.Layout{
		Pages: []tensor.Mat{{}, tables},
		Seq:   w.Pick(tensor.FromI32(len(seqs), 1, seqs)), Pos: w.Pick(tensor.FromI32(len(positions), 1, positions)), Rows: w.Count(),
	}
}

// spot is a token's place in a head.
type spot struct {
	page       int32
	head, slot int
}

// put stores a key and a value. Fractions stay exact: where numbers are packed, they have a scale that the cache would not choose.
func put(c *attention.Cache, s spot, key, value []float32) {
	c.Put(s.page, s.head, s.slot, key, value)
	least, most, row := float32(-128), float32(127), c.Dim
	if c.Format == quant.Q4_0 {
		least, most, row = -8, 7, c.Dim/2
	}
	if !packed(c.Format) || slices.ContainsFunc(key, func(v float32) bool { return v*4 != min(max(float32(int(v*4)), least), most) }) {
		return
	}
	tile := c.K.Raw()[c.Format.RowBytes(c.Tile(s.page, s.head)):]
	for d, v := range key {
		code := byte(int8(v * 4))
		at := attention.KeyAt(row, s.slot, d)
		if c.Format == quant.Q4_0 {
			at = attention.KeyAt(row, s.slot, d/32*16+d%16)
			code = tile[at]&(0xf0>>(d/16%2*4)) | (code+8)<<(d/16%2*4)
		}
		tile[at] = code
		scale := tile[row*attention.PageTokens+2*(d/32*attention.PageTokens+s.slot):]
		scale[0], scale[1] = 0, 0x34 // 1/4
	}
}

// packed says whether a cache has codes with scales.
func packed(f *quant.Format) bool { return f == quant.Q8_0 || f == quant.Q4_0 }

// formats are those of caches whose heads have so many values.
func formats(dim int) []*quant.Format {
	if dim%32 == 0 {
		return []*quant.Format{quant.F32, quant.F16, quant.Q8_0, quant.Q4_0}
	}
	return []*quant.Format{quant.F32, quant.F16}
}

// set writes one number of a matrix.
func set(m tensor.Mat, i int, v float32) {
	if m.Format == quant.F32 {
		m.F32()[i] = v
		return
	}
	bits := quant.F32ToF16(v)
	m.Raw()[2*i], m.Raw()[2*i+1] = byte(bits), byte(bits>>8)
}

// Append stores the new tokens of a batch.
func Append(b Batch, h Heads) tensortest.Case {
	name := tensortest.Labels("append", h.Format, h.KV, "x", h.Dim, "past", b.Past, "rows", b.Rows)
	return tensortest.Case{Name: name, Rows: b.total(), Make: func(w *tensortest.World) tensortest.Trial {
		p := newPast(w, b, h)
		for row := range b.total() {
			seq, pos := b.at(row)
			p.reads(seq, pos, Parts{Local: pos}, 0, h.KV)
		}
		o := &attention.Append{K: wild(w, w.Batch(1, h.KV*h.Dim)), V: w.Batch(1, h.KV*h.Dim), Lane: 1}
		tables, pages := p.tables(w)
		o.Cache, o.Layout = p.cache(pages), p.layout(w, tables)
		return tensortest.Trial{Op: o}
	}}
}

// wild makes some values such as rounding to F16 treats in its own ways: large, small, and half way between two.
func wild(w *tensortest.World, m tensor.Mat) tensor.Mat {
	v := m.F32()
	for i := range v {
		switch w.IntN(8) {
		case 0:
			v[i] *= 0x1p-16
		case 1:
			v[i] *= 0x1p14
		case 2:
			v[i] = 1 + float32(w.IntN(64))*0x1p-11
		case 3:
			v[i] = float32(w.IntN(9)) * 0x1p-25
		}
	}
	return m
}
