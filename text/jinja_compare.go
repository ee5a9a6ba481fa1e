package text

import (
	"cmp"
	"sort"
	"strings"
)

func (e *compared) eval(in *interp) (Value, error) {
	l, err := in.eval(e.first)
	if err != nil {
		return l, err
	}
	for i, op := range e.ops {
		r, err := in.eval(e.rest[i])
		if err != nil {
			return r, err
		}
		ok, err := in.compare(op, l, r)
		if err != nil || !ok {
			return Bool(false), err
		}
		l = r
	}
	return Bool(true), nil
}

func (in *interp) compare(op string, l, r Value) (bool, error) {
	switch op {
	case "==":
		return in.equal(l, r)
	case "!=":
		same, err := in.equal(l, r)
		return !same, err
	case "in":
		return in.contains(r, l)
	case "not in":
		has, err := in.contains(r, l)
		return !has, err
	}
	c, err := in.order(l, r)
	if err != nil {
		return false, err
	}
	switch op {
	case "<":
		return c == -1, nil
	case "<=":
		return c == -1 || c == 0, nil
	case ">":
		return c == 1, nil
	}
	return c == 1 || c == 0, nil
}

// equal is Python's ==: numbers by value, strings by text, containers by what they hold.
func (in *interp) equal(l, r Value) (bool, error) { return in.equalAt(l, r, 0) }

func (in *interp) equalAt(l, r Value, depth int) (bool, error) {
	if depth > maxWalkNesting {
		return false, limitError("values are nested too deep")
	}
	if x, ok := l.number(); ok {
		y, ok := r.number()
		if ok && l.kind != kindFloat && r.kind != kindFloat {
			return l.num == r.num, nil
		}
		return ok && x == y, nil
	}
	if l.kind != r.kind {
		return false, nil
	}
	if l.size() != r.size() {
		return false, nil
	}
	if err := in.chargeRead(l); err != nil {
		return false, err
	}
	switch l.kind {
	case kindUndefined, kindNone:
		return true, nil
	case kindString:
		return l.ref.(*marked).s == r.ref.(*marked).s, nil
	case kindList, kindTuple:
		a, b := l.items(), r.items()
		for i := range a {
			if same, err := in.equalAt(a[i], b[i], depth+1); err != nil || !same {
				return false, err
			}
		}
		return true, nil
	case kindDict:
		return in.equalDicts(l.dict(), r.dict(), depth)
	}
	return l.ref == r.ref, nil
}

func (in *interp) equalDicts(a, b *dict, depth int) (bool, error) {
	for i, key := range a.keys {
		k, _ := hashable(key)
		j := b.find(k)
		if j < 0 {
			return false, nil
		}
		if same, err := in.equalAt(a.vals[i], b.vals[j], depth+1); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

// contains is Python's "v in of".
func (in *interp) contains(of, v Value) (bool, error) {
	if err := in.chargeRead(of); err != nil {
		return false, err
	}
	switch of.kind {
	case kindUndefined:
		return false, nil
	case kindString:
		if !v.isText() {
			return false, failf("'in <string>' requires string as left operand, not %s", v.typeName())
		}
		return strings.Contains(of.text().s, v.text().s), nil
	case kindList, kindTuple:
		for _, it := range of.items() {
			if same, err := in.equal(it, v); err != nil || same {
				return same, err
			}
		}
		return false, nil
	case kindDict:
		k, ok := hashable(v)
		if !ok {
			return false, failf("unhashable type: '%s'", v.typeName())
		}
		return of.dict().find(k) >= 0, nil
	}
	return false, failf("argument of type '%s' is not iterable", of.typeName())
}

// unordered is what order returns for numbers without an order: NaN is neither below nor above.
const unordered = 2

// order compares l and r: -1, 0, 1 or unordered.
func (in *interp) order(l, r Value) (int, error) { return in.orderAt(l, r, 0) }

func (in *interp) orderAt(l, r Value, depth int) (int, error) {
	if depth > maxWalkNesting {
		return 0, limitError("values are nested too deep")
	}
	if err := in.charge(1); err != nil {
		return 0, err
	}
	switch {
	case l.kind == kindUndefined:
		return 0, l.undefinedError()
	case r.kind == kindUndefined:
		return 0, r.undefinedError()
	}
	if a, ok := l.whole(); ok {
		if b, ok := r.whole(); ok {
			return cmp.Compare(a, b), nil
		}
	}
	x, xOK := l.number()
	y, yOK := r.number()
	switch {
	case xOK && yOK:
		if x != x || y != y {
			return unordered, nil
		}
		return cmp.Compare(x, y), nil
	case l.isText() && r.isText():
		if err := in.charge(min(l.size(), r.size()) / bytesPerStep); err != nil {
			return 0, err
		}
		return strings.Compare(l.text().s, r.text().s), nil
	case l.isSequence() && l.kind == r.kind:
		a, b := l.items(), r.items()
		for i := range min(len(a), len(b)) {
			if same, err := in.equalAt(a[i], b[i], depth+1); err != nil {
				return 0, err
			} else if !same {
				return in.orderAt(a[i], b[i], depth+1)
			}
		}
		return cmp.Compare(len(a), len(b)), nil
	}
	return 0, failf("'<' not supported between instances of '%s' and '%s'", l.typeName(), r.typeName())
}

// sorted returns items in the order of their keys, equal ones as they stood; descending if down is true in the template.
func (in *interp) sorted(items, keys []Value, down Value) ([]Value, error) {
	at := make([]int, len(items))
	for i := range at {
		at[i] = i
	}
	var failed error
	want := -1
	if down.truth() {
		want = 1
	}
	sort.SliceStable(at, func(i, j int) bool {
		if failed != nil {
			return false
		}
		c, err := in.order(keys[at[i]], keys[at[j]])
		if err != nil {
			failed = err
		}
		return c == want
	})
	out := make([]Value, len(items))
	for i, k := range at {
		out[i] = items[k]
	}
	return out, failed
}
