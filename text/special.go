package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// table is what both tokenizers share: the vocabulary, what each id stands for, and the tokens that are
// matched whole before anything else is looked at.
type table struct {
	v      *Vocab
	pieces [][]byte
	whole  trie
	strip  map[int32]int // bits stripBefore, stripAfter
	memo   Memo          // of runs between them; nil = none
}

const (
	stripBefore = 1 << iota
	stripAfter
)

func newTable(v *Vocab) (*table, error) {
	t := &table{v: v, pieces: make([][]byte, len(v.Tokens)), strip: map[int32]int{}}
	for i, s := range v.Tokens {
		switch v.kind(int32(i)) {
		case TypeControl, TypeUnknown, TypeUserDefined:
			if len(s) > maxWholeLen {
				return nil, bad("tokens[%d] is matched whole and has %d bytes, more than %d", i, len(s), maxWholeLen)
			}
			t.pieces[i] = []byte(s)
			t.whole.add(s, int32(i))
		}
	}
	for _, id := range v.LStrip {
		t.strip[id] |= stripBefore
	}
	for _, id := range v.RStrip {
		t.strip[id] |= stripAfter
	}
	return t, nil
}

func (t *table) Vocab() *Vocab { return t.v }

func (t *table) Piece(id int32) []byte {
	if id < 0 || int(id) >= len(t.pieces) {
		return nil
	}
	return t.pieces[id]
}

// trie finds tokens by their bytes. Node 0 is the root.
type trie struct {
	next map[uint64]int32 // node<<8 | byte -> node
	ids  []int32          // per node the token that ends there, -1 = none
	root [256]int32       // the root's edges again, 0 = none: most bytes begin no token
}

// add enters a token; of two with the same text the first counts.
func (t *trie) add(s string, id int32) {
	if s == "" {
		return
	}
	if t.next == nil {
		t.next, t.ids = map[uint64]int32{}, []int32{-1}
	}
	node := int32(0)
	for i := 0; i < len(s); i++ {
		key := uint64(node)<<8 | uint64(s[i])
		child, ok := t.next[key]
		if !ok {
			child = int32(len(t.ids))
			t.ids = append(t.ids, -1)
			t.next[key] = child
		}
		node = child
	}
	t.root[s[0]] = t.next[uint64(s[0])]
	if t.ids[node] < 0 {
		t.ids[node] = id
	}
}

// longest is the longest token at the start of s that ok accepts, and its length; (-1, 0) if there is none.
func (t *trie) longest(s string, ok func(id int32, n int) bool) (id int32, n int) {
	id = -1
	node := t.root[s[0]]
	for i := 1; node != 0; i++ {
		if at := t.ids[node]; at >= 0 && ok(at, i) {
			id, n = at, i
		}
		if i == len(s) {
			break
		}
		node = t.next[uint64(node)<<8|uint64(s[i])]
	}
	return id, n
}

// joined is spans as one text, with the byte ranges a user wrote.
type joined struct {
	text  string
	input [][2]int
}

func join(spans []Span) joined {
	var j joined
	if len(spans) == 1 {
		j.text = spans[0].Text
		if spans[0].Input {
			j.input = [][2]int{{0, len(j.text)}}
		}
		return j
	}
	var b strings.Builder
	n := 0
	for _, s := range spans {
		n += len(s.Text)
	}
	b.Grow(n)
	for _, s := range spans {
		if s.Input && s.Text != "" {
			j.input = append(j.input, [2]int{b.Len(), b.Len() + len(s.Text)})
		}
		b.WriteString(s.Text)
	}
	j.text = b.String()
	return j
}

// encode cuts out the tokens that are matched whole and gives the text between them to plain, which appends
// its ids; at is where that text begins in the joined spans.
func (t *table) encode(dst []int32, spans []Span, plain plainer) []int32 {
	j := join(spans)
	start := 0 // of the text not yet encoded
	for i := 0; i < len(j.text); {
		if t.whole.root[j.text[i]] == 0 {
			i++
			continue
		}
		for len(j.input) > 0 && j.input[0][1] <= i {
			j.input = j.input[1:]
		}
		id, n := t.whole.longest(j.text[i:], func(id int32, n int) bool {
			return t.v.kind(id) == TypeUserDefined || len(j.input) == 0 || i+n <= j.input[0][0]
		})
		if id < 0 {
			i++
			continue
		}
		before := j.text[start:i]
		if t.strip[id]&stripBefore != 0 {
			before = strings.TrimRightFunc(before, unicode.IsSpace)
		}
		if before != "" {
			dst = t.run(dst, before, start, plain)
		}
		dst = append(dst, id)
		i += n
		if t.strip[id]&stripAfter != 0 {
			for i < len(j.text) {
				r, n := utf8.DecodeRuneInString(j.text[i:])
				if !unicode.IsSpace(r) {
					break
				}
				i += n
			}
		}
		start = i
	}
	if start < len(j.text) {
		dst = t.run(dst, j.text[start:], start, plain)
	}
	return dst
}
