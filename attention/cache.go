package attention

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Cache is one layer's keys and values in pages of PageTokens tokens. Page numbers mean the same in every layer, so one page
// table serves the whole model.
//
// Layout: of each page K holds, head after head, a tile of dim rows by 64 columns: keys are transposed, so that the scores of 64 keys
// come out of one pass over the tile. V holds a tile of 64 rows by dim columns. Both are F32 or F16. From a page to the next are Stride
// values, in which the other layers have the same page: a buffer is pages x layers x (keys, values).
type Cache struct {
	K      tensor.Mat // at least (pages-1)*stride + heads*dim*64 values, as rows x 64
	V      tensor.Mat // likewise, rows x 64
	Heads  int        // key-value heads
	Dim    int        // values a head
	Stride int        // values of a page in all layers, keys and values
}

// Tile is where the tile of a page and head starts, in values: the same in K and in V.
func (c *Cache) Tile(page int32, head int) int { return int(page)*c.Stride + head*c.Dim*PageTokens }

// Shape says how large a layer's cache is.
type Shape struct {
	Heads, Dim int
	Format     *quant.Format // of keys and values: F32 or F16
}

// PageBytes is what one page takes in one layer, keys and values.
func (s Shape) PageBytes() int { return 2 * s.values() * s.Format.Bytes }

// values are the keys of one page, or its values.
func (s Shape) values() int { return s.Heads * s.Dim * PageTokens }

// NewCaches allocates the caches of a model's layers, all of one format, in one buffer, which is freed once. What the layers hold of a
// page lies together, so memory that the system gives in pieces of megabytes is taken for pages in use, not for a piece of every layer.
func NewCaches(d tensor.Device, pages int, layers []Shape) (caches []*Cache, err error) {
	f, stride := layers[0].Format, 0
	for _, s := range layers {
		if s.Format != f {
			panic(fmt.Sprintf("winnow: bug: attention: caches of %s and %s in one buffer", f, s.Format))
		}
		stride += 2 * s.values()
	}
	buf, err := d.Alloc(pages * stride * f.Bytes)
	if err != nil {
		return nil, fmt.Errorf("a cache of %d pages: %w", pages, err)
	}
	at := 0
	for _, s := range layers {
		view := tensor.Mat{Rows: ((pages-1)*stride + s.values()) / PageTokens, Cols: PageTokens, Format: f, Buf: buf, Off: at * f.Bytes}
		c := &Cache{K: view, V: view, Heads: s.Heads, Dim: s.Dim, Stride: stride}
		c.V.Off += s.values() * f.Bytes
		at += 2 * s.values()
		caches = append(caches, c)
	}
	return caches, nil
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
		page, slot := pages.I32()[int(seq[i])*pages.Cols+int(pos[i])/PageTokens], int(pos[i])%PageTokens
		for h := range c.Heads {
			tile := c.Tile(page, h)
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
