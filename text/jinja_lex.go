package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// lexKind is the kind of a lexeme.
type lexKind uint8

const (
	lexEnd lexKind = iota
	lexData
	lexBlockBegin
	lexBlockEnd
	lexPrintBegin
	lexPrintEnd
	lexName
	lexString
	lexInt
	lexFloat
	lexOp
)

// lexeme is one word of a template. text is the text itself, for strings without quotes and escapes.
type lexeme struct {
	kind lexKind
	text string
	line int
}

// templateLexer cuts a template into lexemes and applies the rules for white space: a block takes the newline behind it and the
// blanks before it on its line (trim_blocks and lstrip_blocks), "-" takes all white space, "+" none.
type templateLexer struct {
	src       string
	pos       int
	line      int
	lineStart bool // the text from pos on starts a line
	out       []lexeme
}

// lexTemplate returns the lexemes of src, the last of which is lexEnd.
func lexTemplate(src string) ([]lexeme, error) {
	if strings.Contains(src, "\r") {
		src = strings.ReplaceAll(strings.ReplaceAll(src, "\r\n", "\n"), "\r", "\n")
	}
	lx := &templateLexer{src: strings.TrimSuffix(src, "\n"), line: 1, lineStart: true}
	for lx.pos < len(lx.src) {
		if err := lx.next(); err != nil {
			return nil, err
		}
	}
	lx.emit(lexEnd, "")
	return lx.out, nil
}

func (lx *templateLexer) emit(k lexKind, s string) {
	lx.out = append(lx.out, lexeme{k, s, lx.line})
}

func (lx *templateLexer) fail(why string) error { return syntaxError(lx.line, why) }

// advance moves past n bytes and counts their lines.
func (lx *templateLexer) advance(n int) {
	lx.line += strings.Count(lx.src[lx.pos:lx.pos+n], "\n")
	lx.pos += n
}

// next reads the text up to the next tag, and the tag.
func (lx *templateLexer) next() error {
	open := lx.nextTag()
	text := lx.src[lx.pos:open]
	if open == len(lx.src) {
		lx.emit(lexData, text)
		lx.advance(len(text))
		return nil
	}
	sign, n := byte(0), 2
	if open+2 < len(lx.src) && (lx.src[open+2] == '-' || lx.src[open+2] == '+') {
		sign, n = lx.src[open+2], 3
	}
	what := lx.src[open+1]
	lx.data(text, sign, what)
	lx.advance(len(text) + n)
	switch what {
	case '#':
		return lx.comment()
	case '%':
		if lx.rawBegin() {
			return lx.raw()
		}
		lx.emit(lexBlockBegin, "")
		return lx.words("%}", lexBlockEnd)
	}
	lx.emit(lexPrintBegin, "")
	return lx.words("}}", lexPrintEnd)
}

// nextTag returns the offset of the next tag, or the length of the source.
func (lx *templateLexer) nextTag() int {
	for i := lx.pos; ; i++ {
		j := strings.IndexByte(lx.src[i:], '{')
		if j < 0 || i+j+1 >= len(lx.src) {
			return len(lx.src)
		}
		i += j
		if c := lx.src[i+1]; c == '%' || c == '{' || c == '#' {
			return i
		}
	}
}

// data emits the text before a tag, stripped as the tag's sign and kind ask for.
func (lx *templateLexer) data(text string, sign, what byte) {
	switch {
	case sign == '-':
		text = strings.TrimRightFunc(text, isPythonSpace)
	case sign != '+' && what != '{':
		at := strings.LastIndexByte(text, '\n') + 1
		if (at > 0 || lx.lineStart) && strings.TrimLeftFunc(text[at:], isPythonSpace) == "" {
			text = text[:at]
		}
	}
	if text != "" {
		lx.emit(lexData, text)
	}
}

// close consumes the end of a tag at pos, its sign and the white space that it takes. It reports whether there is one.
func (lx *templateLexer) close(end string) bool {
	rest := lx.src[lx.pos:]
	n := 0
	switch {
	case strings.HasPrefix(rest, "-"+end):
		n = len(rest) - len(strings.TrimLeftFunc(rest[1+len(end):], isPythonSpace))
	case strings.HasPrefix(rest, "+"+end) && end != "}}":
		n = 1 + len(end)
	case strings.HasPrefix(rest, end):
		n = len(end)
		if end != "}}" && strings.HasPrefix(rest[n:], "\n") {
			n++
		}
	default:
		return false
	}
	lx.lineStart = rest[n-1] == '\n'
	lx.advance(n)
	return true
}

// comment skips one. As in the reference, one that begins where the source ends is none.
func (lx *templateLexer) comment() error {
	if lx.pos == len(lx.src) {
		return nil
	}
	i := strings.Index(lx.src[lx.pos:], "#}")
	if i < 0 {
		return lx.fail("comment without end")
	}
	if i > 0 && (lx.src[lx.pos+i-1] == '-' || lx.src[lx.pos+i-1] == '+') {
		i--
	}
	lx.advance(i)
	lx.close("#}")
	return nil
}

// rawBegin consumes the rest of a raw tag. A newline behind it stays.
func (lx *templateLexer) rawBegin() bool {
	rest := lx.src[lx.pos:]
	word, ok := strings.CutPrefix(strings.TrimLeftFunc(rest, isPythonSpace), "raw")
	if !ok {
		return false
	}
	tail := strings.TrimLeftFunc(word, isPythonSpace)
	switch {
	case strings.HasPrefix(tail, "-%}"):
		tail = strings.TrimLeftFunc(tail[3:], isPythonSpace)
	case strings.HasPrefix(tail, "%}"):
		tail = tail[2:]
	default:
		return false
	}
	lx.advance(len(rest) - len(tail))
	lx.lineStart = lx.src[lx.pos-1] == '\n'
	return true
}

// raw emits what stands before the endraw tag as it is.
func (lx *templateLexer) raw() error {
	if lx.pos == len(lx.src) {
		return nil
	}
	for i := lx.pos; ; {
		j := strings.Index(lx.src[i:], "{%")
		if j < 0 {
			return lx.fail("raw without endraw")
		}
		open := i + j
		at, sign := open+2, byte(0)
		if at < len(lx.src) && (lx.src[at] == '-' || lx.src[at] == '+') {
			sign = lx.src[at]
			at++
		}
		tail := strings.TrimLeftFunc(lx.src[at:], isPythonSpace)
		if word, ok := strings.CutPrefix(tail, "endraw"); ok {
			lx.data(lx.src[lx.pos:open], sign, '%')
			end := strings.TrimLeftFunc(word, isPythonSpace)
			lx.advance(len(lx.src) - len(end) - lx.pos)
			if !lx.close("%}") {
				return lx.fail("endraw takes nothing")
			}
			return nil
		}
		i = open + 2
	}
}

// words reads the lexemes of a tag up to its end, which counts only outside of brackets.
func (lx *templateLexer) words(end string, kind lexKind) error {
	start := lx.line
	var open []byte
	for {
		rest := strings.TrimLeftFunc(lx.src[lx.pos:], isPythonSpace)
		lx.advance(len(lx.src) - len(rest) - lx.pos)
		if rest == "" {
			return syntaxError(start, "tag without "+end)
		}
		if len(open) == 0 {
			line := lx.line
			if lx.close(end) {
				lx.out = append(lx.out, lexeme{kind, "", line})
				return nil
			}
		}
		var err error
		if open, err = lx.word(rest, open); err != nil {
			return err
		}
	}
}

// word reads one lexeme inside a tag. open is the stack of open brackets, which it returns as it then is.
func (lx *templateLexer) word(rest string, open []byte) ([]byte, error) {
	c := rest[0]
	r, _ := utf8.DecodeRuneInString(rest)
	switch {
	case c == '\'' || c == '"':
		return open, lx.quoted(rest)
	case c >= '0' && c <= '9':
		return open, lx.digits(rest)
	case isNameRune(r):
		n := strings.IndexFunc(rest, func(r rune) bool { return !isNameRune(r) })
		if n < 0 {
			n = len(rest)
		}
		lx.emit(lexName, rest[:n])
		lx.advance(n)
		return open, nil
	}
	op := operatorAt(rest)
	switch op {
	case "":
		return open, lx.fail("unexpected character " + quoteRune(r))
	case "(", "[", "{":
		open = append(open, c)
	case ")", "]", "}":
		if len(open) == 0 || open[len(open)-1] != map[byte]byte{')': '(', ']': '[', '}': '{'}[c] {
			return open, lx.fail("unexpected " + op)
		}
		open = open[:len(open)-1]
	}
	lx.emit(lexOp, op)
	lx.advance(len(op))
	return open, nil
}

// operatorAt returns the longest operator that s starts with.
func operatorAt(s string) string {
	if len(s) >= 2 {
		switch s[:2] {
		case "//", "**", "==", "!=", ">=", "<=":
			return s[:2]
		}
	}
	if strings.IndexByte("+-/*%~[](){}><=.:|,;", s[0]) >= 0 {
		return s[:1]
	}
	return ""
}

func isNameRune(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.Mn, r)
}

func quoteRune(r rune) string { return "'" + string(r) + "'" }
