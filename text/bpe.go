package text

import (
	"hash/maphash"
	"sync/atomic"

	"golang.org/x/text/unicode/norm"
)

// bpe is byte-level BPE: text is cut into pieces, a piece into bytes, and neighbours are merged, best rank
// first and leftmost among equals, until no pair has a rank.
type bpe struct {
	*table
	split step
	bytes [256]int32       // the token of each byte; -1 = none, and the byte is dropped
	words map[string]int32 // set where a whole piece may be a token whatever the merges say
	pairs *pairs
	cache *pieceCache
}

func newBPE(v *Vocab) (*bpe, error) {
	t, err := newTable(v)
	if err != nil {
		return nil, err
	}
	pre, err := preTokenizerOf(v)
	if err != nil {
		return nil, err
	}
	b := &bpe{table: t, cache: newPieceCache(), pairs: newPairs(len(v.Merges))}
	if b.split, err = pre.step(); err != nil {
		return nil, err
	}
	ids, err := b.normal()
	if err != nil {
		return nil, err
	}
	for i := range b.bytes {
		b.bytes[i] = -1
		if id, ok := ids[string([]byte{byte(i)})]; ok {
			b.bytes[i] = id
		}
	}
	for rank, m := range v.Merges {
		if err := b.pairs.learn(rank, m, func(s string) (int32, bool) {
			id, ok := ids[string(fromVisible(s))]
			return id, ok
		}); err != nil {
			return nil, err
		}
	}
	if v.IgnoreMerges || pre.ignoreMerges {
		b.words = ids
	}
	return b, nil
}

// normal fills in the pieces of normal tokens and returns the ids that merges may make, by their bytes.
// Control tokens are not among them: what a user writes never becomes one.
func (b *bpe) normal() (map[string]int32, error) {
	ids := make(map[string]int32, len(b.v.Tokens))
	for i, s := range b.v.Tokens {
		switch b.v.kind(int32(i)) {
		case TypeControl, TypeUnknown, TypeUserDefined:
			continue
		case TypeByte:
			return nil, bad("tokens[%d] is a byte token in a byte-level vocabulary", i)
		}
		raw := fromVisible(s)
		b.pieces[i] = raw
		if len(raw) == 0 || b.v.kind(int32(i)) == TypeUnused {
			continue
		}
		if first, twice := ids[string(raw)]; twice {
			return nil, bad("tokens[%d] repeats tokens[%d]", i, first)
		}
		ids[string(raw)] = int32(i)
	}
	for i, s := range b.v.Tokens {
		if _, taken := ids[s]; !taken && s != "" && b.v.kind(int32(i)) == TypeUserDefined {
			ids[s] = int32(i)
		}
	}
	return ids, nil
}

func (b *bpe) Encode(dst []int32, spans ...Span) []int32 {
	return b.encode(dst, spans, func(dst []int32, s string, _ int) []int32 {
		if b.v.NFC {
			s = norm.NFC.String(s)
		}
		b.split(s, func(piece string) { dst = b.piece(dst, piece) })
		return dst
	})
}

// piece appends the ids of one piece.
func (b *bpe) piece(dst []int32, piece string) []int32 {
	if len(piece) == 1 {
		if id := b.bytes[piece[0]]; id >= 0 {
			dst = append(dst, id)
		}
		return dst
	}
	if id, ok := b.words[piece]; ok {
		return append(dst, id)
	}
	if ids, ok := b.cache.find(piece); ok {
		return append(dst, ids...)
	}
	start := len(dst)
	for i := 0; i < len(piece); i++ {
		if id := b.bytes[piece[i]]; id >= 0 {
			dst = append(dst, id)
		}
	}
	dst = dst[:start+b.pairs.merge(dst[start:])]
	b.cache.keep(piece, dst[start:])
	return dst
}

// visibleByte is GPT-2's alphabet: each byte as a rune that can be seen. 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF
// are themselves, the others follow from U+0100 in order, so that a space is "Ġ".
var visibleByte = visibleAlphabet()

func visibleAlphabet() map[rune]byte {
	of := make(map[rune]byte, 256)
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if !(b >= 0x21 && b <= 0x7e || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			r = next
			next++
		}
		of[r] = byte(b)
	}
	return of
}

// fromVisible is the bytes that a byte-level token stands for; a token outside the alphabet stands for its
// own text.
func fromVisible(s string) []byte {
	raw := make([]byte, 0, len(s))
	for _, r := range s {
		b, ok := visibleByte[r]
		if !ok {
			return []byte(s)
		}
		raw = append(raw, b)
	}
	return raw
}

// pieceCache remembers the ids of recent pieces: a fixed number of slots, each the last piece that hashed to
// it. Any number of goroutines may use it.
type pieceCache struct {
	seed  maphash.Seed
	slots [1 << 15]atomic.Pointer[cachedPiece]
}

// cachedPiece fills a cache line and never changes once it is in a slot.
type cachedPiece struct {
	size, count uint8
	text        [maxCachedText]byte
	ids         [maxCachedIDs]int32
}

// The longest piece worth a slot, in bytes and in ids.
const (
	maxCachedText = 30
	maxCachedIDs  = 8
)

func newPieceCache() *pieceCache { return &pieceCache{seed: maphash.MakeSeed()} }

func (c *pieceCache) slot(piece string) *atomic.Pointer[cachedPiece] {
	return &c.slots[maphash.String(c.seed, piece)%uint64(len(c.slots))]
}

func (c *pieceCache) find(piece string) ([]int32, bool) {
	if len(piece) > maxCachedText {
		return nil, false
	}
	if e := c.slot(piece).Load(); e != nil && string(e.text[:e.size]) == piece {
		return e.ids[:e.count], true
	}
	return nil, false
}

func (c *pieceCache) keep(piece string, ids []int32) {
	if len(piece) > maxCachedText || len(ids) > maxCachedIDs {
		return
	}
	e := &cachedPiece{size: uint8(len(piece)), count: uint8(len(ids))}
	copy(e.text[:], piece)
	copy(e.ids[:], ids)
	c.slot(piece).Store(e)
}
