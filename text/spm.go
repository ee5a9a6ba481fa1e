package text

import (
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// metaspace is how SentencePiece spells a space.
const metaspace = "▁"

// spm is SentencePiece's BPE: characters are merged into tokens, the best score first and leftmost among
// equals; characters that end in no token become byte tokens.
type spm struct {
	*table
	chars map[rune]int32 // characters that are tokens
	bytes [256]int32     // byte tokens; -1 = none
	pairs *pairs
	cuts  bool // no token has a space behind something else, so text can be cut there
	cache *pieceCache
}

// Ids of characters that are no token, while pairs are merged. They are above all ids of tokens.
const (
	strayRune = 1 << 24                      // plus the rune
	strayByte = strayRune + utf8.MaxRune + 1 // plus a byte that is not UTF-8
)

func newSPM(v *Vocab) (*spm, error) {
	t, err := newTable(v)
	if err != nil {
		return nil, err
	}
	if len(v.Scores) == 0 && len(v.Merges) == 0 {
		return nil, bad("neither scores nor merges")
	}
	s := &spm{table: t, chars: map[rune]int32{}, pairs: newPairs(len(v.Merges)), cuts: true, cache: newPieceCache()}
	ids, err := s.normal()
	if err != nil {
		return nil, err
	}
	if len(v.Merges) == 0 {
		s.pairsFromScores(ids)
		return s, nil
	}
	for rank, m := range v.Merges {
		if err := s.pairs.learn(rank, m, func(s string) (int32, bool) {
			id, ok := ids[s]
			return id, ok
		}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// normal fills in the pieces of normal and byte tokens and returns the ids that merges may make, by their
// text.
func (s *spm) normal() (map[string]int32, error) {
	for i := range s.bytes {
		s.bytes[i] = -1
	}
	ids := make(map[string]int32, len(s.v.Tokens))
	for i, text := range s.v.Tokens {
		id := int32(i)
		switch s.v.kind(id) {
		case TypeControl, TypeUnknown:
			continue
		case TypeByte:
			b, ok := byteToken(text)
			if !ok {
				return nil, bad("tokens[%d] is a byte token and reads %.20q", i, text)
			}
			if s.bytes[b] >= 0 {
				return nil, bad("tokens[%d] repeats tokens[%d]", i, s.bytes[b])
			}
			s.bytes[b] = id
			s.pieces[i] = []byte{b}
			continue
		case TypeUserDefined:
			text = strings.ReplaceAll(text, " ", metaspace)
		default:
			s.pieces[i] = []byte(strings.ReplaceAll(text, metaspace, " "))
		}
		if text == "" || s.v.kind(id) == TypeUnused {
			continue
		}
		if len(text) > maxPieceLen {
			return nil, bad("tokens[%d] has %d bytes, more than %d", i, len(text), maxPieceLen)
		}
		if first, twice := ids[text]; twice {
			if s.v.kind(id) == TypeUserDefined || s.v.kind(first) == TypeUserDefined {
				continue
			}
			return nil, bad("tokens[%d] repeats tokens[%d]", i, first)
		}
		ids[text] = id
		if r, n := utf8.DecodeRuneInString(text); n == len(text) && (r != utf8.RuneError || n > 1) {
			s.chars[r] = id
		}
		if at := strings.LastIndex(text, metaspace); at > 0 && strings.Trim(text[:at], metaspace) != "" {
			s.cuts = false
		}
	}
	return ids, nil
}

// byteToken reads "<0xNN>".
func byteToken(s string) (byte, bool) {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return 0, false
	}
	var v byte
	for _, c := range []byte(s[3:5]) {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | (c - '0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			v = v<<4 | (c | 0x20 - 'a' + 10)
		default:
			return 0, false
		}
	}
	return v, true
}

// pairsFromScores enters for each token every way to make it of two; equal scores have equal rank.
func (s *spm) pairsFromScores(ids map[string]int32) {
	scores := slices.Clone(s.v.Scores)
	slices.Sort(scores)
	scores = slices.Compact(scores)
	part := func(text string) (int32, bool) {
		if id, ok := ids[text]; ok {
			return id, true
		}
		if runeLen(text) == len(text) {
			return s.char(text), true
		}
		return 0, false
	}
	for text, id := range ids {
		at, _ := slices.BinarySearch(scores, s.v.Scores[id])
		rank := len(scores) - at
		for i := runeLen(text); i < len(text); i += runeLen(text[i:]) {
			left, okL := part(text[:i])
			right, okR := part(text[i:])
			if okL && okR {
				s.pairs.add(left, right, id, rank)
			}
		}
	}
}

// char is the id of the character at the start of text while pairs are merged.
func (s *spm) char(text string) int32 {
	r, n := utf8.DecodeRuneInString(text)
	if r == utf8.RuneError && n == 1 {
		return strayByte + int32(text[0])
	}
	if id, ok := s.chars[r]; ok {
		return id
	}
	return strayRune + r
}

func (s *spm) Encode(dst []int32, spans ...Span) []int32 {
	return s.encode(dst, spans, func(dst []int32, text string, at int) []int32 {
		if s.v.NFC {
			text = norm.NFC.String(text)
		}
		text = strings.ReplaceAll(text, " ", metaspace)
		if s.v.AddSpacePrefix && !(s.v.PrefixFirst && at > 0) && !(s.v.PrefixIfNone && strings.HasPrefix(text, metaspace)) {
			text = metaspace + text
		}
		for text != "" {
			n := s.cut(text)
			dst = s.piece(dst, text[:n])
			text = text[n:]
		}
		return dst
	})
}

// cut is where text can end so that no token reaches over: in front of a space that follows something else.
func (s *spm) cut(text string) int {
	if !s.cuts {
		return len(text)
	}
	i := 0
	for strings.HasPrefix(text[i:], metaspace) {
		i += len(metaspace)
	}
	if n := strings.Index(text[i:], metaspace); n >= 0 {
		return i + n
	}
	return len(text)
}

// piece appends the ids of one piece.
func (s *spm) piece(dst []int32, piece string) []int32 {
	if ids, ok := s.cache.find(piece); ok {
		return append(dst, ids...)
	}
	var small [2 * shortPiece]int32
	syms := small[:0]
	for i := 0; i < len(piece); i += runeLen(piece[i:]) {
		syms = append(syms, s.char(piece[i:]))
	}
	start := len(dst)
	for _, id := range syms[:s.pairs.merge(syms)] {
		dst = s.token(dst, id)
	}
	s.cache.keep(piece, dst[start:])
	return dst
}

// token appends id, or for a character that is no token its bytes, or where those lack tokens UNK.
func (s *spm) token(dst []int32, id int32) []int32 {
	if id < strayRune {
		return append(dst, id)
	}
	var raw [utf8.UTFMax]byte
	n := 1
	if id >= strayByte {
		raw[0] = byte(id - strayByte)
	} else {
		n = utf8.EncodeRune(raw[:], id-strayRune)
	}
	start := len(dst)
	for _, b := range raw[:n] {
		if s.bytes[b] < 0 {
			if dst = dst[:start]; s.v.UNK >= 0 {
				dst = append(dst, s.v.UNK)
			}
			return dst
		}
		dst = append(dst, s.bytes[b])
	}
	return dst
}

// runeLen is the length of the rune at the start of s; a byte that is not UTF-8 counts as one.
func runeLen(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}
