package text

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// str is what printing v writes: Python's str(v).
func (in *interp) str(v Value) (marked, error) {
	switch v.kind {
	case kindString:
		return v.text(), nil
	case kindUndefined:
		return marked{}, nil
	}
	return in.repr(v)
}

// repr is Python's repr(v). What is printed of a container is input as a whole if any of it is.
func (in *interp) repr(v Value) (marked, error) {
	p := printer{walk{in: in}}
	err := p.value(v, 0)
	s := string(p.buf)
	return marked{s: s, all: p.input && s != ""}, err
}

// walk is a text being written of a value that holds others, within the limits of its rendering.
type walk struct {
	in    *interp
	buf   []byte
	input bool // something a user wrote was printed
}

// enter accounts for a value at a depth before it is written.
func (w *walk) enter(v Value, depth int) error {
	if depth > maxWalkNesting {
		return limitError("values are nested too deep")
	}
	if len(w.buf) > w.in.lim.Output {
		return limitError("text is too long")
	}
	w.input = w.input || v.written()
	return w.in.charge(1 + v.size()/bytesPerStep)
}

// printer writes values as Python shows them.
type printer struct{ walk }

func (p *printer) value(v Value, depth int) error {
	if err := p.enter(v, depth); err != nil {
		return err
	}
	switch v.kind {
	case kindUndefined:
		p.buf = append(p.buf, "Undefined"...)
	case kindString:
		if m := v.text(); m.safe {
			p.buf = append(append(append(p.buf, "Markup("...), reprText(m.s)...), ')')
		} else {
			p.buf = append(p.buf, reprText(m.s)...)
		}
	case kindList:
		return p.sequence("[", v.items(), "]", depth)
	case kindTuple:
		if v.size() == 1 {
			return p.sequence("(", v.items(), ",)", depth)
		}
		return p.sequence("(", v.items(), ")", depth)
	case kindDict:
		return p.dict("{", v.dict(), "}", depth)
	case kindNamespace:
		return p.dict("<Namespace {", v.ref.(*namespace).vars, "}>", depth)
	default:
		p.buf = append(p.buf, scalarText(v)...)
	}
	return nil
}

func (p *printer) sequence(open string, items []Value, end string, depth int) error {
	p.buf = append(p.buf, open...)
	for i, it := range items {
		if i > 0 {
			p.buf = append(p.buf, ", "...)
		}
		if err := p.value(it, depth+1); err != nil {
			return err
		}
	}
	p.buf = append(p.buf, end...)
	return nil
}

func (p *printer) dict(open string, d *dict, end string, depth int) error {
	p.buf = append(p.buf, open...)
	for i := range d.keys {
		if i > 0 {
			p.buf = append(p.buf, ", "...)
		}
		if err := p.value(d.keys[i], depth+1); err != nil {
			return err
		}
		p.buf = append(p.buf, ": "...)
		if err := p.value(d.vals[i], depth+1); err != nil {
			return err
		}
	}
	p.buf = append(p.buf, end...)
	return nil
}

// scalarText prints what is neither text nor a container.
func scalarText(v Value) string {
	switch v.kind {
	case kindNone:
		return "None"
	case kindBool:
		if v.truth() {
			return "True"
		}
		return "False"
	case kindInt:
		return formatInt(v.int())
	case kindFloat:
		return formatFloat(v.float())
	case kindLoop:
		l := v.ref.(*loop)
		return "<LoopContext " + strconv.Itoa(l.at+1) + "/" + strconv.Itoa(len(l.items)) + ">"
	}
	return "<function " + v.ref.(*callable).name + ">"
}

func formatInt(i int64) string { return strconv.FormatInt(i, 10) }

// formatFloat is Python's repr of a float: the shortest digits that read back as f.
func formatFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if strings.IndexByte(s, '.') < 0 {
		s += ".0"
	}
	return s
}

// reprText quotes s as Python's repr does.
func reprText(s string) string {
	quote := byte('\'')
	if strings.IndexByte(s, '\'') >= 0 && strings.IndexByte(s, '"') < 0 {
		quote = '"'
	}
	b := append(make([]byte, 0, len(s)+2), quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == ' ' || unicode.IsPrint(r) && !unicode.IsSpace(r):
			b = utf8.AppendRune(b, r)
		default:
			b = appendHexEscape(b, r)
		}
	}
	return string(append(b, quote))
}

// appendHexEscape writes r as \xNN, \uNNNN or \UNNNNNNNN.
func appendHexEscape(b []byte, r rune) []byte {
	letter, width := byte('x'), 2
	if r > 0xff {
		letter, width = 'u', 4
	}
	if r > 0xffff {
		letter, width = 'U', 8
	}
	hex := strconv.FormatInt(int64(r), 16)
	b = append(b, '\\', letter)
	for range width - len(hex) {
		b = append(b, '0')
	}
	return append(b, hex...)
}

// isPythonSpace is str.isspace of one code point.
func isPythonSpace(r rune) bool {
	return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f
}

// escapeMarkup replaces what HTML reads as markup.
func escapeMarkup(m marked) marked {
	out := m.mapRunes(func(r rune) string {
		switch r {
		case '&':
			return "&amp;"
		case '<':
			return "&lt;"
		case '>':
			return "&gt;"
		case '\'':
			return "&#39;"
		case '"':
			return "&#34;"
		}
		return string(r)
	})
	out.safe = true
	return out
}
