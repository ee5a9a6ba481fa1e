package engine

import (
	"fmt"

	"github.com/winnow-llm/winnow/attention"
)

// dense says where pages lie whole that sequences compute, of a model whose full pages are pruned. A page has such a place from the step that
// computes its first token until the one that computes its last, or until nobody holds it.
type dense struct {
	places int
	free   []int32         // a stack
	of     map[int32]int32 // page -> its place
}

func newDense(places int) (d dense) {
	if places == 0 {
		return d
	}
	d = dense{places: places, of: map[int32]int32{}}
	for i := range places {
		d.free = append(d.free, int32(i))
	}
	return d
}

// open gives places to the pages that a sequence's next rows are in, and says which they are; none where pages are not pruned.
func (d *dense) open(q *sequence, rows int) (places []int32) {
	if d.places == 0 {
		return nil
	}
	for i := q.computed / attention.PageTokens; i < pagesOf(q.computed+rows); i++ {
		place, ok := d.of[q.pages[i]]
		if !ok {
			last := len(d.free) - 1
			if last < 0 {
				panic("winnow: bug: engine: more pages are computed at once than have room whole")
			}
			place, d.free = d.free[last], d.free[:last]
			d.of[q.pages[i]] = place
		}
		places = append(places, place)
	}
	return places
}

// shut takes the places away of the pages that a sequence has computed to their ends, from a token on.
func (d *dense) shut(q *sequence, from int) {
	for i := from / attention.PageTokens; d.places > 0 && i < q.computed/attention.PageTokens; i++ {
		d.close(q.pages[i])
	}
}

// close takes a page's place away, if it has one.
func (d *dense) close(page int32) {
	if place, ok := d.of[page]; ok {
		delete(d.of, page)
		d.free = append(d.free, place)
	}
}

// checkDense proves that only held pages have places, each its own.
func (p *pool) checkDense() error {
	taken := make([]bool, p.dense.places)
	for page, place := range p.dense.of {
		if p.pages[page].holders != 1 || taken[place] {
			return fmt.Errorf("page %d of %d holders has place %d", page, p.pages[page].holders, place)
		}
		taken[place] = true
	}
	if len(p.dense.of)+len(p.dense.free) != p.dense.places {
		return fmt.Errorf("%d places taken and %d free of %d", len(p.dense.of), len(p.dense.free), p.dense.places)
	}
	return nil
}
