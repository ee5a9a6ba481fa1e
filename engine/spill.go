package engine

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/winnow-llm/winnow/attention"
)

// Prefixes keeps full pages outside of the model's memory, for longer than the engine is open. It may lose any of them at any time. A page's number
// follows from the model, the tokens before its own and its own; no two prefixes have the same. depth is how many pages are before it. Methods may
// be called from any goroutine and take as long as they take; Has is quick.
type Prefixes interface {
	Has(id [32]byte) bool
	// Load fills page, if the page of that number is there, whole, and of these tokens.
	Load(id [32]byte, depth int, tokens []int32, page []byte) bool
	// Save keeps a page and says whether it could.
	Save(id [32]byte, depth int, tokens []int32, page []byte) bool
}

// pageID names what a full page holds: the SHA-256 of the name of the page before it, or of its root, and of its key.
type pageID = [sha256.Size]byte

// spilled is a page of the pool that is to be kept outside.
type spilled struct {
	page   int32
	id     pageID
	depth  int
	tokens [attention.PageTokens]int32
}

// name is that of a sealed page, or of a root.
func (p *pool) name(page int32) pageID {
	if root := int(page) - len(p.pages); root >= 0 {
		return p.names[root]
	}
	return p.pages[page].name
}

// nameAfter is the name of a page of a key, which comes after a page or root of a name.
func (p *pool) nameAfter(parent pageID, k *prefixKey) pageID {
	b := make([]byte, 0, len(parent)+8+len(k.variant)+4*len(k.tokens))
	b = binary.LittleEndian.AppendUint64(append(b, parent[:]...), uint64(len(k.variant)))
	b = append(b, k.variant...)
	for _, id := range k.tokens {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return sha256.Sum256(b)
}

// spilled describes a page that the tree knows.
func (p *pool) spilled(id int32) spilled {
	g := &p.pages[id]
	return spilled{id, g.name, g.depth, g.key.tokens}
}

// What endangered looks at.
const (
	reserve   = 4   // one part in so many of all pages: so many that can be taken without loss are wanted
	mostEyed  = 256 // pages that it looks at
	mostSaved = 2   // pages that are copied ahead in a turn
)

// endangered are some idle pages, at most n, that would be among the next to be evicted and that are kept nowhere yet. Keeping them before
// they are needed spares a long prompt from waiting for it, or its pages from being lost.
func (p *pool) endangered(n int, stored func(pageID) bool) (out []spilled) {
	left := min(len(p.pages)/reserve-len(p.free), mostEyed)
	for e := p.idle.Front(); e != nil && left > 0 && len(out) < n; e = e.Next() {
		if id := e.Value.(int32); !stored(p.pages[id].name) {
			out = append(out, p.spilled(id))
		}
		left--
	}
	return out
}
