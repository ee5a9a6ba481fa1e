package attention

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Cache is one layer's keys and values in pages of PageTokens tokens. Page numbers mean the same in every layer, so one page
// table serves the whole model.
//
// Layout: K holds, page after page and head after head, a tile of dim rows by 64 columns: keys are transposed, so that the scores of
// 64 keys come out of one pass over the tile. V holds a tile of 64 rows by dim columns. Both are F32 or F16.
type Cache struct {
	K     tensor.Mat // pages*heads*dim x 64
	V     tensor.Mat // pages*heads*64 x dim
	Heads int        // key-value heads
	Dim   int        // values a head
}

// Shape says how large a cache is.
type Shape struct {
	Pages, Heads, Dim int
	Format            *quant.Format // of keys and values: F32 or F16
}

// PageBytes is what one page takes in one layer, keys and values.
func (s Shape) PageBytes() int { return 2 * s.Heads * s.Dim * PageTokens * s.Format.Bytes }

// NewCache allocates a layer's cache on a device.
func NewCache(d tensor.Device, s Shape) (*Cache, error) {
	k, err := tensor.NewMat(d, s.Format, s.Pages*s.Heads*s.Dim, PageTokens)
	if err != nil {
		return nil, fmt.Errorf("keys of %d pages: %w", s.Pages, err)
	}
	v, err := tensor.NewMat(d, s.Format, s.Pages*s.Heads*PageTokens, s.Dim)
	if err != nil {
		d.Free(k.Buf)
		return nil, fmt.Errorf("values of %d pages: %w", s.Pages, err)
	}
	return &Cache{K: k, V: v, Heads: s.Heads, Dim: s.Dim}, nil
}

// Free gives the cache's memory back to its device.
func (c *Cache) Free(d tensor.Device) {
	d.Free(c.K.Buf)
	d.Free(c.V.Buf)
}

// reader gives the numbers of a cache matrix by index.
func reader(m tensor.Mat) func(i int) float32 {
	if m.Format == quant.F32 {
		v := m.F32()
		return func(i int) float32 { return v[i] }
	}
	raw := m.Raw()
	return func(i int) float32 { return quant.F16ToF32(uint16(raw[2*i]) | uint16(raw[2*i+1])<<8) }
}

// store writes one number of a cache matrix, rounded to its format.
func store(m tensor.Mat, i int, v float32) {
	if m.Format == quant.F32 {
		m.F32()[i] = v
		return
	}
	raw, bits := m.Raw()[2*i:], quant.F32ToF16(v)
	raw[0], raw[1] = byte(bits), byte(bits>>8)
}

// Append stores the rows' keys and values in their pages.
type Append struct {
	K, V   tensor.Mat // rows x heads*dim, F32
	Cache  *Cache     // written at the rows' positions
	Layout *Layout    // whose rows these are and where their pages lie
	Lane   int        // which page table
}

// Reference stores value by value.
func (o *Append) Reference() {
	k, v, c := o.K.F32(), o.V.F32(), o.Cache
	seq, pos, pages := o.Layout.Seq.I32(), o.Layout.Pos.I32(), o.Layout.Pages[o.Lane]
	for i := range tensor.Live(o.Layout.Rows, o.K.Rows) {
		page, slot := int(pages.I32()[int(seq[i])*pages.Cols+int(pos[i])/PageTokens]), int(pos[i])%PageTokens
		for h := range c.Heads {
			tile := (page*c.Heads + h) * c.Dim * PageTokens
			for d := range c.Dim {
				from := (i*c.Heads+h)*c.Dim + d
				store(c.K, tile+d*PageTokens+slot, k[from])
				store(c.V, tile+slot*c.Dim+d, v[from])
			}
		}
	}
}

// Operands lists keys, values and layout, then the cache.
func (o *Append) Operands() (in, out []*tensor.Mat) {
	out = []*tensor.Mat{&o.Cache.K, &o.Cache.V}
	return append(append([]*tensor.Mat{&o.K, &o.V}, o.Layout.operands(o.Lane)...), out...), out
}

// Cost counts the rows read and what is stored of them.
func (o *Append) Cost() (bytes, flops int64) {
	n := int64(tensor.Live(o.Layout.Rows, o.K.Rows)) * int64(o.K.Cols)
	return 2 * n * int64(4+o.Cache.K.Format.Bytes), 0
}
