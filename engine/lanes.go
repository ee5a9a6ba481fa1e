package engine

import (
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
)

// lanes are what a sequence keeps of its past whose selectors say beforehand which pages each head reads. A page that is behind all recent ones
// is given back: the tiles of heads that read on in it are packed into pages of the sequence's own, which nobody shares, and its entry in the page table
// becomes one that says where they lie. Decision 021 says more.
//
// Pages are packed between steps, and only those behind the last full one, so that nothing that is packed is ever taken back.
type lanes struct {
	keep  *attention.Retention
	from  int // tokens from which on pages are given back
	chunk int // pages that a step of its prompt fills at most
	heads int // of all layers: tiles that a page has room for
	most  int // tiles that a page leaves at most which is given back

	packed []int32 // pages of tiles
	used   int     // tiles in them
	rows   []int32 // of the model's lanes
	behind int     // leading pages that are given back, or kept as they are since all heads read on in them
	freed  int     // of them, those that are given back
}

// packing is a page that was given back, and what must be done before the step.
type packing struct {
	seq       *sequence
	row, page int32
	places    []int32 // see model.Pack; nil = nothing of it is kept
	free      bool    // nobody has the page any more
}

// laned prepares the lanes of a request, and says how many tokens its sequence may have. There are none where nothing would be saved.
func (e *Engine) laned(r *Request) (*lanes, int) {
	context := e.Context()
	if r.Reads == nil || r.Reads.Whole {
		return nil, context
	}
	p, err := e.model.Policy(r.Reads)
	if err != nil {
		return nil, context // read reports it
	}
	keep, from := e.model.Retained(&p, len(r.Prompt))
	if keep == nil {
		return nil, context
	}
	lim := e.scheduler.limits
	x := newLanes(keep, from, &lim)
	most := x.fits(&lim, e.model.LaneRows()-1)
	if most < context || !x.saves(r.limit(most)) {
		return nil, context
	}
	return x, most
}

// ContextOf is how many tokens a sequence may have that reads so, and whose prompt has so many: Context, or more where it gives pages back.
func (e *Engine) ContextOf(r *model.Reading, prompt int) int {
	_, context := e.laned(&Request{Prompt: make([]int32, prompt), Reads: r})
	return context
}

// newLanes are the lanes of a sequence that keeps and has computed nothing.
func newLanes(keep *attention.Retention, from int, lim *model.Limits) *lanes {
	x := &lanes{keep: keep, from: from, heads: len(keep.Heads), chunk: 1}
	if from == 0 {
		x.chunk = max(1, min(lim.Rows/attention.PageTokens+1, lim.Pages/4))
	}
	for page := range pagesOf(lim.Context) {
		if n := keep.Kept(page); n < x.heads {
			x.most = max(x.most, n)
		}
	}
	return x
}

// retains lets a sequence give pages back. Its policy is known.
func (q *sequence) retains(x *lanes) {
	if q.lanes = x; x != nil {
		q.policy.Kept, q.policy.KeptFrom = x.keep, x.from
	}
}

// gone is how many leading pages are behind once so many tokens are computed.
func (x *lanes) gone(tokens int) int {
	if tokens < x.from {
		return 0
	}
	return x.keep.Behind(tokens)
}

// saves says whether a sequence of so many tokens gives a page back.
func (x *lanes) saves(tokens int) bool {
	return tokens > x.from && x.keep.Saves(pagesOf(tokens))
}

// left is what is left of the pages that are behind once so many tokens are computed: pages that are kept whole, pages of which some tiles
// are, and how many tiles.
func (x *lanes) left(tokens int) (whole, parts, tiles int) {
	for page := range x.gone(tokens) {
		switch n := x.keep.Kept(page); {
		case n == x.heads:
			whole++
		case n > 0:
			parts, tiles = parts+1, tiles+n
		}
	}
	return whole, parts, tiles
}

// packs is how many pages have room for so many tiles, and for those of the next page that is given back.
func (x *lanes) packs(tiles int) int {
	if x.most == 0 {
		return 0
	}
	return (tiles + x.most + x.heads - 1) / x.heads
}

// needs is how many pages a sequence holds at most while it comes to have so many tokens in so many pages: such as are its own tokens', and
// those of tiles.
func (x *lanes) needs(tokens, pages int) (own, packed int) {
	whole, _, tiles := x.left(tokens)
	own = max(pagesOf(x.from), x.keep.Recent+1+x.chunk+whole)
	return min(pages, own), x.packs(tiles)
}

// fits is how many tokens a sequence may have that is alone, with so many rows of lanes.
func (x *lanes) fits(lim *model.Limits, rows int) int {
	low, high := 0, lim.Context
	for low < high {
		n := (low + high + 1) / 2
		own, packed := x.needs(n, pagesOf(n))
		if _, parts, _ := x.left(n); own+packed <= lim.Pages && parts <= rows {
			low = n
		} else {
			high = n - 1
		}
	}
	return low
}

// holds is how many pages a sequence has in its hands.
func (q *sequence) holds() int {
	if q.lanes == nil {
		return len(q.pages)
	}
	return len(q.pages) - q.lanes.freed + len(q.lanes.packed)
}

// lacks is how many pages a sequence must have beside those that it holds, so that it is never short of any for the tokens that it has: of its
// own, and for tiles.
func (q *sequence) lacks() (own, packed int) {
	x := q.lanes
	if x == nil {
		return max(0, q.room()-len(q.pages)), 0
	}
	most, packed := x.needs(len(q.tokens), q.room())
	ahead := len(q.pages) - pagesOf(q.computed)
	own = max(most-(len(q.pages)-x.freed), x.chunk-ahead)
	return max(0, min(own, q.room()-len(q.pages))), max(0, packed-len(x.packed))
}

// filled is how many of at most so many rows the sequence has pages for.
func (q *sequence) filled(rows int) int {
	if q.lanes == nil {
		return rows
	}
	return min(rows, len(q.pages)*attention.PageTokens-q.computed)
}

// lodge gives a sequence the pages that it lacks, where there are enough for all; what it adopted it need not hold for that.
func (s *scheduler) lodge(q *sequence) bool {
	if q.lanes == nil {
		if s.missing(q) > 0 {
			return false
		}
		s.supply(q)
		return true
	}
	before := len(s.packings)
	s.supply(q)
	s.pack(q)
	s.supply(q)
	if s.missing(q) > 0 {
		s.counts.PagesFreed -= int64(len(s.packings) - before)
		s.packings = s.packings[:before]
		return false
	}
	return true
}

// supply takes the pages that a sequence lacks, as far as there are some.
func (s *scheduler) supply(q *sequence) {
	own, packed := q.lacks()
	for ; own > 0 && s.pool.available() > 0; own-- {
		s.take(q)
	}
	for ; packed > 0 && s.pool.available() > 0; packed-- {
		q.lanes.packed = append(q.lanes.packed, s.page())
	}
}

// packAll gives back what running sequences need no more. Those that have a part in a step keep it till its end.
func (s *scheduler) packAll() {
	s.packings = s.packings[:0]
	for _, q := range s.running {
		if q.lanes == nil || q.planned {
			continue
		}
		if s.pack(q); q.behind() > 1 {
			s.supply(q)
		}
	}
}

// pack gives back the pages of a sequence that are behind, as long as there is room for their tiles.
func (s *scheduler) pack(q *sequence) {
	x := q.lanes
	for to := x.gone(q.computed); x.behind < to; x.behind++ {
		kept := x.keep.Kept(x.behind)
		if kept == x.heads {
			continue
		}
		p := packing{seq: q, page: q.pages[x.behind]}
		if kept > 0 {
			if s.room(x) < kept && s.pool.available() > 0 {
				x.packed = append(x.packed, s.page())
			}
			if s.room(x) < kept || len(s.pool.rows) == 0 {
				return
			}
			last := len(s.pool.rows) - 1
			p.row, s.pool.rows = s.pool.rows[last], s.pool.rows[:last]
			x.rows = append(x.rows, p.row)
			p.places = x.places()
		}
		s.pool.drop(p.page)
		p.free = s.pool.pages[p.page].holders == 0 && s.pool.pages[p.page].key == nil
		q.pages[x.behind] = attention.LanesEntry(p.row)
		x.freed++
		s.counts.PagesFreed++
		s.packings = append(s.packings, p)
		if kept > 0 && s.room(x) < x.most && s.pool.available() > 0 { // the page that was just given back, unless others hold it
			x.packed = append(x.packed, s.page())
		}
	}
}

// room is how many more tiles a sequence's packed pages hold.
func (s *scheduler) room(x *lanes) int { return len(x.packed)*x.heads - x.used }

// places puts the tiles that are kept of the next page into the packed ones.
func (x *lanes) places() []int32 {
	to := slices.Repeat([]int32{-1}, x.heads)
	for i := range x.keep.Heads {
		if x.keep.Heads[i].Holds(x.behind) {
			to[i] = x.packed[x.used/x.heads]*int32(x.heads) + int32(x.used%x.heads)
			x.used++
		}
	}
	return to
}

// clear forgets what was packed, once its pages and rows are given back.
func (x *lanes) clear() {
	x.packed, x.rows, x.used, x.behind, x.freed = x.packed[:0], x.rows[:0], 0, 0, 0
}

// checkLanes proves the books of a sequence's lanes.
func (q *sequence) checkLanes() error {
	x := q.lanes
	freed := 0
	for _, id := range q.pages {
		if id < 0 {
			freed++
		}
	}
	if freed != x.freed || x.behind > x.gone(q.computed) || x.used > len(x.packed)*x.heads || len(x.rows) > x.freed {
		return fmt.Errorf("%d entries of lanes for %d pages freed of %d that are behind, %d tiles in %d pages, %d rows",
			freed, x.freed, x.behind, x.used, len(x.packed), len(x.rows))
	}
	return nil
}

// pack does what the plan's packings say. The pages that they come from are not written to before.
func (e *Engine) pack() error {
	all := e.scheduler.packings
	if len(all) == 0 {
		return nil
	}
	for _, p := range all {
		if p.places != nil {
			e.model.Pack(p.row, p.page, p.places)
		}
		if e.check && p.free {
			e.model.Spoil(p.page)
		}
	}
	err := e.model.Queue().Sync()
	if err == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range all {
		if p.seq.out.done {
			continue
		}
		e.scheduler.abort(p.seq)
		e.scheduler.counts.Failed++
		p.seq.close(fmt.Errorf("%w: pages that are given back: %w", ErrStep, err))
	}
	return err
}
