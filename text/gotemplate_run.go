package text

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"text/template"
	"time"
)

// goTime is how long one render may take where its steps do not end it: some of them compare texts of any length.
const goTime = 10 * time.Second

// goRun is one render of a Go template: what it has written, and what it has left.
type goRun struct {
	lim   Limits
	steps int
	until time.Time
	out   strings.Builder
}

func newGoRun(lim Limits) *goRun {
	lim = lim.filled()
	return &goRun{lim: lim, steps: lim.Steps, until: time.Now().Add(goTime)}
}

// expect makes room for what a template writes of messages, if it writes each once.
func (r *goRun) expect(all []*goMessage) {
	n := 1 << 10
	for _, m := range all {
		n += len(m.Content) + 64
	}
	r.out.Grow(min(n, r.lim.Output))
}

// charge takes steps.
func (r *goRun) charge(n int) error {
	if r.steps -= n; r.steps < 0 {
		return limitError("too many steps")
	}
	if time.Now().After(r.until) {
		return limitError(fmt.Sprintf("it takes longer than %v", goTime))
	}
	return nil
}

// Write implements io.Writer for text/template.
func (r *goRun) Write(b []byte) (int, error) {
	if len(b) > r.lim.Output-r.out.Len() {
		return 0, limitError("the result is too long")
	}
	return r.out.Write(b)
}

// made takes the steps of a string that a function made.
func (r *goRun) made(s string) (string, error) {
	if len(s) > r.lim.Output {
		return "", limitError("a string is too long")
	}
	return s, r.charge(1 + len(s)/32)
}

// read takes the steps of strings that a function is about to read, which also bounds what it makes of them.
func (r *goRun) read(args []any) error {
	n := 0
	for _, a := range args {
		if s, ok := a.(string); ok {
			n += len(s)
		}
	}
	if n > r.lim.Output {
		return limitError("a string is too long")
	}
	return r.charge(1 + n/32)
}

// funcs are the functions of a run. They take the place of text/template's own of the same names wherever those make strings.
func (r *goRun) funcs() template.FuncMap {
	printer := func(print func(...any) string) func(...any) (string, error) {
		return func(args ...any) (string, error) {
			if err := r.read(args); err != nil {
				return "", err
			}
			return r.made(print(args...))
		}
	}
	// What an escaper makes of a user's text is still the user's, all of it.
	escaper := func(escape func(...any) string) func(...any) (string, error) {
		return func(args ...any) (string, error) {
			if err := r.read(args); err != nil {
				return "", err
			}
			plain, user := unmarkedAll(args)
			s := escape(plain...)
			if user || touched(s) {
				s = markInput(unmarked(s))
			}
			return r.made(s)
		}
	}
	return template.FuncMap{
		tickName:  func(n int) (string, error) { return "", r.charge(n) },
		plainName: plainValue,
		"print":   printer(fmt.Sprint), "println": printer(fmt.Sprintln), "printf": r.printf,
		"html": escaper(template.HTMLEscaper), "js": escaper(template.JSEscaper), "urlquery": escaper(template.URLQueryEscaper),
		"json": func(v any) (string, error) {
			b, err := json.Marshal(v)
			if err != nil {
				return "", err
			}
			return r.made(string(b))
		},
		"slice":         sliced,
		"call":          func(...any) (string, error) { return "", errors.New("call is not supported") },
		"currentDate":   func(...string) string { return r.lim.Now().Format(time.DateOnly) },
		"yesterdayDate": func(...string) string { return r.lim.Now().AddDate(0, 0, -1).Format(time.DateOnly) },
	}
}

// unmarkedAll is operands without marks, and whether any string had some.
func unmarkedAll(args []any) (out []any, user bool) {
	out = make([]any, len(args))
	for i, a := range args {
		if s, ok := a.(string); ok {
			user = user || touched(s)
			a = unmarked(s)
		}
		out[i] = a
	}
	return out, user
}

// printf keeps marks in their places where the format only puts texts and numbers in. What any other verb makes might hide a user's text,
// so all of it is the user's.
func (r *goRun) printf(format string, args ...any) (string, error) {
	if err := r.read(append([]any{format}, args...)); err != nil {
		return "", err
	}
	simple, err := simpleFormat(unmarked(format))
	if err != nil {
		return "", err
	}
	if simple && !touched(format) {
		return r.made(fmt.Sprintf(format, args...))
	}
	plain, _ := unmarkedAll(args)
	return r.made(markInput(unmarked(fmt.Sprintf(unmarked(format), plain...))))
}

// maxWidth bounds the widths and precisions of a format.
const maxWidth = 999

// simpleFormat reports whether a format has no verbs but %s, %v, %d, %t and %%, without flags. It refuses wide ones, and those that take
// an operand twice or a width from one.
func simpleFormat(format string) (bool, error) {
	simple := true
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		number := 0
		for i++; i < len(format) && strings.IndexByte("+-# 0123456789.*[]", format[i]) >= 0; i++ {
			simple = false
			switch c := format[i]; {
			case c == '*' || c == '[':
				return false, errors.New("printf with a width or an operand by number")
			case c >= '0' && c <= '9':
				if number = number*10 + int(c-'0'); number > maxWidth {
					return false, limitError(fmt.Sprintf("printf with a width above %d", maxWidth))
				}
			default:
				number = 0
			}
		}
		if i < len(format) && strings.IndexByte("svdt%", format[i]) < 0 {
			simple = false
		}
	}
	return simple, nil
}

// plainValue is a string without marks; other values are themselves.
func plainValue(v reflect.Value) reflect.Value {
	s := v
	for s.IsValid() && s.Kind() == reflect.Interface {
		s = s.Elem()
	}
	if s.IsValid() && s.Kind() == reflect.String && touched(s.String()) {
		return reflect.ValueOf(unmarked(s.String()))
	}
	return v
}

// sliced is text/template's slice, which counts a user's text without its marks and returns it with them.
func sliced(v reflect.Value, at ...reflect.Value) (reflect.Value, error) {
	for v.IsValid() && (v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer) {
		v = v.Elem()
	}
	if !v.IsValid() {
		return v, errors.New("slice of nothing")
	}
	user := v.Kind() == reflect.String && touched(v.String())
	if user {
		v = reflect.ValueOf(unmarked(v.String()))
	}
	if k := v.Kind(); k != reflect.String && k != reflect.Slice || len(at) > 2 {
		return v, fmt.Errorf("slice of %v with %d indexes", v.Type(), len(at))
	}
	lo, hi := 0, v.Len()
	for i, dst := range []*int{&lo, &hi}[:len(at)] {
		n := at[i]
		for n.IsValid() && n.Kind() == reflect.Interface {
			n = n.Elem()
		}
		if !n.IsValid() || !n.CanInt() {
			return v, errors.New("slice by something that is no integer")
		}
		if wide := n.Int(); wide < 0 || wide > int64(v.Len()) {
			return v, fmt.Errorf("slice of %d by %d", v.Len(), wide)
		}
		*dst = int(n.Int())
	}
	if lo > hi {
		return v, fmt.Errorf("slice from %d to %d", lo, hi)
	}
	if v = v.Slice(lo, hi); user {
		v = reflect.ValueOf(markInput(v.String()))
	}
	return v, nil
}
