package text

import (
	"math"
	"strings"
	"unicode/utf8"
)

// jsonWriter writes values as Python's json.dumps does. The result is input as a whole if any of it is: its shape is the user's too.
type jsonWriter struct {
	walk
	indent   string // one level of it; "" with newlines false: on one line
	newlines bool
	most     rune // above it, characters are escaped
	comma    string
	colon    string
	sorted   bool
}

// filterToJSON takes the arguments that the reference's tojson takes; HTML is not escaped.
func filterToJSON(in *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("tojson", "ensure_ascii", "indent", "separators", "sort_keys")
	if err != nil {
		return v, err
	}
	w := &jsonWriter{walk: walk{in: in}, most: utf8.MaxRune, comma: ", ", colon: ": ", sorted: arg[3].truth()}
	if arg[0].truth() {
		w.most = '~'
	}
	switch n, isN := arg[1].whole(); {
	case isN:
		if n > 64 {
			return v, limitError("indent is too wide")
		}
		w.newlines, w.indent, w.comma = true, strings.Repeat(" ", int(max(n, 0))), ","
	case arg[1].isText():
		if arg[1].size() > 64 {
			return v, limitError("indent is too wide")
		}
		w.newlines, w.indent, w.comma = true, arg[1].text().s, ","
	}
	if s := arg[2]; s.isSequence() {
		if s.size() != 2 || !s.items()[0].isText() || !s.items()[1].isText() || s.items()[0].size()+s.items()[1].size() > 64 {
			return v, failf("separators must be two short strings")
		}
		w.comma, w.colon = s.items()[0].text().s, s.items()[1].text().s
	}
	if err := w.value(v, 0); err != nil {
		return v, err
	}
	return textValue(marked{s: string(w.buf), all: w.input}), nil
}

func (w *jsonWriter) value(v Value, depth int) error {
	if err := w.enter(v, depth); err != nil {
		return err
	}
	switch v.kind {
	case kindString:
		w.buf = appendJSONText(w.buf, v.text().s, w.most)
	case kindList, kindTuple:
		return w.array(v.items(), depth)
	case kindDict:
		return w.object(v.dict(), depth)
	case kindNone, kindBool, kindInt, kindFloat:
		w.buf = append(w.buf, jsonScalar(v)...)
	default:
		return failf("object of type %s is not JSON serializable", v.typeName())
	}
	return nil
}

func jsonScalar(v Value) string {
	switch v.kind {
	case kindNone:
		return "null"
	case kindBool:
		return strings.ToLower(scalarText(v))
	case kindFloat:
		switch f := v.float(); {
		case math.IsNaN(f):
			return "NaN"
		case math.IsInf(f, 1):
			return "Infinity"
		case math.IsInf(f, -1):
			return "-Infinity"
		}
	}
	return scalarText(v)
}

func (w *jsonWriter) line(depth int) {
	if w.newlines {
		w.buf = append(w.buf, '\n')
		for range depth {
			w.buf = append(w.buf, w.indent...)
		}
	}
}

func (w *jsonWriter) array(items []Value, depth int) error {
	w.buf = append(w.buf, '[')
	for i, it := range items {
		if i > 0 {
			w.buf = append(w.buf, w.comma...)
		}
		w.line(depth + 1)
		if err := w.value(it, depth+1); err != nil {
			return err
		}
	}
	if len(items) > 0 {
		w.line(depth)
	}
	w.buf = append(w.buf, ']')
	return nil
}

func (w *jsonWriter) object(d *dict, depth int) error {
	order := make([]Value, len(d.keys))
	for i := range order {
		order[i] = Int(int64(i))
	}
	if w.sorted {
		var err error
		if order, err = w.in.sorted(order, d.keys, Value{}); err != nil {
			return err
		}
	}
	w.buf = append(w.buf, '{')
	for n, at := range order {
		if n > 0 {
			w.buf = append(w.buf, w.comma...)
		}
		w.line(depth + 1)
		key := d.keys[at.int()]
		switch key.kind {
		case kindString:
		case kindNone, kindBool, kindInt, kindFloat:
			key = String(jsonScalar(key))
		default:
			return failf("keys must be str, int, float, bool or None, not %s", key.typeName())
		}
		if err := w.value(key, depth+1); err != nil {
			return err
		}
		w.buf = append(w.buf, w.colon...)
		if err := w.value(d.vals[at.int()], depth+1); err != nil {
			return err
		}
	}
	if len(d.keys) > 0 {
		w.line(depth)
	}
	w.buf = append(w.buf, '}')
	return nil
}

const hexDigits = "0123456789abcdef"

// appendJSONText quotes s. Only quotes, backslashes and control characters are escaped, and what is above most.
func appendJSONText(b []byte, s string, most rune) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r > 0xffff && r > most:
			r -= 0x10000
			b = appendUnit(appendUnit(b, 0xd800+(r>>10)), 0xdc00+(r&0x3ff))
		case r < 0x20 || r > most:
			b = appendUnit(b, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// appendUnit writes a UTF-16 unit as \uNNNN.
func appendUnit(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
