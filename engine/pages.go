package engine

import (
	"container/list"
	"fmt"

	"github.com/winnow-llm/winnow/attention"
)

// pool says who has which page of the model's cache. A page is in one of three roles: held by one or more sequences; idle, held by
// nobody but known to the prefix tree, so that a later prompt may find it; or free. It knows numbers of pages only, no memory.
type pool struct {
	pages []page
	free  []int32    // a stack
	rows  []int32    // of the model's lanes, those that nobody has: a stack
	idle  *list.List // of int32, the least recently held first

	tree  map[prefixKey]int32 // what the full pages hold -> page, see prefix.go
	roots map[string]int32    // selector fingerprint -> its root: numbers from len(pages) up

	spills bool      // pages have names that hold outside of this pool, and what is evicted is lost only when somebody has seen it
	names  []pageID  // of roots
	lost   []spilled // evicted, and not yet overwritten

	dense dense // places of pages that are not pruned, where full ones are
}

// page is what the pool knows of one page.
type page struct {
	holders int           // sequences whose page tables have it
	key     *prefixKey    // under which the prefix tree has it; nil when it is not there
	idle    *list.Element // its place among the idle pages; nil when it is not idle
	kids    []int32       // pages whose keys have it as their parent
	name    pageID        // of what it holds, while it has a key; see pool.spills
	depth   int           // pages before it; likewise
}

func newPool(pages int) *pool {
	p := &pool{
		pages: make([]page, pages), free: make([]int32, pages), idle: list.New(),
		tree: map[prefixKey]int32{}, roots: map[string]int32{},
	}
	for i := range p.free {
		p.free[i] = int32(pages - 1 - i) // page 0 goes first
	}
	return p
}

// available is how many pages can be taken.
func (p *pool) available() int { return len(p.free) + p.idle.Len() }

// used is how many pages sequences hold.
func (p *pool) used() int { return len(p.pages) - p.available() }

// take gives a page that nobody holds: a free one, or else the idle one that was held least recently, which the prefix tree then
// forgets. It is held once.
func (p *pool) take() (id int32, evicted, ok bool) {
	if n := len(p.free); n > 0 {
		id, p.free = p.free[n-1], p.free[:n-1]
	} else if oldest := p.idle.Front(); oldest != nil {
		id, evicted = oldest.Value.(int32), true
		if p.spills {
			p.lost = append(p.lost, p.spilled(id))
		}
		p.forget(id)
	} else {
		return 0, false, false
	}
	p.pages[id].holders = 1
	return id, evicted, true
}

// hold adds a holder to a page that is held or idle.
func (p *pool) hold(id int32) {
	g := &p.pages[id]
	if g.idle != nil {
		p.idle.Remove(g.idle)
		g.idle = nil
	}
	g.holders++
}

// drop takes one holder away. The last one leaves the page idle where the prefix tree knows it, else free.
func (p *pool) drop(id int32) {
	g := &p.pages[id]
	if g.holders--; g.holders == 0 {
		p.dense.close(id)
	}
	switch {
	case g.holders < 0:
		panic(fmt.Sprintf("winnow: bug: engine: page %d is dropped by more than hold it", id))
	case g.holders > 0:
	case g.key != nil:
		g.idle = p.idle.PushBack(id)
		p.touch(id)
	default:
		p.free = append(p.free, id)
	}
}

// release takes all pages from a sequence, which then has computed nothing. Later pages become idle before earlier ones, so that
// eviction eats a prefix from its end.
func (p *pool) release(q *sequence) {
	for i := len(q.pages) - 1; i >= 0; i-- {
		if q.pages[i] >= 0 {
			p.drop(q.pages[i])
		}
	}
	if x := q.lanes; x != nil {
		for _, id := range x.packed {
			p.drop(id)
		}
		p.rows = append(p.rows, x.rows...)
		x.clear()
	}
	q.pages, q.sealed, q.computed = q.pages[:0], 0, 0
}

// check proves the pool's books against the sequences that hold pages.
func (p *pool) check(held []*sequence) error {
	holders := make([]int, len(p.pages))
	for _, q := range held {
		parted := false
		for i, id := range q.pages {
			if parted = parted || id < 0; id < 0 {
				continue
			}
			holders[id]++
			if key := p.pages[id].key; !parted && i < q.sealed && (key == nil || *key != p.key(q, i)) {
				return fmt.Errorf("page %d is sealed by its holder and unknown to the tree", id)
			}
		}
		if q.lanes != nil {
			if err := q.checkLanes(); err != nil {
				return err
			}
			for _, id := range q.lanes.packed {
				if holders[id]++; p.pages[id].key != nil {
					return fmt.Errorf("page %d is packed and known to the tree", id)
				}
			}
		}
		if q.sealed > q.computed/attention.PageTokens || len(q.pages) < pagesOf(q.computed) {
			return fmt.Errorf("%d pages, %d of them sealed, for %d computed tokens", len(q.pages), q.sealed, q.computed)
		}
	}
	roles := make([]int, len(p.pages))
	for _, id := range p.free {
		roles[id]++
		if g := p.pages[id]; g.holders != 0 || g.key != nil || g.idle != nil {
			return fmt.Errorf("page %d is free and also %+v", id, g)
		}
	}
	age := map[int32]int{}
	for e := p.idle.Front(); e != nil; e = e.Next() {
		id := e.Value.(int32)
		roles[id]++
		age[id] = len(age)
		if g := p.pages[id]; g.holders != 0 || g.key == nil || g.idle != e {
			return fmt.Errorf("page %d is idle and also %+v", id, g)
		}
	}
	for id, g := range p.pages {
		if g.holders > 0 {
			roles[id]++
		}
		if g.holders != holders[id] || roles[id] != 1 {
			return fmt.Errorf("page %d counts %d holders of %d and has %d roles", id, g.holders, holders[id], roles[id])
		}
	}
	if err := p.checkDense(); err != nil {
		return err
	}
	return p.checkTree(age)
}
