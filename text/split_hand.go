package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A step cuts text into pieces and hands each to yield; the pieces joined are the text.
type step func(s string, yield func(piece string))

// pieces makes a step of next, the length of the first piece of a text that is not empty.
func pieces(next func(s string) int) step {
	return func(s string, yield func(string)) {
		for s != "" {
			n := next(s)
			yield(s[:n])
			s = s[n:]
		}
	}
}

// isolate makes a step that cuts out what match finds and keeps what lies between whole. match is the length
// of what it finds at the start, or 0, and finds nothing at a rune that has no bit of starts.
func isolate(starts uint16, match func(s string) int) step {
	return pieces(func(s string) int {
		if n := match(s); n > 0 {
			return n
		}
		_, i := class(s, 0)
		for {
			if starts != clAny {
				i = runNot(s, i, starts)
			}
			if i >= len(s) || match(s[i:]) > 0 {
				return i
			}
			_, n := class(s, i)
			i += n
		}
	})
}

// contraction is the length of 's 't 're 've 'm 'll 'd at the start; fold is 0x20 to take capitals too, else 0.
func contraction(s string, fold byte) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	switch s[1] | fold {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(s) < 3 {
		return 0
	}
	switch string([]byte{s[1] | fold, s[2] | fold}) {
	case "re", "ve", "ll":
		return 3
	}
	return 0
}

// spaces is \s+(?!\S)|\s+ : a run of white space without its last rune, which the next piece may want,
// unless the text ends with it. The text starts with white space.
func spaces(s string) int {
	end, last := 0, 0
	for {
		c, n := class(s, end)
		if c&clSpace == 0 {
			break
		}
		last = end
		end += n
	}
	if end == len(s) || last == 0 {
		return end
	}
	return last
}

// lines is \s*[\r\n]+ : white space up to the last line end in it, or 0.
func lines(s string) int {
	i, end := 0, 0
	for {
		c, n := class(s, i)
		if c&clSpace == 0 {
			return end
		}
		i += n
		if c&clNewline != 0 {
			end = i
		}
	}
}

// nextGPT2 is 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func nextGPT2(s string) int {
	if n := contraction(s, 0); n > 0 {
		return n
	}
	i := 0
	c, n := class(s, 0)
	if s[0] == ' ' && n < len(s) {
		if c1, _ := class(s, 1); c1&clSpace == 0 {
			i, c = 1, c1
		}
	}
	switch {
	case c&clLetter != 0:
		return run(s, i, clLetter)
	case c&clNumber != 0:
		return run(s, i, clNumber)
	case c&clSpace == 0:
		return runNot(s, i, clSpace|clLetter|clNumber)
	}
	return spaces(s)
}

// words says how a tiktoken-like expression differs from its relatives.
type words struct {
	digits int    // most digits of one piece
	word   uint16 // what a word is made of: letters, or letters and marks
	trail  trail  // what punctuation takes with it
}

// trail is what follows punctuation in the same piece.
type trail int

const (
	trailLines   trail = iota // [\r\n]*
	trailSlashes              // [\r\n/]*
	trailNothing
)

// end is the end of the trail that starts at i.
func (t trail) end(s string, i int) int {
	if t == trailNothing {
		return i
	}
	for i < len(s) && (s[i] == '\n' || s[i] == '\r' || s[i] == '/' && t == trailSlashes) {
		i++
	}
	return i
}

// next is (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?W+|\p{N}{1,digits}| ?[^\s\p{N}W]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
// with W for the word class.
func (w words) next(s string) int {
	if n := contraction(s, 0x20); n > 0 {
		return n
	}
	c, n := class(s, 0)
	if c&w.word != 0 {
		return run(s, n, w.word)
	}
	if c&(clNumber|clNewline) == 0 {
		if c1, n1 := class(s, n); c1&w.word != 0 {
			return run(s, n+n1, w.word)
		}
	}
	return w.rest(s)
}

// nextCased is the expression of GPT-4o and Tekken, in which a word ends before a capital that follows a
// small letter: [^\r\n\p{L}\p{N}]?U*D+ or [^\r\n\p{L}\p{N}]?U+D*, then a contraction where tail asks for it.
func (w words) nextCased(s string, tail func(string) int) int {
	c, n := class(s, 0)
	starts := []int{0}
	if c&(clLetter|clNumber|clNewline) == 0 {
		starts = []int{n, 0}
	}
	for _, word := range []func(string, int) int{upperLower, upperOnly} {
		for _, at := range starts {
			if end := word(s, at); end > 0 {
				return end + tail(s[end:])
			}
		}
	}
	return w.rest(s)
}

// upperLower is the end of U*D+ at i, or 0.
func upperLower(s string, i int) int {
	end, back := i, 0 // back: the end of the last rune of the run that could also be a D
	for {
		c, n := class(s, end)
		if c&clUpper == 0 {
			break
		}
		end += n
		if c&clLower != 0 {
			back = end
		}
	}
	if low := run(s, end, clLower); low > end {
		return low
	}
	return back
}

// upperOnly is the end of U+D* at i, or 0.
func upperOnly(s string, i int) int {
	end := run(s, i, clUpper)
	if end == i {
		return 0
	}
	return run(s, end, clLower)
}

// rest is what the tiktoken-like expressions share: \p{N}{1,digits}| ?[^\s\p{N}W]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func (w words) rest(s string) int {
	c, n := class(s, 0)
	if c&clNumber != 0 {
		return w.numbers(s)
	}
	avoid := clSpace | clNumber | w.word
	i := 0
	if s[0] == ' ' && n < len(s) {
		if c1, _ := class(s, 1); c1&avoid == 0 {
			i, c = 1, c1
		}
	}
	if c&avoid == 0 {
		return w.trail.end(s, runNot(s, i, avoid))
	}
	if c&clSpace == 0 { // of the word class, which a word before this would have taken
		return n
	}
	if end := lines(s); end > 0 {
		return end
	}
	return spaces(s)
}

// numbers is \p{N}{1,digits} at the start, or 0.
func (w words) numbers(s string) int {
	i := 0
	for k := 0; k < w.digits; k++ {
		c, n := class(s, i)
		if c&clNumber == 0 {
			break
		}
		i += n
	}
	return i
}

// matchDeepseek3 is the last expression of DeepSeek-V3: ASCII punctuation with Latin letters, words with
// marks, punctuation and symbols, white space. Digits were cut out before.
func matchDeepseek3(s string) int {
	c, n := class(s, 0)
	if s[0] < utf8.RuneSelf && c&(clPunct|clSymbol) != 0 {
		i := 1
		for i < len(s) && (s[i]|0x20) >= 'a' && (s[i]|0x20) <= 'z' {
			i++
		}
		if i > 1 {
			return i
		}
	}
	if c&(clLetter|clMark) != 0 {
		return run(s, 0, clLetter|clMark)
	}
	c1, n1 := class(s, n)
	if c&(clNewline|clPunct|clSymbol) == 0 && c1&(clLetter|clMark) != 0 {
		return run(s, n+n1, clLetter|clMark)
	}
	i := 0
	if s[0] == ' ' && c1&(clPunct|clSymbol) != 0 {
		i, c = 1, c1
	}
	if c&(clPunct|clSymbol) != 0 {
		return run(s, run(s, i, clPunct|clSymbol), clNewline)
	}
	if c&clSpace == 0 {
		return 0
	}
	if end := lines(s); end > 0 {
		return end
	}
	return spaces(s)
}

// spacedRun makes a match of \s?X+ for the runes that have a bit of want.
func spacedRun(want uint16) func(s string) int {
	return func(s string) int {
		start := 0
		if c, n := class(s, 0); c&clSpace != 0 && c&want == 0 {
			start = n
		}
		if end := run(s, start, want); end > start {
			return end
		}
		return 0
	}
}

// plainRun makes a match of X+ .
func plainRun(want uint16) func(s string) int {
	return func(s string) int { return run(s, 0, want) }
}

// punctOr makes a match of [\p{P}...]+ for some ASCII symbols beside punctuation.
func punctOr(symbols string) func(s string) int {
	return func(s string) int {
		i := 0
		for {
			c, n := class(s, i)
			if n == 0 || c&clPunct == 0 && (n > 1 || strings.IndexByte(symbols, s[i]) < 0) {
				return i
			}
			i += n
		}
	}
}

// matchTriple is [0-9][0-9][0-9] .
func matchTriple(s string) int {
	for i := range 3 {
		if i >= len(s) || s[i] < '0' || s[i] > '9' {
			return 0
		}
	}
	return 3
}

// nextTrailing is \s+$ : the white space at the end is its own piece.
func nextTrailing(s string) int {
	i := len(s)
	for i > 0 {
		r, n := utf8.DecodeLastRuneInString(s[:i])
		if !unicode.IsSpace(r) {
			return i
		}
		i -= n
	}
	return len(s)
}

// nextLines is [^\n]+|[\n]+ .
func nextLines(s string) int {
	for i := 1; i < len(s); i++ {
		if (s[i] == '\n') != (s[0] == '\n') {
			return i
		}
	}
	return len(s)
}

var digitRuns = isolate(clNumber, plainRun(clNumber))

// stepGroups cuts out runs of digits in threes from the right: 1|234|567.
func stepGroups(s string, yield func(string)) {
	digitRuns(s, func(piece string) {
		if c, _ := class(piece, 0); c&clNumber == 0 {
			yield(piece)
			return
		}
		for left := utf8.RuneCountInString(piece); left > 0; {
			n := 0
			for range (left-1)%3 + 1 {
				_, k := utf8.DecodeRuneInString(piece[n:])
				n += k
				left--
			}
			yield(piece[:n])
			piece = piece[n:]
		}
	})
}
