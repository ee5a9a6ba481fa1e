package attention

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Pruned is a layer's pruned pages (Mustafar, Joo et al. 2025, arXiv 2505.22913): of each token's key and value in a head, those Keep numbers that
// have the largest magnitudes are kept, of equals those of lower dimensions, and the others read as 0. A row reads its own page as it is and all
// pages before it pruned, whoever computes it and in whatever steps, so a page that was found in a cache is continued from as if it had been
// computed. That differs from the paper, where a prompt reads nothing pruned, and where the last 32 tokens at least are not.
//
// Layout: a tile is 64*Keep numbers, binary16, and then a bit for each number that there would be in a tile of the cache, 1 where it is kept. The
// numbers are those that are kept, in the order of the bits. Bits are words of 64, the lowest first: those of keys are a word for each dimension,
// with the page's tokens in order; those of values follow each other token after token, each with its
// dimensions in order. From a page to the next are Stride bytes, in which the other layers have the same page; a head's tile follows the one
// before. A tile takes 64*(2*Keep + dim/8) bytes.
type Pruned struct {
	K      tensor.Mat // (pages-1)*stride + heads*tile bytes at least, seen as I32, rows x 16
	V      tensor.Mat // likewise
	Keep   int        // numbers of a token that are kept
	Stride int        // bytes of a page in all layers, keys and values
	Base   int        // of them, those of the layers before
	All    tensor.Mat // tiles x words of one, I32: the tiles of all layers, where these are alike; else absent
}

// prunedTile is how many bytes a head has of a pruned page, of its keys or of its values.
func prunedTile(dim, keep int) int { return PageTokens * (2*keep + dim/8) }

// tile is where the tile of a page and head starts, in bytes: the same in K and in V.
func (p *Pruned) tile(c *Cache, page int32, head int) int {
	return int(page)*p.Stride + head*prunedTile(c.Dim, p.Keep)
}

// AddPruned allocates the pruned pages of caches whose layers have them, in one buffer, which is freed once. Pages of the layout are theirs from
// then on, and the caches' own pages are those of Layout.Dense.
func AddPruned(d tensor.Device, pages int, layers []Shape, caches []*Cache) (tensor.Buffer, error) {
	stride := 0
	for _, s := range layers {
		stride += s.PrunedBytes()
	}
	buf, err := d.Alloc(pages * stride)
	if err != nil {
		return nil, fmt.Errorf("a cache of %d pruned pages: %w", pages, err)
	}
	at, all := 0, tilesOf(buf, pages, layers, prunedTile(layers[0].Dim, layers[0].Keep))
	for i, s := range layers {
		size := s.PrunedBytes() / 2
		view := func(off int) tensor.Mat {
			return tensor.Mat{Rows: ((pages-1)*stride + size) / 64, Cols: 16, Format: quant.I32, Buf: buf, Off: off}
		}
		caches[i].Pruned = &Pruned{K: view(at), V: view(at + size), Keep: s.Keep, Stride: stride, Base: at, All: all}
		at += 2 * size
	}
	return buf, nil
}

// Prune packs the pages that the step's rows fill: those of which it has the last token.
type Prune struct {
	Cache  *Cache  // with pruned pages, which are written; those of the rows are read
	Layout *Layout // whose rows these are and where their pages lie, pruned and dense
	Lane   int     // which page table
}

// Reference packs head by head.
func (o *Prune) Reference() {
	c, l := o.Cache, o.Layout
	seq, pos, pages := l.Seq.I32(), l.Pos.I32(), l.Pages[o.Lane]
	key, value := c.key(), c.value()
	for i := range tensor.Live(l.Rows, l.Pos.Rows) {
		if pos[i]%PageTokens != PageTokens-1 {
			continue
		}
		at := int(pos[i]) / PageTokens
		page, dense := pages.I32()[int(seq[i])*pages.Cols+at], l.Dense.I32()[int(seq[i])*l.Dense.Cols+at]
		for h := range c.Heads {
			to, from := c.Pruned.tile(c, page, h), c.Tile(dense, h)
			packPruned(c.Pruned.K.Raw()[to:], prunedShape{c.Dim, PageTokens, c.Pruned.Keep}, prunedNumbers{
				func(d, slot int) float32 { return key(from, slot, d) }, func(_, slot int) int { return slot },
			})
			packPruned(c.Pruned.V.Raw()[to:], prunedShape{PageTokens, c.Dim, c.Pruned.Keep}, prunedNumbers{
				func(slot, d int) float32 { return value(from, slot, d) }, func(slot, _ int) int { return slot },
			})
		}
	}
}

// prunedShape is a tile of rows by columns, of which each token keeps some numbers.
type prunedShape struct{ rows, cols, keep int }

// prunedNumbers says what is in a row and column of a tile, and of which token.
type prunedNumbers struct {
	number func(row, col int) float32
	token  func(row, col int) int
}

// packPruned writes a tile.
func packPruned(tile []byte, s prunedShape, from prunedNumbers) {
	type spot struct {
		at  int    // row*cols + col
		bit uint16 // as binary16
	}
	of := make([][]spot, PageTokens)
	for r := range s.rows {
		for c := range s.cols {
			t := from.token(r, c)
			of[t] = append(of[t], spot{r*s.cols + c, quant.F32ToF16(from.number(r, c))})
		}
	}
	var kept []spot
	for _, spots := range of {
		slices.SortStableFunc(spots, func(a, b spot) int { return cmp.Compare(b.bit&0x7fff, a.bit&0x7fff) })
		kept = append(kept, spots[:s.keep]...)
	}
	slices.SortFunc(kept, func(a, b spot) int { return cmp.Compare(a.at, b.at) })
	mask := tile[2*s.keep*PageTokens:][:s.rows*s.cols/8]
	clear(mask)
	for i, k := range kept {
		binary.LittleEndian.PutUint16(tile[2*i:], k.bit)
		mask[k.at/8] |= 1 << (k.at % 8)
	}
}

// unpacked is a pruned tile as numbers, 0 where they are not kept.
type unpacked struct {
	k []float32 // dim x 64
	v []float32 // 64 x dim
}

// unpack reads the tile of a page and head, or of a tile number where that is what an entry of a page table stands for.
func (p *Pruned) unpack(c *Cache, l *Layout, entry int32, head int) *unpacked {
	n := PageTokens * c.Dim
	if l.Lanes.Present() && entry < 0 {
		keys := p.All.Raw()[l.lanesTile(c, entry, head)*p.All.RowBytes():]
		return &unpacked{p.numbers(keys, n), p.numbers(keys[c.Heads*p.All.RowBytes():], n)}
	}
	at := p.tile(c, entry, head)
	return &unpacked{p.numbers(p.K.Raw()[at:], n), p.numbers(p.V.Raw()[at:], n)}
}

// numbers are the n numbers of a pruned tile.
func (p *Pruned) numbers(tile []byte, n int) []float32 {
	out, mask, at := make([]float32, n), tile[2*p.Keep*PageTokens:], 0
	for w := range n / 64 {
		for left := binary.LittleEndian.Uint64(mask[8*w:]); left != 0; left &= left - 1 {
			out[64*w+bits.TrailingZeros64(left)] = quant.F16ToF32(binary.LittleEndian.Uint16(tile[2*at:]))
			at++
		}
	}
	return out
}

// Operands lists the cache and the layout, then the pruned pages.
func (o *Prune) Operands() (in, out []*tensor.Mat) {
	c := o.Cache
	out = []*tensor.Mat{&c.Pruned.K, &c.Pruned.V}
	in = append([]*tensor.Mat{&c.K, &c.V, &o.Layout.Dense}, o.Layout.operands(o.Lane)...)
	return append(in, out...), out
}

// Cost counts what is read and written of a page, for each 64 rows.
func (o *Prune) Cost() (bytes, flops int64) {
	pages := int64(tensor.Live(o.Layout.Rows, o.Layout.Pos.Rows)) / PageTokens * int64(o.Cache.Heads)
	return pages*int64(2*prunedTile(o.Cache.Dim, o.Cache.Pruned.Keep)) + 2*o.Cache.stored(pages*PageTokens), 0
}
