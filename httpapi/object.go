package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf8"
)

// mostDepth is how deep a body's arrays and objects may nest.
const mostDepth = 128

// object reads the fields of a JSON object by name; null counts as absent, of a repeated field the last counts. The first failure
// sticks, in an object and those inside it, so that a request is read down without looking back.
type object struct {
	path   string // where it is: "" or "messages[0]."
	fields map[string]json.RawMessage
	seen   map[string]bool // fields that somebody asked for
	first  *error          // the first failure
}

// parseObject reads a body that must be one JSON object.
func parseObject(body []byte) (*object, error) {
	malformed := func(format string, args ...any) error {
		return &fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeJSON, Message: fmt.Sprintf(format, args...)}
	}
	if !utf8.Valid(body) {
		return nil, malformed("the body is not UTF-8")
	}
	if tooDeep(body) {
		return nil, malformed("the body nests deeper than %d", mostDepth)
	}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, malformed("the body is not a JSON object")
	}
	o := &object{seen: map[string]bool{}, first: new(error)}
	if err := json.Unmarshal(body, &o.fields); err != nil {
		return nil, malformed("the body is not JSON: %v", err)
	}
	return o, nil
}

// tooDeep looks at brackets outside strings, which is enough for JSON and harmless for what is not.
func tooDeep(body []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > mostDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

func (o *object) err() error { return *o.first }

func (o *object) fail(err error) {
	if *o.first == nil {
		*o.first = err
	}
}

// bad says what a field should hold.
func (o *object) bad(name, format string, args ...any) {
	o.fail(badValue(o.path+name, format, args...))
}

// raw is a field as it was sent; nil when it is absent or null.
func (o *object) raw(name string) json.RawMessage {
	o.seen[name] = true
	if v := o.fields[name]; string(v) != "null" {
		return v
	}
	return nil
}

// unseen lists the fields that nobody asked for, in alphabetical order.
func (o *object) unseen() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(o.fields)) {
		if !o.seen[name] {
			out = append(out, name)
		}
	}
	return out
}

// decoded reads a field as the one type it may have; nil when it is absent or of another type, which fails.
func decoded[T any](o *object, name, want string) *T {
	raw := o.raw(name)
	if raw == nil {
		return nil
	}
	v := new(T)
	if err := json.Unmarshal(raw, v); err != nil {
		o.bad(name, "must be %s", want)
		return nil
	}
	return v
}

func (o *object) text(name string) *string { return decoded[string](o, name, "a string") }

// flag is a boolean; absent is false.
func (o *object) flag(name string) bool {
	v := decoded[bool](o, name, "true or false")
	return v != nil && *v
}

// list is an array; nil when it is absent. An empty one is not nil.
func (o *object) list(name string) []json.RawMessage {
	v := decoded[[]json.RawMessage](o, name, "an array")
	if v == nil {
		return nil
	}
	return *v
}

// inner is an object inside; nil when it is absent.
func (o *object) inner(name string) *object {
	raw := o.raw(name)
	if raw == nil {
		return nil
	}
	return o.child(name, raw)
}

// child reads an object that lies at name inside o; nil when it is none, which fails.
func (o *object) child(name string, raw json.RawMessage) *object {
	c := &object{path: o.path + name + ".", seen: map[string]bool{}, first: o.first}
	if err := json.Unmarshal(raw, &c.fields); err != nil || c.fields == nil {
		o.bad(name, "must be an object")
		return nil
	}
	return c
}

// integer is a whole number from least to most.
func (o *object) integer(name string, least, most int64) *int64 {
	raw := o.raw(name)
	if raw == nil {
		return nil
	}
	v, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		f, ferr := strconv.ParseFloat(string(raw), 64)
		switch {
		case ferr == nil && f == math.Trunc(f) && math.Abs(f) <= 1<<53 && isNumber(raw):
			v = int64(f)
		case isNumber(raw) && (ferr != nil || f == math.Trunc(f)):
			o.bad(name, "must be from %d to %d", least, most)
			return nil
		default:
			o.bad(name, "must be an integer")
			return nil
		}
	}
	if v < least || v > most {
		o.bad(name, "must be from %d to %d", least, most)
		return nil
	}
	return &v
}

// number is a number from least to most.
func (o *object) number(name string, least, most float64) *float32 {
	raw := o.raw(name)
	if raw == nil {
		return nil
	}
	if !isNumber(raw) {
		o.bad(name, "must be a number")
		return nil
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || v < least || v > most {
		o.bad(name, "must be from %v to %v", least, most)
		return nil
	}
	return new(float32(v))
}

// isNumber tells a number among values that are known to be JSON.
func isNumber(raw json.RawMessage) bool {
	return len(raw) > 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9')
}
