package text

import (
	"strings"
	"unicode"
)

// methodOf returns the method of that name of v, nil if it has none.
func methodOf(v Value, name string) method {
	switch v.kind {
	case kindString:
		return textMethods[name]
	case kindDict:
		return dictMethods[name]
	case kindList, kindTuple:
		return listMethods[name]
	}
	return nil
}

var dictMethods = map[string]method{
	"items": func(in *interp, of Value, _ values) (Value, error) {
		return List(dictItems(of.dict())...), nil
	},
	"keys":   func(_ *interp, of Value, _ values) (Value, error) { return List(of.dict().keys...), nil },
	"values": func(_ *interp, of Value, _ values) (Value, error) { return List(of.dict().vals...), nil },
	"copy":   func(_ *interp, of Value, _ values) (Value, error) { return of, nil },
	"get": func(_ *interp, of Value, a values) (Value, error) {
		if len(a.pos) == 0 || len(a.pos) > 2 || len(a.names) > 0 {
			return Value{}, failf("get takes a key and a default")
		}
		k, ok := hashable(a.pos[0])
		if !ok {
			return Value{}, failf("unhashable type: '%s'", a.pos[0].typeName())
		}
		if i := of.dict().find(k); i >= 0 {
			return of.dict().vals[i], nil
		}
		if len(a.pos) == 2 {
			return a.pos[1], nil
		}
		return None, nil
	},
}

// dictItems returns the entries of d as tuples.
func dictItems(d *dict) []Value {
	out := make([]Value, len(d.keys))
	for i := range out {
		out[i] = tupleValue(d.keys[i], d.vals[i])
	}
	return out
}

var listMethods = map[string]method{
	"copy": func(_ *interp, of Value, _ values) (Value, error) { return of, nil },
	"count": func(in *interp, of Value, a values) (Value, error) {
		n := 0
		_, err := in.positions(of, a, func(int) { n++ })
		return Int(int64(n)), err
	},
	"index": func(in *interp, of Value, a values) (Value, error) {
		at := -1
		_, err := in.positions(of, a, func(i int) {
			if at < 0 {
				at = i
			}
		})
		if err == nil && at < 0 {
			err = failf("the value is not in the list")
		}
		return Int(int64(at)), err
	},
}

// positions calls f with each index of the argument in a list.
func (in *interp) positions(of Value, a values, f func(int)) (Value, error) {
	arg, err := a.need(1, "index", "value")
	if err != nil {
		return of, err
	}
	for i, it := range of.items() {
		same, err := in.equal(it, arg[0])
		if err != nil {
			return of, err
		}
		if same {
			f(i)
		}
	}
	return of, nil
}

// trimmed cuts from the sides named: "l", "r" or "lr". Without an argument white space goes, else the characters of it.
func trimmed(sides string) method {
	return func(in *interp, of Value, a values) (Value, error) {
		arg, err := a.bind("strip", "chars")
		if err != nil {
			return of, err
		}
		return trimText(of.text(), arg[0], sides)
	}
}

func trimText(m marked, chars Value, sides string) (Value, error) {
	cut := isPythonSpace
	switch chars.kind {
	case kindUndefined, kindNone:
	case kindString:
		set := map[rune]bool{}
		for _, r := range chars.text().s {
			set[r] = true
		}
		cut = func(r rune) bool { return set[r] }
	default:
		return Value{}, failf("strip arg must be None or str")
	}
	lo, hi := 0, len(m.s)
	if sides[0] == 'l' {
		lo = hi - len(strings.TrimLeftFunc(m.s, cut))
	}
	if sides[len(sides)-1] == 'r' {
		hi = lo + len(strings.TrimRightFunc(m.s[lo:], cut))
	}
	return textValue(m.slice(lo, hi)), nil
}

// mapped returns a method that replaces each code point.
func mapped(f func(r rune) string) method {
	return func(in *interp, of Value, a values) (Value, error) {
		if _, err := a.bind("the conversion"); err != nil {
			return of, err
		}
		if err := in.chargeText(of.size()); err != nil {
			return of, err
		}
		return textValue(of.text().mapRunes(f)), nil
	}
}

func upperRune(r rune) string {
	if r == 'ß' {
		return "SS"
	}
	return string(unicode.ToUpper(r))
}

func lowerRune(r rune) string { return string(unicode.ToLower(r)) }

func swapRune(r rune) string {
	if unicode.IsUpper(r) {
		return lowerRune(r)
	}
	return upperRune(r)
}

func textCapitalize(in *interp, of Value, a values) (Value, error) {
	first := true
	return mapped(func(r rune) string {
		if first {
			first = false
			return string(unicode.ToTitle(r))
		}
		return lowerRune(r)
	})(in, of, a)
}

// titled returns a method that starts words, which end where between says, with a capital.
func titled(between func(r rune) bool) method {
	return func(in *interp, of Value, a values) (Value, error) {
		start := true
		return mapped(func(r rune) string {
			s := lowerRune(r)
			if start {
				s = string(unicode.ToTitle(r))
			}
			start = between(r)
			return s
		})(in, of, a)
	}
}

// allRunes returns a method that asks whether a string is not empty and all of its code points are f.
func allRunes(f func(r rune) bool) method {
	return func(_ *interp, of Value, _ values) (Value, error) {
		s := of.text().s
		return Bool(s != "" && strings.IndexFunc(s, func(r rune) bool { return !f(r) }) < 0), nil
	}
}

func isLetterOrNumber(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }

// isTitle reports whether all words of s, and there are some, start with a capital and have no other.
func isTitle(s string) bool {
	inWord, some := false, false
	for _, r := range s {
		switch {
		case unicode.IsUpper(r) || unicode.IsTitle(r):
			if inWord {
				return false
			}
			inWord, some = true, true
		case unicode.IsLower(r):
			if !inWord {
				return false
			}
		default:
			inWord = false
		}
	}
	return some
}

// affix returns startswith or endswith, which take a string or a tuple of them.
func affix(name string, has func(s, part string) bool) method {
	return func(in *interp, of Value, a values) (Value, error) {
		if len(a.pos) != 1 || len(a.names) > 0 {
			return of, failf("%s takes one argument", name)
		}
		parts := a.pos
		if a.pos[0].kind == kindTuple {
			parts = a.pos[0].items()
		}
		for _, p := range parts {
			if !p.isText() {
				return of, failf("%s first arg must be str or a tuple of str, not %s", name, p.typeName())
			}
			if has(of.text().s, p.text().s) {
				return Bool(true), nil
			}
		}
		return Bool(false), nil
	}
}

func textRemovePrefix(_ *interp, of Value, a values) (Value, error) {
	part, err := a.oneText("removeprefix")
	m := of.text()
	if err != nil || !strings.HasPrefix(m.s, part.s) {
		return of, err
	}
	return textValue(m.slice(len(part.s), len(m.s))), nil
}

func textRemoveSuffix(_ *interp, of Value, a values) (Value, error) {
	part, err := a.oneText("removesuffix")
	m := of.text()
	if err != nil || !strings.HasSuffix(m.s, part.s) {
		return of, err
	}
	return textValue(m.slice(0, len(m.s)-len(part.s))), nil
}

// oneText returns the only argument, a string.
func (a values) oneText(what string) (marked, error) {
	arg, err := a.need(1, what, "arg")
	if err != nil {
		return marked{}, err
	}
	if !arg[0].isText() {
		return marked{}, failf("%s needs a str, not %s", what, arg[0].typeName())
	}
	return arg[0].text(), nil
}

// textMethods holds the methods of strings.
var textMethods = map[string]method{
	"strip":        trimmed("lr"),
	"lstrip":       trimmed("l"),
	"rstrip":       trimmed("r"),
	"upper":        mapped(upperRune),
	"lower":        mapped(lowerRune),
	"casefold":     mapped(lowerRune),
	"swapcase":     mapped(swapRune),
	"capitalize":   textCapitalize,
	"title":        titled(func(r rune) bool { return !unicode.IsLetter(r) }),
	"startswith":   affix("startswith", strings.HasPrefix),
	"endswith":     affix("endswith", strings.HasSuffix),
	"removeprefix": textRemovePrefix,
	"removesuffix": textRemoveSuffix,
	"isspace":      allRunes(isPythonSpace),
	"isalpha":      allRunes(unicode.IsLetter),
	"isalnum":      allRunes(isLetterOrNumber),
	"isdigit":      allRunes(unicode.IsDigit),
	"isdecimal":    allRunes(unicode.IsDigit),
	"isnumeric":    allRunes(unicode.IsNumber),
	"isascii": func(_ *interp, of Value, _ values) (Value, error) {
		return Bool(strings.IndexFunc(of.text().s, func(r rune) bool { return r > unicode.MaxASCII }) < 0), nil
	},
	"isupper": func(_ *interp, of Value, _ values) (Value, error) {
		return Bool(oneCase(of.text().s, unicode.IsLower, unicode.IsUpper)), nil
	},
	"istitle": func(_ *interp, of Value, _ values) (Value, error) { return Bool(isTitle(of.text().s)), nil },
	"islower": func(_ *interp, of Value, _ values) (Value, error) {
		return Bool(oneCase(of.text().s, unicode.IsUpper, unicode.IsLower)), nil
	},
	"split":      textSplit,
	"rsplit":     textRSplit,
	"splitlines": textSplitLines,
	"partition":  textPartition,
	"rpartition": textRPartition,
	"join":       textJoin,
	"replace":    textReplace,
	"find":       textFind,
	"rfind":      textRFind,
	"index":      textIndex,
	"rindex":     textRIndex,
	"count":      textCount,
	"ljust":      padded("l"),
	"rjust":      padded("r"),
	"center":     padded("c"),
	"zfill":      textZfill,
	"format":     textFormat,
}
