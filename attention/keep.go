package attention

import "slices"

// Keep says which pages of the past a key-value head of a layer reads, by their numbers alone: what a selector that goes by position has its
// rows read in all of its query heads together.
type Keep struct {
	Sink    int     // so many of the first pages
	Stride  int     // and those whose number, modulo Stride, is one of Columns; 0 = no others
	Columns []int32 // ascending
	Recent  int     // and so many pages before the row's own
}

// Everything reads all pages.
func Everything() Keep { return Keep{Stride: 1, Columns: []int32{0}} }

// Holds says whether a page is read however far behind it is.
func (k *Keep) Holds(page int) bool {
	return page < k.Sink || k.Stride > 0 && slices.Contains(k.Columns, int32(page%k.Stride))
}

// Retention is what all heads of a model's layers read, and so what must be kept of a sequence: head-sharded retention, where each of them
// keeps pages of its own.
type Retention struct {
	Heads  []Keep // layer after layer, in each its key-value heads
	Recent int    // pages before a row's own that some head reads; one at least

	classes []class
}

// class is heads that keep the same pages.
type class struct {
	Keep
	heads int
}

// NewRetention sums up what heads keep.
func NewRetention(heads []Keep) *Retention {
	r := &Retention{Heads: heads, Recent: 1}
	for _, k := range heads {
		r.Recent = max(r.Recent, k.Recent)
		same := func(c class) bool {
			return c.Sink == k.Sink && c.Stride == k.Stride && slices.Equal(c.Columns, k.Columns)
		}
		if at := slices.IndexFunc(r.classes, same); at >= 0 {
			r.classes[at].heads++
			continue
		}
		r.classes = append(r.classes, class{k, 1})
	}
	return r
}

// Kept is how many heads keep a page that is behind Recent, each a tile of keys and one of values. Rows that are yet to come read no others.
func (r *Retention) Kept(page int) (n int) {
	for i := range r.classes {
		if r.classes[i].Holds(page) {
			n += r.classes[i].heads
		}
	}
	return n
}

// Behind is how many leading pages are behind Recent once so many tokens are in the cache, whose next one has the number tokens.
func (r *Retention) Behind(tokens int) int { return max(0, tokens/PageTokens-r.Recent) }

// Saves says whether of so many leading pages some need not be kept whole.
func (r *Retention) Saves(pages int) bool {
	for page := range r.Behind(pages * PageTokens) {
		if r.Kept(page) < len(r.Heads) {
			return true
		}
	}
	return false
}
