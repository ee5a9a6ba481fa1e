package engine

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/attention"
)

// prefixKey names a full page by what it holds: its own tokens, after everything that its parent's chain holds. The keys form a
// tree whose paths from a root are the cached prefixes. Keys are compared in full, so no two prefixes are ever taken for one.
//
// A parent outlives its children's keys: whoever holds a page holds its parent, and releases it later, so that the least recently held idle
// page has no idle child. Only who gives pages back while he runs, see lanes, may hold a page and not its parent; when that is taken for other
// tokens, what comes after it is forgotten too. A number in a key therefore always means the page that it meant when the key was made.
type prefixKey struct {
	parent int32 // page that holds the tokens before, or a root
	// variant is that of the sequences whose page it is, beside a root: tokens that make do with fewer experts, or read fewer keys, have other
	// values. Pages further down have it from their parents.
	variant string
	tokens  [attention.PageTokens]int32
}

// root is where the prefixes of one selector start: another selector caches other values for the same tokens.
func (p *pool) root(fingerprint string) int32 {
	id, ok := p.roots[fingerprint]
	if !ok {
		id = int32(len(p.pages) + len(p.roots))
		p.roots[fingerprint] = id
		p.names = append(p.names, sha256.Sum256([]byte(fingerprint)))
	}
	return id
}

// key names logical page i of a sequence, which has tokens for all of it and whose earlier pages are sealed.
func (p *pool) key(q *sequence, i int) prefixKey { return p.keyAfter(p.parent(q, i), q, i) }

// keyAfter names it after a page that need not be the sequence's.
func (p *pool) keyAfter(parent int32, q *sequence, i int) prefixKey {
	k := prefixKey{parent: parent}
	if i == 0 {
		k.variant = q.variant
	}
	copy(k.tokens[:], q.tokens[i*attention.PageTokens:])
	return k
}

// parent is the page before logical page i of a sequence, or its root.
func (p *pool) parent(q *sequence, i int) int32 {
	if i == 0 {
		return q.root
	}
	return q.pages[i-1]
}

// adopt lets a sequence that stands at a page's boundary skip the tokens that others have computed already, as many whole units of them as there
// are. It says how many. The sequence's own pages there, still empty, go back.
func (p *pool) adopt(q *sequence) int {
	from := q.computed
	for q.computed == q.sealed*attention.PageTokens && q.computed+q.unit() <= q.adoptable() && p.spares(q) && p.adoptUnit(q) {
	}
	return q.computed - from
}

// spares says whether pages are left to take when a sequence holds what it finds in the tree. One that will give most of it back may find
// more than there is room for at once.
func (p *pool) spares(q *sequence) bool {
	return q.lanes == nil || p.available() > q.lanes.chunk+2
}

// adoptUnit takes the pages of a sequence's next unit from the tree, if it has them all.
func (p *pool) adoptUnit(q *sequence) bool {
	var found []int32
	last := p.parent(q, q.sealed)
	for n := range q.unit() / attention.PageTokens {
		id, ok := p.tree[p.keyAfter(last, q, q.sealed+n)]
		if !ok {
			return false
		}
		found, last = append(found, id), id
	}
	for _, id := range found {
		p.hold(id)
		if q.sealed < len(q.pages) {
			p.drop(q.pages[q.sealed])
			q.pages[q.sealed] = id
		} else {
			q.pages = append(q.pages, id)
		}
		q.sealed++
		q.computed += attention.PageTokens
	}
	return true
}

// seal makes the full pages that a sequence has computed shareable. Where another sequence was first with the same tokens, its page takes
// the place of ours, which holds the same bits.
func (p *pool) seal(q *sequence) {
	for ; (q.sealed+1)*attention.PageTokens <= min(q.computed, q.shareable()); q.sealed++ {
		if q.sealed > 0 && (q.pages[q.sealed-1] < 0 || p.pages[q.pages[q.sealed-1]].key == nil) {
			return // what came before was given back, and then forgotten
		}
		key, own := p.key(q, q.sealed), q.pages[q.sealed]
		if twin, ok := p.tree[key]; ok {
			p.hold(twin)
			p.drop(own)
			q.pages[q.sealed] = twin
			continue
		}
		p.tree[key] = own
		p.pages[own].key = &key
		if int(key.parent) < len(p.pages) {
			up := &p.pages[key.parent]
			up.kids = append(up.kids, own)
		}
		if p.spills {
			p.pages[own].name, p.pages[own].depth = p.nameAfter(p.name(key.parent), &key), q.sealed
		}
	}
}

// forget takes an idle page out of the tree, with all that comes after it.
func (p *pool) forget(id int32) {
	g := &p.pages[id]
	if parent := g.key.parent; int(parent) < len(p.pages) {
		up := &p.pages[parent]
		up.kids = slices.DeleteFunc(up.kids, func(kid int32) bool { return kid == id })
	}
	p.idle.Remove(g.idle)
	g.idle = nil
	p.cut(id)
}

// cut takes a page out of the tree, and all that comes after it: those of these that nobody holds become free.
func (p *pool) cut(id int32) {
	g := &p.pages[id]
	for _, kid := range g.kids {
		k := &p.pages[kid]
		if k.idle != nil {
			if p.spills {
				p.lost = append(p.lost, p.spilled(kid))
			}
			p.idle.Remove(k.idle)
			k.idle, p.free = nil, append(p.free, kid)
		}
		p.cut(kid)
	}
	delete(p.tree, *g.key)
	g.key, g.kids = nil, nil
}

// touch makes the idle pages before one that became idle the later ones to be taken.
func (p *pool) touch(id int32) {
	for {
		parent := p.pages[id].key.parent
		if int(parent) >= len(p.pages) || p.pages[parent].idle == nil {
			return
		}
		p.idle.MoveToBack(p.pages[parent].idle)
		id = parent
	}
}

// checkTree proves that the tree and the pages name each other and that every parent outlives its children. Age orders the idle pages, the
// first to be evicted first.
func (p *pool) checkTree(age map[int32]int) error {
	keyed := 0
	for id, g := range p.pages {
		if g.key == nil {
			continue
		}
		keyed++
		if at, ok := p.tree[*g.key]; !ok || at != int32(id) {
			return fmt.Errorf("page %d has a key that the tree gives to page %d", id, at)
		}
		parent := g.key.parent
		if int(parent) >= len(p.pages) {
			continue
		}
		up := p.pages[parent]
		if up.key == nil || !slices.Contains(up.kids, int32(id)) || g.idle != nil && up.idle != nil && age[parent] < age[int32(id)] {
			return fmt.Errorf("page %d may outlive its parent %d", id, parent)
		}
	}
	if keyed != len(p.tree) {
		return fmt.Errorf("the tree has %d pages, %d pages have keys", len(p.tree), keyed)
	}
	return nil
}
