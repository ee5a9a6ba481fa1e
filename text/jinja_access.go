package text

import (
	"strings"
	"unicode/utf8"
)

// undefinedError is the error of using an undefined value.
func (v Value) undefinedError() error {
	m, ok := v.ref.(*missing)
	switch {
	case !ok:
		return failf("an undefined value is used")
	case m.hint != "":
		return failf("%s", m.hint)
	case m.owner != "":
		return failf("'%s' has no attribute '%s'", m.owner, m.name)
	}
	return failf("'%s' is undefined", m.name)
}

// lacks returns the undefined value of a lookup in v that found nothing.
func (v Value) lacks(name string) Value {
	owner := v.typeName() + " object"
	if v.kind == kindNone {
		owner = "None"
	}
	return missingValue(&missing{owner: owner, name: name})
}

func (e *constant) eval(*interp) (Value, error) { return e.v, nil }

func (e *variable) eval(in *interp) (Value, error) { return in.find(e.name), nil }

func (e *sequenceOf) eval(in *interp) (Value, error) {
	items := make([]Value, len(e.items))
	for i := range items {
		var err error
		if items[i], err = in.eval(e.items[i]); err != nil {
			return Value{}, err
		}
	}
	return Value{kind: e.kind, ref: &list{items: items}}, nil
}

func (e *dictOf) eval(in *interp) (Value, error) {
	d := newDict(len(e.keys))
	for i := range e.keys {
		k, err := in.eval(e.keys[i])
		if err != nil {
			return Value{}, err
		}
		v, err := in.eval(e.vals[i])
		if err != nil {
			return Value{}, err
		}
		if err := in.chargeRead(k); err != nil {
			return Value{}, err
		}
		if !d.set(k, v) {
			return Value{}, failf("unhashable type: '%s'", k.typeName())
		}
	}
	return dictValue(d), nil
}

func (e *attribute) eval(in *interp) (Value, error) {
	of, err := in.eval(e.of)
	if err != nil {
		return Value{}, err
	}
	return in.attribute(of, e.name)
}

// attribute is of.name: a method first, then an entry. Python's own attributes and whatever would change a value are unsafe: they
// read as undefined, and using that is an error.
func (in *interp) attribute(of Value, name string) (Value, error) {
	if of.kind == kindUndefined {
		return Value{}, of.undefinedError()
	}
	if strings.HasPrefix(name, "__") || changes(of.kind, name) {
		return missingValue(&missing{hint: "access to attribute '" + name + "' of '" + of.typeName() + "' object is unsafe"}), nil
	}
	if m := methodOf(of, name); m != nil {
		return callableValue(name, func(in *interp, a values) (Value, error) { return in.callMethod(m, of, a) }), nil
	}
	switch of.kind {
	case kindDict:
		if v, ok := of.dict().lookup(name); ok {
			return v, nil
		}
	case kindTuple:
		for i, own := range of.ref.(*list).names {
			if own == name {
				return of.items()[i], nil
			}
		}
	case kindNamespace:
		if v, ok := of.ref.(*namespace).vars.lookup(name); ok {
			return v, nil
		}
	case kindLoop:
		if v, ok := of.ref.(*loop).field(name); ok {
			return v, nil
		}
	case kindCallable:
		if name == "name" {
			return String(of.ref.(*callable).name), nil
		}
	}
	return of.lacks(name), nil
}

// changes reports whether name is a method of Python's that changes a value of the kind.
func changes(k valueKind, name string) bool {
	switch k {
	case kindList:
		switch name {
		case "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort":
			return true
		}
	case kindDict:
		switch name {
		case "clear", "pop", "popitem", "setdefault", "update":
			return true
		}
	}
	return false
}

func (e *subscript) eval(in *interp) (Value, error) {
	of, err := in.eval(e.of)
	if err != nil {
		return Value{}, err
	}
	at, err := in.eval(e.at)
	if err != nil {
		return Value{}, err
	}
	return in.item(of, at)
}

// item is of[at]: an entry first, then an attribute.
func (in *interp) item(of, at Value) (Value, error) {
	switch of.kind {
	case kindUndefined:
		return Value{}, of.undefinedError()
	case kindDict:
		if err := in.chargeRead(at); err != nil {
			return Value{}, err
		}
		if k, ok := hashable(at); ok {
			if i := of.dict().find(k); i >= 0 {
				return of.dict().vals[i], nil
			}
		}
	case kindList, kindTuple:
		if i, ok := at.whole(); ok {
			items := of.items()
			if i < 0 {
				i += int64(len(items))
			}
			if i >= 0 && i < int64(len(items)) {
				return items[i], nil
			}
			return of.lacksItem(at), nil
		}
	case kindString:
		if i, ok := at.whole(); ok {
			return in.charAt(of, i)
		}
	}
	if at.isText() {
		return in.attribute(of, at.text().s)
	}
	return of.lacksItem(at), nil
}

func (v Value) lacksItem(at Value) Value {
	name := at.typeName()
	if i, ok := at.whole(); ok {
		name = formatInt(i)
	}
	owner := v.typeName() + " object"
	if v.kind == kindNone {
		owner = "None"
	}
	return missingValue(&missing{hint: owner + " has no element " + name})
}

// charAt returns code point i of a string; negative ones count from the end.
func (in *interp) charAt(of Value, i int64) (Value, error) {
	m := of.text()
	if err := in.charge(len(m.s) / bytesPerStep); err != nil {
		return Value{}, err
	}
	if i < 0 {
		i += int64(utf8.RuneCountInString(m.s))
	}
	if i < 0 {
		return of.lacksItem(Int(i)), nil
	}
	for at, r := range m.s {
		if i == 0 {
			n := utf8.RuneLen(r)
			if r == utf8.RuneError {
				_, n = utf8.DecodeRuneInString(m.s[at:])
			}
			return textValue(m.slice(at, at+n)), nil
		}
		i--
	}
	return of.lacksItem(Int(i)), nil
}

func (e *slicing) eval(in *interp) (Value, error) {
	of, err := in.eval(e.of)
	if err != nil {
		return Value{}, err
	}
	var bound [3]*int64
	for i, part := range []expression{e.lo, e.hi, e.step} {
		if part == nil {
			continue
		}
		v, err := in.eval(part)
		if err != nil {
			return Value{}, err
		}
		if v.kind == kindNone {
			continue
		}
		n, ok := v.whole()
		if !ok {
			return Value{}, failf("slice indices must be integers or None, not %s", v.typeName())
		}
		bound[i] = &n
	}
	switch of.kind {
	case kindUndefined:
		return Value{}, of.undefinedError()
	case kindString:
		return in.sliceText(of.text(), bound)
	case kindList, kindTuple:
		items := of.items()
		lo, n, step, err := sliceRange(len(items), bound)
		if err != nil {
			return Value{}, err
		}
		if err := in.chargeItems(n); err != nil {
			return Value{}, err
		}
		out := of
		if step == 1 {
			out.ref = &list{items: items[lo : lo+n : lo+n]}
			return out, nil
		}
		picked := make([]Value, n)
		for i := range picked {
			picked[i] = items[lo+i*step]
		}
		out.ref = &list{items: picked}
		return out, nil
	}
	return Value{}, failf("'%s' object cannot be sliced", of.typeName())
}

// sliceText slices by code points.
func (in *interp) sliceText(m marked, bound [3]*int64) (Value, error) {
	if err := in.charge(len(m.s) / bytesPerStep); err != nil {
		return Value{}, err
	}
	size := utf8.RuneCountInString(m.s)
	lo, n, step, err := sliceRange(size, bound)
	if err != nil || n == 0 {
		return emptyText, err
	}
	if step == 1 {
		from := byteOffset(m.s, lo)
		return textValue(m.slice(from, from+byteOffset(m.s[from:], n))), nil
	}
	if err := in.chargeItems(size); err != nil {
		return Value{}, err
	}
	chars := m.chars()
	var w markedWriter
	for i := range n {
		w.add(chars[lo+i*step])
	}
	return textValue(w.done()), nil
}

// byteOffset returns where code point n of s starts.
func byteOffset(s string, n int) int {
	for at := range s {
		if n == 0 {
			return at
		}
		n--
	}
	return len(s)
}

// sliceRange resolves a slice of size entries as Python does: n entries from lo, step apart.
func sliceRange(size int, bound [3]*int64) (lo, n, step int, err error) {
	wide := int64(1)
	if bound[2] != nil {
		wide = *bound[2]
	}
	if wide == 0 {
		return 0, 0, 0, failf("slice step cannot be zero")
	}
	wide = max(min(wide, int64(size)+1), -int64(size)-1)
	step = int(wide)
	least, most := 0, size
	if step < 0 {
		least, most = -1, size-1
	}
	clamp := func(p *int64, otherwise int) int {
		if p == nil {
			return otherwise
		}
		i := *p
		if i < 0 {
			i += int64(size)
		}
		return int(max(min(i, int64(most)), int64(least)))
	}
	if step > 0 {
		lo = clamp(bound[0], 0)
		hi := clamp(bound[1], size)
		return lo, max(0, (hi-lo+step-1)/step), step, nil
	}
	lo = clamp(bound[0], most)
	hi := clamp(bound[1], least)
	return lo, max(0, (lo-hi-step-1)/-step), step, nil
}

// iterate returns what a loop over v visits.
func (in *interp) iterate(v Value) ([]Value, error) {
	switch v.kind {
	case kindUndefined:
		return nil, nil
	case kindList, kindTuple:
		return v.items(), nil
	case kindDict:
		return v.dict().keys, nil
	case kindString:
		if err := in.chargeItems(v.size()); err != nil {
			return nil, err
		}
		chars := v.text().chars()
		out := make([]Value, len(chars))
		for i, c := range chars {
			out[i] = textValue(c)
		}
		return out, nil
	}
	return nil, failf("'%s' object is not iterable", v.typeName())
}
