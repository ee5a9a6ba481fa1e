package text

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of what ParseJSON reads.
const (
	maxJSONBytes   = 64 << 20
	maxJSONNesting = 128
)

// ParseJSON reads one JSON value and keeps the order of its keys; of equal keys the last value counts, at the place of the first.
// Everything in it is marked as written by a user. Whole numbers beyond 64 bits become floats, bytes that are not UTF-8 and
// surrogates without a partner become U+FFFD. The error is an ErrValue.
func ParseJSON(b []byte) (Value, error) {
	if len(b) > maxJSONBytes {
		return Value{}, fmt.Errorf("%w: larger than 64 MiB", ErrValue)
	}
	p := &jsonParser{s: string(b)}
	v, err := p.value(0)
	if err != nil {
		return Value{}, err
	}
	if p.space(); p.pos < len(p.s) {
		return Value{}, p.fail("more text behind the value")
	}
	return v, nil
}

var jsonWords = []Pair{{"true", Bool(true)}, {"false", Bool(false)}, {"null", None}}

type jsonParser struct {
	s   string
	pos int
}

func (p *jsonParser) fail(why string) error {
	return fmt.Errorf("%w: at byte %d: %s", ErrValue, p.pos, why)
}

// space skips white space and returns the byte behind it, 0 at the end.
func (p *jsonParser) space() byte {
	for ; p.pos < len(p.s); p.pos++ {
		switch c := p.s[p.pos]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (p *jsonParser) value(depth int) (Value, error) {
	if depth > maxJSONNesting {
		return Value{}, p.fail("nested too deep")
	}
	switch c := p.space(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		s, err := p.text()
		return Input(s), err
	case c == '-' || isDigit(c):
		return p.number()
	}
	for _, w := range jsonWords {
		if strings.HasPrefix(p.s[p.pos:], w.Key) {
			p.pos += len(w.Key)
			w.Value.user = true
			return w.Value, nil
		}
	}
	return Value{}, p.fail("expected a value")
}

func (p *jsonParser) array(depth int) (Value, error) {
	p.pos++
	items := []Value{}
	for p.space() != ']' || len(items) > 0 {
		v, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		items = append(items, v)
		switch p.space() {
		case ',':
			p.pos++
			continue
		case ']':
		default:
			return v, p.fail("expected , or ]")
		}
		break
	}
	p.pos++
	return Value{kind: kindList, user: true, ref: &list{items: items}}, nil
}

func (p *jsonParser) object(depth int) (Value, error) {
	p.pos++
	d := newDict(4)
	for p.space() != '}' || len(d.keys) > 0 {
		if p.space() != '"' {
			return Value{}, p.fail("expected a key")
		}
		key, err := p.text()
		if err != nil {
			return Value{}, err
		}
		if p.space() != ':' {
			return Value{}, p.fail("expected :")
		}
		p.pos++
		v, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		d.set(Input(key), v)
		switch p.space() {
		case ',':
			p.pos++
			continue
		case '}':
		default:
			return v, p.fail("expected , or }")
		}
		break
	}
	p.pos++
	return Value{kind: kindDict, user: true, ref: d}, nil
}

func (p *jsonParser) digits() bool {
	from := p.pos
	for p.pos < len(p.s) && isDigit(p.s[p.pos]) {
		p.pos++
	}
	return p.pos > from
}

func (p *jsonParser) number() (Value, error) {
	from, float := p.pos, false
	if p.s[p.pos] == '-' {
		p.pos++
	}
	zero := p.pos < len(p.s) && p.s[p.pos] == '0'
	first := p.pos
	if !p.digits() || zero && p.pos > first+1 {
		return Value{}, p.fail("bad number")
	}
	if p.pos < len(p.s) && p.s[p.pos] == '.' {
		p.pos++
		if float = true; !p.digits() {
			return Value{}, p.fail("bad number")
		}
	}
	if p.pos < len(p.s) && (p.s[p.pos] == 'e' || p.s[p.pos] == 'E') {
		p.pos++
		if p.pos < len(p.s) && (p.s[p.pos] == '+' || p.s[p.pos] == '-') {
			p.pos++
		}
		if float = true; !p.digits() {
			return Value{}, p.fail("bad number")
		}
	}
	if !float {
		if i, err := strconv.ParseInt(p.s[from:p.pos], 10, 64); err == nil {
			v := Int(i)
			v.user = true
			return v, nil
		}
	}
	f, err := strconv.ParseFloat(p.s[from:p.pos], 64)
	if err != nil {
		return Value{}, p.fail("number out of range")
	}
	v := Float(f)
	v.user = true
	return v, nil
}

// text reads a string, at its quote.
func (p *jsonParser) text() (string, error) {
	p.pos++
	from := p.pos
	for ; p.pos < len(p.s); p.pos++ {
		switch c := p.s[p.pos]; {
		case c == '"':
			p.pos++
			return p.s[from : p.pos-1], nil
		case c < 0x20:
			return "", p.fail("control character in a string")
		case c == '\\' || c >= utf8.RuneSelf:
			return p.escaped(from)
		}
	}
	return "", p.fail("string without end")
}

// escaped reads the rest of a string that started at from and needs more than a copy.
func (p *jsonParser) escaped(from int) (string, error) {
	b := append([]byte(nil), p.s[from:p.pos]...)
	for p.pos < len(p.s) {
		switch c := p.s[p.pos]; {
		case c == '"':
			p.pos++
			return string(b), nil
		case c < 0x20:
			return "", p.fail("control character in a string")
		case c == '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			b = utf8.AppendRune(b, r)
		default:
			r, n := utf8.DecodeRuneInString(p.s[p.pos:])
			b = utf8.AppendRune(b, r)
			p.pos += n
		}
	}
	return "", p.fail("string without end")
}

func (p *jsonParser) escape() (rune, error) {
	if p.pos+1 >= len(p.s) {
		return 0, p.fail("string without end")
	}
	c := p.s[p.pos+1]
	p.pos += 2
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, ok := p.hex()
		if !ok {
			return 0, p.fail("bad \\u escape")
		}
		if !utf16.IsSurrogate(r) {
			return r, nil
		}
		at := p.pos
		if len(p.s)-p.pos >= 6 && p.s[p.pos:p.pos+2] == `\u` {
			p.pos += 2
			if low, ok := p.hex(); ok {
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					return pair, nil
				}
			}
		}
		p.pos = at
		return utf8.RuneError, nil
	}
	return 0, p.fail("bad escape")
}

// hex reads four hexadecimal digits.
func (p *jsonParser) hex() (rune, bool) {
	if len(p.s)-p.pos < 4 {
		return 0, false
	}
	var r rune
	for _, c := range []byte(p.s[p.pos : p.pos+4]) {
		if !isHex(c) {
			return 0, false
		}
		d := rune(c & 0xf)
		if c > '9' {
			d += 9
		}
		r = r<<4 | d
	}
	p.pos += 4
	return r, true
}
