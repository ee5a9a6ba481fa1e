package text

import (
	"math/bits"
	"math/rand/v2"
	"strings"
)

// pairs says which neighbours become one token: left<<32 | right -> rank<<32 | merged. A smaller rank goes
// first. It is one flat table with open addressing, since merging does little else than look here. The hash is
// drawn anew for each table, so that no file can make its pairs meet in one place.
type pairs struct {
	slots []pair // a power of two of them, at most half taken
	taken int
	odd   uint64 // the hash is the highest bits of key * odd
	shift int
}

type pair struct{ key, value uint64 }

// none is no pair's value: larger than all. A slot that has it is free.
const none = ^uint64(0)

// newPairs makes a table with room for n pairs; it grows where there are more.
func newPairs(n int) *pairs {
	size := bits.Len(uint(2*n + 1))
	p := &pairs{slots: make([]pair, 1<<size), odd: rand.Uint64() | 1, shift: 64 - size}
	for i := range p.slots {
		p.slots[i].value = none
	}
	return p
}

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

// slot is where a key is or, with the value none, would be.
func (p *pairs) slot(key uint64) *pair {
	i := key * p.odd >> p.shift
	for {
		s := &p.slots[i&uint64(len(p.slots)-1)]
		if s.key == key || s.value == none {
			return s
		}
		i++
	}
}

func (p *pairs) find(left, right int32) uint64 { return p.slot(pairKey(left, right)).value }

// add enters a pair; of two for the same neighbours the better rank counts.
func (p *pairs) add(left, right, merged int32, rank int) {
	key := pairKey(left, right)
	s := p.slot(key)
	if s.value == none {
		if p.taken++; 2*p.taken > len(p.slots) {
			p.grow()
			s = p.slot(key)
		}
	}
	if v := uint64(rank)<<32 | uint64(uint32(merged)); v < s.value {
		*s = pair{key, v}
	}
}

func (p *pairs) grow() {
	next := newPairs(len(p.slots))
	for _, s := range p.slots {
		if s.value != none {
			*next.slot(s.key) = s
		}
	}
	next.taken = p.taken
	*p = *next
}

// learn enters the merge "left right" of the given rank. Every part and what they make must be a token that
// text may become.
func (p *pairs) learn(rank int, merge string, id func(string) (int32, bool)) error {
	if merge == "" {
		return bad("merges[%d] is empty", rank)
	}
	// The left part may itself be a space in vocabularies that do not spell it, never the empty text.
	at := strings.IndexByte(merge[1:], ' ') + 1
	if at == 0 || at+1 == len(merge) {
		return bad("merges[%d] has not two parts", rank)
	}
	left, okL := id(merge[:at])
	right, okR := id(merge[at+1:])
	made, okM := id(merge[:at] + merge[at+1:])
	if !okL || !okR || !okM {
		return bad("merges[%d] %.80q names or makes what is no ordinary token", rank, merge)
	}
	p.add(left, right, made, rank)
	return nil
}

// shortPiece is up to where looking through all pairs beats keeping a heap.
const shortPiece = 48

// merge merges ids in place and returns how many are left.
func (p *pairs) merge(ids []int32) int {
	if len(ids) > shortPiece {
		return p.mergeLong(ids)
	}
	var values [shortPiece]uint64 // of the pair (i, i+1)
	n := len(ids)
	for i := 0; i+1 < n; i++ {
		values[i] = p.find(ids[i], ids[i+1])
	}
	for n > 1 {
		best := 0
		for i := 1; i+1 < n; i++ {
			if values[i]>>32 < values[best]>>32 {
				best = i
			}
		}
		if values[best] == none {
			break
		}
		ids[best] = int32(uint32(values[best]))
		copy(ids[best+1:], ids[best+2:n])
		copy(values[best:n-1], values[best+1:n-1])
		n--
		values[n-1] = none
		if best > 0 {
			values[best-1] = p.find(ids[best-1], ids[best])
		}
		if best+1 < n {
			values[best] = p.find(ids[best], ids[best+1])
		}
	}
	return n
}

// candidate is a pair that may still stand: position of its left part, the ids it was seen with.
type candidate struct {
	order       uint64 // rank<<32 | position
	left, right int32
	merged      int32
}

// mergeLong does the same with a linked list and a heap: n log n for a piece of n ids.
func (p *pairs) mergeLong(ids []int32) int {
	n := len(ids)
	links := make([]int32, 2*n)
	prev, next := links[:n], links[n:]
	for i := range ids {
		prev[i], next[i] = int32(i-1), int32(i+1)
	}
	h := make(mergeHeap, 0, n)
	push := func(at int32) {
		if at < 0 || int(next[at]) >= n {
			return
		}
		l, r := ids[at], ids[next[at]]
		if v := p.find(l, r); v != none {
			h.push(candidate{v>>32<<32 | uint64(at), l, r, int32(uint32(v))})
		}
	}
	for i := range ids {
		push(int32(i))
	}
	const gone = -2
	for len(h) > 0 {
		c := h.pop()
		at := int32(uint32(c.order))
		// An entry is stale once either part was merged; ids that match again make it true again.
		if next[at] == gone || int(next[at]) >= n || ids[at] != c.left || ids[next[at]] != c.right {
			continue
		}
		dead := next[at]
		ids[at] = c.merged
		next[at] = next[dead]
		if int(next[at]) < n {
			prev[next[at]] = at
		}
		next[dead] = gone
		push(prev[at])
		push(at)
	}
	out := 0
	for i := 0; i < n; i = int(next[i]) {
		ids[out] = ids[i]
		out++
	}
	return out
}

// mergeHeap is a binary heap with the best candidate on top.
type mergeHeap []candidate

func (h *mergeHeap) push(c candidate) {
	*h = append(*h, c)
	s := *h
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if s[up].order <= c.order {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = c
}

func (h *mergeHeap) pop() candidate {
	s := *h
	top, last := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	i := 0
	for {
		child := 2*i + 1
		if child >= len(s) {
			break
		}
		if child+1 < len(s) && s[child+1].order < s[child].order {
			child++
		}
		if last.order <= s[child].order {
			break
		}
		s[i] = s[child]
		i = child
	}
	if len(s) > 0 {
		s[i] = last
	}
	return top
}
