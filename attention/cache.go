package attention

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Cache is one layer's keys and values in pages of PageTokens tokens. Page numbers mean the same in every layer, so one page
// table serves the whole model.
//
// Layout: of each page K holds, head after head, a tile of four strips of 16 keys, each of dim rows by 16 columns: keys are transposed, so that
// the scores of 16 keys come out of one pass over a strip, and a strip lies together, so that few of a page's keys can be read without the
// others. V holds a tile of 64 rows by dim columns. From a page to the next are Stride values, in which the other layers have the same page: a
// buffer is pages x layers x (keys, values). How a tile stores its numbers is in stored.go and packed.go.
type Cache struct {
	K      tensor.Mat    // at least (pages-1)*stride + heads*dim*64 values, as rows x 64; where packed rows x 17 words of I32 in Q8_0, x 9 in Q4_0
	V      tensor.Mat    // likewise, rows x 64
	Format *quant.Format // of keys and values: F32, F16, Q8_0 or Q4_0
	Heads  int           // key-value heads
	Dim    int           // values a head
	Stride int           // values of a page in all layers, keys and values
	Pruned *Pruned       // pages that are full and no row's own; nil where these are as the others
	Base   int           // of them, those of the layers before
	All    tensor.Mat    // tiles x words of one, I32: the tiles of all layers, where these are alike; else absent
}

// Tile is where the tile of a page and head starts, in values: the same in K and in V.
func (c *Cache) Tile(page int32, head int) int { return int(page)*c.Stride + head*c.Dim*PageTokens }

// Shape says how large a layer's cache is.
type Shape struct {
	Heads, Dim int
	Format     *quant.Format // of keys and values: F32, F16, or Q8_0 or Q4_0 where dim is a multiple of 32
	Keep       int           // numbers of a token that pruned pages keep; 0 = there are none
}

// PageBytes is what one page takes in one layer, keys and values.
func (s Shape) PageBytes() int { return 2 * s.Format.RowBytes(s.values()) }

// PrunedBytes is what one pruned page takes in one layer, keys and values; 0 where there are none.
func (s Shape) PrunedBytes() int {
	if s.Keep == 0 {
		return 0
	}
	return 2 * s.Heads * prunedTile(s.Dim, s.Keep)
}

// values are the keys of one page, or its values.
func (s Shape) values() int { return s.Heads * s.Dim * PageTokens }

// NewCaches allocates the caches of a model's layers, all of one format that can store them, in one buffer, which is freed once. What the layers hold of a
// page lies together, so memory that the system gives in pieces of megabytes is taken for pages in use, not for a piece of every layer.
func NewCaches(d tensor.Device, pages int, layers []Shape) (caches []*Cache, err error) {
	f, stride := layers[0].Format, 0
	for _, s := range layers {
		if s.Format != f {
			panic(fmt.Sprintf("winnow: bug: attention: caches of %s and %s in one buffer", f, s.Format))
		}
		if err := s.Check(); err != nil {
			panic("winnow: bug: attention: a cache for " + err.Error())
		}
		stride += 2 * s.values()
	}
	buf, err := d.Alloc(pages * f.RowBytes(stride))
	if err != nil {
		return nil, fmt.Errorf("a cache of %d pages: %w", pages, err)
	}
	at, all := 0, tilesOf(buf, pages, layers, f.RowBytes(layers[0].Dim*PageTokens))
	for _, s := range layers {
		n := (pages-1)*stride + s.values()
		k, v := view(f, buf, f.RowBytes(at), n), view(f, buf, f.RowBytes(at+s.values()), n)
		c := &Cache{K: k, V: v, Format: f, Heads: s.Heads, Dim: s.Dim, Stride: stride, Base: at, All: all}
		at += 2 * s.values()
		caches = append(caches, c)
	}
	return caches, nil
}

// Append stores the rows' keys and values in their pages.
type Append struct {
	K, V   tensor.Mat // rows x heads*dim, F32
	Cache  *Cache     // written at the rows' positions
	Layout *Layout    // whose rows these are and where their pages lie
	Lane   int        // which page table
}

// Reference stores token by token.
func (o *Append) Reference() {
	k, v, c := o.K.F32(), o.V.F32(), o.Cache
	seq, pos, pages := o.Layout.Seq.I32(), o.Layout.Pos.I32(), o.Layout.Own(c, o.Lane)
	for i := range tensor.Live(o.Layout.Rows, o.K.Rows) {
		page, slot := pages.I32()[int(seq[i])*pages.Cols+int(pos[i])/PageTokens], int(pos[i])%PageTokens
		for h := range c.Heads {
			from := (i*c.Heads + h) * c.Dim
			c.Put(page, h, slot, k[from:from+c.Dim], v[from:from+c.Dim])
		}
	}
}

// Operands lists keys, values and layout, then the cache.
func (o *Append) Operands() (in, out []*tensor.Mat) {
	out = []*tensor.Mat{&o.Cache.K, &o.Cache.V}
	return append(append([]*tensor.Mat{&o.K, &o.V, o.Layout.Own(o.Cache, o.Lane)}, o.Layout.operands(o.Lane)[1:]...), out...), out
}

// Cost counts the rows read and what is stored of them.
func (o *Append) Cost() (bytes, flops int64) {
	n := int64(tensor.Live(o.Layout.Rows, o.K.Rows))
	return 2*n*int64(o.K.RowBytes()) + 2*o.Cache.stored(n*int64(o.Cache.Heads)), 0
}
