package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Character classes that the pre-tokenizers' expressions speak of, as bits.
const (
	clLetter  = 1 << iota // \p{L}
	clNumber              // \p{N}
	clSpace               // \s
	clNewline             // [\r\n]
	clMark                // \p{M}
	clPunct               // \p{P}
	clSymbol              // \p{S}
	clUpper               // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
	clLower               // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
	clDeepseekLetter
	clDeepseekPunct
	clHanHangul
	clHanKana
	clAny = ^uint16(0) // all, and runes of no class
)

var classTables = []struct {
	bits  uint16
	table *unicode.RangeTable
}{
	{clLetter, unicode.L}, {clNumber, unicode.N}, {clSpace, unicode.White_Space}, {clMark, unicode.M}, {clPunct, unicode.P}, {clSymbol, unicode.S},
	{clUpper, unicode.Lu}, {clUpper, unicode.Lt}, {clUpper | clLower, unicode.Lm}, {clUpper | clLower, unicode.Lo}, {clUpper | clLower, unicode.M},
	{clLower, unicode.Ll},
}

// classes holds the bits of the basic plane, so that a rune costs one load.
var classes = buildClasses()

func buildClasses() *[1 << 16]uint16 {
	t := new([1 << 16]uint16)
	for _, c := range classTables {
		for _, r := range c.table.R16 {
			for x := int(r.Lo); x <= int(r.Hi); x += int(r.Stride) {
				t[x] |= c.bits
			}
		}
	}
	for _, c := range classSets {
		for i := 0; i+1 < len(c.set); i += 2 {
			for x := c.set[i]; x <= c.set[i+1] && x < 1<<16; x++ {
				t[x] |= c.bits
			}
		}
	}
	t['\r'] |= clNewline
	t['\n'] |= clNewline
	return t
}

func classOf(r rune) uint16 {
	if r < 1<<16 {
		return classes[r]
	}
	var bits uint16
	for _, c := range classTables {
		if unicode.Is(c.table, r) {
			bits |= c.bits
		}
	}
	for _, c := range classSets {
		if c.set.has(r) {
			bits |= c.bits
		}
	}
	return bits
}

// class is the class of the rune at s[i] and its length; (0, 0) at the end. A byte that is not UTF-8 is of
// no class, one byte long.
func class(s string, i int) (bits uint16, n int) {
	if i >= len(s) {
		return 0, 0
	}
	if c := s[i]; c < utf8.RuneSelf {
		return classes[c], 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	if r == utf8.RuneError && n == 1 {
		return 0, 1
	}
	return classOf(r), n
}

// run is the end of the longest run from i of runes that have a bit of want.
func run(s string, i int, want uint16) int {
	for {
		c, n := class(s, i)
		if c&want == 0 {
			return i
		}
		i += n
	}
}

// runNot is the end of the longest run from i of runes that have no bit of avoid.
func runNot(s string, i int, avoid uint16) int {
	for {
		c, n := class(s, i)
		if n == 0 || c&avoid != 0 {
			return i
		}
		i += n
	}
}

// Ranges of DeepSeek's expressions, which list letters and ideographs one by one.
var (
	deepseekLetters = runeSet("AZazµµÀÖØöøƺƼƿǄʓʕʯͰͳͶͷͻͽͿͿΆΆΈΊΌΌΎΡΣϵϷҁҊԯԱՖႠჅᎠᏵᏸᏽᲐᲺᲽᲿᴀᴫᵫᵷᵹᶚḀἕἘἝἠὅὈὍὐὗὙὙὛὛὝὝὟ\u1f7dᾀᾴᾶᾼ\u1fbe\u1fbeῂῄῆῌῐ\u1fd3ῖ\u1fdbῠῬῲῴῶῼ" +
		"ℂℂℇℇℊℓℕℕℙℝℤℤ\u2126\u2126ℨℨ\u212aℭℯℴℹℹℼℿⅅⅉⅎⅎↃↄⰀⱻⱾⳤⳫⳮⳲⳳꙀꙭꚀꚛꜢꝯꝱꞇꞋꞎꭰꮿﬀﬆﬓﬗＡＺａｚ𐐀𐑏𐒰𐓓𐓘𐓻𐲀𐲲𐳀𐳲𑢠𑣟𞤀𞥃")
	deepseekPunct = runeSet("!/:~！／：～‘‟　。")
	hanHangul     = runeSet("一龥ࠀ一가퟿")
	hanKana       = runeSet("一龥぀ゟ゠ヿ")
)

var classSets = []struct {
	bits uint16
	set  runeSet
}{{clDeepseekLetter, deepseekLetters}, {clDeepseekPunct, deepseekPunct}, {clHanHangul, hanHangul}, {clHanKana, hanKana}}

// runeSet is a set of runes as pairs of first and last.
type runeSet []rune

func (t runeSet) has(r rune) bool {
	for i := 0; i+1 < len(t); i += 2 {
		if t[i] <= r && r <= t[i+1] {
			return true
		}
	}
	return false
}

// class spells the set as an expression does between brackets.
func (t runeSet) class() string {
	var b strings.Builder
	for i := 0; i+1 < len(t); i += 2 {
		b.WriteRune(t[i])
		if t[i+1] != t[i] {
			b.WriteRune('-')
			b.WriteRune(t[i+1])
		}
	}
	return b.String()
}
