package attention

import "github.com/winnow-llm/winnow/tensor"

// KeyBounds keeps, of every unit of neighbouring keys, the least and the largest value in each channel (Quest, Tang et al. 2024).
//
// The bounds of a unit that a row writes to are those of its keys in the cache, from the first to the step's last: a function of what
// is cached, whatever was there before and however the keys came. Where full pages are pruned they are those of the keys as they were before.
//
// Layout: row page*heads + head of Bounds holds the least values of that page and head, channel after channel and for each channel
// unit after unit, then the largest ones likewise.
type KeyBounds struct {
	Cache  *Cache     // keys, the rows' own included
	Bounds tensor.Mat // pages*kv heads x 2*dim*units, in the cache's format, or F16 where that is packed; written for the units of the rows
	Layout *Layout    // whose rows these are and where their pages lie
	Lane   int        // which page table
	Unit   int        // keys: 16, 32 or 64
}

// Reference works row by row, and comes to the last one of each unit in the end.
func (o *KeyBounds) Reference() {
	seq, pos, pages, c := o.Layout.Seq.I32(), o.Layout.Pos.I32(), o.Layout.Pages[o.Lane], o.Cache
	own, key, units := o.Layout.Own(c, o.Lane).I32(), c.key(), PageTokens/o.Unit
	for i := range tensor.Live(o.Layout.Rows, o.Layout.Pos.Rows) {
		in, slot := int(seq[i])*pages.Cols+int(pos[i])/PageTokens, int(pos[i])%PageTokens
		page := pages.I32()[in]
		first := slot / o.Unit * o.Unit
		for row := range c.Heads * c.Dim {
			head, d := row/c.Dim, row%c.Dim
			at := c.Tile(own[in], head)
			least, most := key(at, first, d), key(at, first, d)
			for j := first + 1; j <= slot; j++ {
				least, most = min(least, key(at, j, d)), max(most, key(at, j, d))
			}
			to := (int(page)*c.Heads+head)*o.Bounds.Cols + d*units + slot/o.Unit
			store(o.Bounds, to, least)
			store(o.Bounds, to+c.Dim*units, most)
		}
	}
}

// Operands lists cache, bounds and layout, then the bounds.
func (o *KeyBounds) Operands() (in, out []*tensor.Mat) {
	in = append([]*tensor.Mat{&o.Cache.K, &o.Bounds, &o.Layout.Dense}, o.Layout.operands(o.Lane)...)
	return in, []*tensor.Mat{&o.Bounds}
}

// Cost counts each row's key read and written once, and two comparisons a value.
func (o *KeyBounds) Cost() (bytes, flops int64) {
	n := int64(tensor.Live(o.Layout.Rows, o.Layout.Pos.Rows)) * int64(o.Cache.Heads)
	return 2 * o.Cache.stored(n), 2 * n * int64(o.Cache.Dim)
}
