package text

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// digits reads a number: decimal, 0x, 0o or 0b integers, and floats; underscores may stand between digits.
func (lx *templateLexer) digits(rest string) error {
	if len(rest) > 1 && rest[0] == '0' && strings.IndexByte("xXoObB", rest[1]) >= 0 {
		n := 2
		for n < len(rest) && (isHex(rest[n]) || rest[n] == '_') {
			n++
		}
		return lx.number(rest[:n], lexInt)
	}
	kind, n := lexInt, countDigits(rest)
	if n+1 < len(rest) && rest[n] == '.' && isDigit(rest[n+1]) && !lx.afterDot() {
		kind = lexFloat
		n += 1 + countDigits(rest[n+1:])
	}
	if n < len(rest) && (rest[n] == 'e' || rest[n] == 'E') {
		at := n + 1
		if at < len(rest) && (rest[at] == '+' || rest[at] == '-') {
			at++
		}
		if k := countDigits(rest[at:]); k > 0 {
			kind, n = lexFloat, at+k
		}
	}
	return lx.number(rest[:n], kind)
}

// afterDot reports whether a dot stands before: "a.0.1" is two lookups.
func (lx *templateLexer) afterDot() bool {
	return len(lx.out) > 0 && lx.out[len(lx.out)-1].kind == lexOp && lx.out[len(lx.out)-1].text == "."
}

func (lx *templateLexer) number(s string, kind lexKind) error {
	digits := strings.ReplaceAll(s, "_", "")
	if kind == lexInt {
		base := 10
		if len(digits) > 1 && digits[0] == '0' && !isDigit(digits[1]) {
			base = 0
		}
		v, err := strconv.ParseInt(digits, base, 64)
		if err != nil {
			return lx.fail("bad integer " + s)
		}
		digits = strconv.FormatInt(v, 10)
	}
	lx.emit(kind, digits)
	lx.advance(len(s))
	return nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

// countDigits counts the leading digits and the underscores between them.
func countDigits(s string) int {
	n := 0
	for n < len(s) && (isDigit(s[n]) || s[n] == '_' && n > 0 && n+1 < len(s) && isDigit(s[n+1])) {
		n++
	}
	return n
}

// quoted reads a string literal.
func (lx *templateLexer) quoted(rest string) error {
	n := 1
	for n < len(rest) && rest[n] != rest[0] {
		if rest[n] == '\\' {
			n++
		}
		n++
	}
	if n >= len(rest) {
		return lx.fail("string without end")
	}
	s, ok := unescape(rest[1:n])
	if !ok {
		return lx.fail("bad escape in string")
	}
	lx.emit(lexString, s)
	lx.advance(n + 1)
	return nil
}

// unescape resolves Python's escapes; unknown ones stay as they are.
func unescape(s string) (string, bool) {
	if strings.IndexByte(s, '\\') < 0 {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if at := strings.IndexByte("abfnrtv\\'\"", s[i]); at >= 0 {
			b.WriteByte("\a\b\f\n\r\t\v\\'\""[at])
			continue
		}
		switch c := s[i]; c {
		case '\n':
		case 'x', 'u', 'U':
			n := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
			if i+n >= len(s) {
				return "", false
			}
			r, err := strconv.ParseUint(s[i+1:i+1+n], 16, 32)
			if err != nil || r > utf8.MaxRune {
				return "", false
			}
			b.WriteRune(rune(r))
			i += n
		case '0', '1', '2', '3', '4', '5', '6', '7':
			r, n := rune(0), 0
			for n < 3 && i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '7' {
				r = r*8 + rune(s[i+n]-'0')
				n++
			}
			b.WriteRune(r)
			i += n - 1
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String(), true
}
