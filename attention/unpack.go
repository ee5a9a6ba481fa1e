package attention

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Unpack writes the keys that a selector scores queries with where full pages are pruned: all those of the sequences that it serves in a step. Keys
// of full pages are as they are pruned, also of those that the step's own rows fill; those of a page that is not full are as they are. So what
// is scored follows from the tokens alone.
//
// There is one such place for every page, which all layers and selectors use in turn: it is written in each layer before the selector scores.
type Unpack struct {
	From   *Cache  // with pruned pages
	To     *Cache  // F16, keys alone, with a place for each pruned page; heads and dimensions as From
	Layout *Layout // with tiles
	Lane   int     // which page table
	Serves int     // the policy whose tiles are served
}

// unpackedKeys is where the Env's selectors look at keys whose pages are pruned, one layer at a time: it is allocated for the first that asks.
func (e *Env) unpackedKeys() *Cache {
	if e.unpacked == nil {
		c := &Cache{Format: quant.F16, Heads: e.KV(), Dim: e.Dim(), Stride: e.KV() * e.Dim() * PageTokens}
		buf, err := e.Device.Alloc(e.Pages * c.Format.RowBytes(c.Stride))
		if err != nil {
			e.err = fmt.Errorf("keys of %d pruned pages to score: %w", e.Pages, err)
		} else {
			c.K = view(c.Format, buf, 0, e.Pages*c.Stride)
		}
		e.unpacked = c
	}
	return e.unpacked
}

// Reference works page by page. A page of several sequences is written several times, and with the same keys.
func (o *Unpack) Reference() {
	pages, own := o.Layout.Pages[o.Lane], o.Layout.Dense
	c := o.From
	for s, end := range o.ends() {
		for page := range end/PageTokens + 1 {
			in, full := s*pages.Cols+page, (page+1)*PageTokens <= end+1
			for h := range c.Heads {
				key := o.keys(pages.I32()[in], h)
				if !full {
					read, tile := c.key(), c.Tile(own.I32()[in], h)
					key = func(slot, d int) float32 { return read(tile, slot, d) }
				}
				for slot := range min(PageTokens, end+1-page*PageTokens) {
					for d := range c.Dim {
						store(o.To.K, o.To.Tile(pages.I32()[in], h)+KeyAt(c.Dim, slot, d), key(slot, d))
					}
				}
			}
		}
	}
}

// ends are the last positions of the sequences that are served.
func (o *Unpack) ends() map[int]int {
	ends, seq, pos := map[int]int{}, o.Layout.Seq.I32(), o.Layout.Pos.I32()
	o.Layout.Tiles.Served(o.Serves, 0, func(_, _, last int, _ float32) {
		s := int(seq[last])
		ends[s] = max(ends[s], int(pos[last]))
	})
	return ends
}

// keys reads the pruned keys of a page and head.
func (o *Unpack) keys(page int32, head int) func(slot, d int) float32 {
	p := o.From.Pruned
	k := p.numbers(p.K.Raw()[p.tile(o.From, page, head):], PageTokens*o.From.Dim)
	return func(slot, d int) float32 { return k[d*PageTokens+slot] }
}

// Operands lists keys of both kinds, tiles and layout, then what is written.
func (o *Unpack) Operands() (in, out []*tensor.Mat) {
	in = append([]*tensor.Mat{&o.From.K, &o.From.Pruned.K, &o.Layout.Dense, &o.To.K}, o.Layout.Tiles.operands()...)
	return append(in, o.Layout.operands(o.Lane)...), []*tensor.Mat{&o.To.K}
}

// Cost counts the pages of all sequences served, read once and written once; nothing where the host cannot see the layout.
func (o *Unpack) Cost() (bytes, flops int64) {
	if o.Layout.Pos.Buf.Host() == nil {
		return 0, 0
	}
	c := o.From
	for _, end := range o.ends() {
		bytes += int64(end/PageTokens+1) * int64(c.Heads) * (int64(prunedTile(c.Dim, c.Pruned.Keep)) + c.stored(PageTokens))
	}
	return bytes, 0
}
