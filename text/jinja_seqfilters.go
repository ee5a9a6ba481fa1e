package text

import (
	"strconv"
	"strings"
)

// Filters over lists, dicts and other things with entries.

func filterLength(in *interp, v Value, _ values) (Value, error) {
	switch v.kind {
	case kindString:
		return Int(int64(len([]rune(v.text().s)))), nil
	case kindList, kindTuple, kindDict, kindUndefined:
		return Int(int64(v.size())), nil
	case kindLoop:
		return Int(int64(len(v.ref.(*loop).items))), nil
	}
	return v, failf("object of type '%s' has no len()", v.typeName())
}

func filterFirst(in *interp, v Value, _ values) (Value, error) {
	items, err := in.iterate(v)
	if err != nil || len(items) == 0 {
		return missingValue(&missing{hint: "no first item, sequence was empty"}), err
	}
	return items[0], nil
}

func filterLast(in *interp, v Value, _ values) (Value, error) {
	items, err := in.iterate(v)
	if err != nil || len(items) == 0 {
		return missingValue(&missing{hint: "no last item, sequence was empty"}), err
	}
	return items[len(items)-1], nil
}

func filterList(in *interp, v Value, _ values) (Value, error) {
	items, err := in.iterate(v)
	out := List(items...)
	out.user = v.user
	return out, err
}

func filterItems(in *interp, v Value, _ values) (Value, error) {
	switch v.kind {
	case kindUndefined:
		return List(), nil
	case kindDict:
		return List(dictItems(v.dict())...), nil
	}
	return v, failf("can only get item pairs from a mapping")
}

func filterReverse(in *interp, v Value, _ values) (Value, error) {
	items, err := in.iterate(v)
	if err != nil {
		return v, err
	}
	out := make([]Value, len(items))
	for i := range items {
		out[len(items)-1-i] = items[i]
	}
	if v.isText() {
		return in.join(marked{}, out)
	}
	return List(out...), nil
}

// path returns the value at a dotted attribute, such as "function.name" or "0".
func (in *interp) path(v Value, attr Value) (Value, error) {
	if attr.kind == kindUndefined || attr.kind == kindNone {
		return v, nil
	}
	if !attr.isText() {
		return in.item(v, attr)
	}
	for _, part := range strings.Split(attr.text().s, ".") {
		at := String(part)
		if i, err := strconv.ParseInt(part, 10, 64); err == nil {
			at = Int(i)
		}
		var err error
		if v, err = in.item(v, at); err != nil {
			return v, err
		}
	}
	return v, nil
}

// keyed returns the items of v and for each the value at attr, text in lower case unless exact holds.
func (in *interp) keyed(v, attr, exact Value) (items, keys []Value, err error) {
	if items, err = in.iterate(v); err != nil {
		return nil, nil, err
	}
	if err := in.chargeItems(len(items)); err != nil {
		return nil, nil, err
	}
	keys = make([]Value, len(items))
	for i, it := range items {
		if keys[i], err = in.path(it, attr); err != nil {
			return nil, nil, err
		}
		if keys[i].isText() && !exact.truth() {
			if err := in.chargeText(keys[i].size()); err != nil {
				return nil, nil, err
			}
			keys[i] = String(strings.ToLower(keys[i].text().s))
		}
	}
	return items, keys, nil
}

func filterSort(in *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("sort", "reverse", "case_sensitive", "attribute")
	if err != nil {
		return v, err
	}
	items, _, err := in.keyed(v, Value{}, Bool(true))
	if err != nil {
		return v, err
	}
	keys, err := in.sortKeys(items, arg[2], arg[1])
	if err != nil {
		return v, err
	}
	out, err := in.sorted(items, keys, arg[0])
	return List(out...), err
}

// sortKeys returns the keys of items at the attributes, of which there may be several with commas between them.
func (in *interp) sortKeys(items []Value, attrs, exact Value) ([]Value, error) {
	if !attrs.isText() || !strings.Contains(attrs.text().s, ",") {
		_, keys, err := in.keyed(List(items...), attrs, exact)
		return keys, err
	}
	parts := make([][]Value, len(items))
	for _, attr := range strings.Split(attrs.text().s, ",") {
		_, keys, err := in.keyed(List(items...), String(attr), exact)
		if err != nil {
			return nil, err
		}
		for i := range keys {
			parts[i] = append(parts[i], keys[i])
		}
	}
	out := make([]Value, len(items))
	for i := range out {
		out[i] = List(parts[i]...)
	}
	return out, nil
}

func filterDictSort(in *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("dictsort", "case_sensitive", "by", "reverse")
	if err != nil {
		return v, err
	}
	if v.kind != kindDict {
		return v, failf("dictsort needs a mapping, not %s", v.typeName())
	}
	at := Int(0)
	if arg[1].isText() && arg[1].text().s == "value" {
		at = Int(1)
	}
	items, keys, err := in.keyed(List(dictItems(v.dict())...), at, arg[0])
	if err != nil {
		return v, err
	}
	out, err := in.sorted(items, keys, arg[2])
	return List(out...), err
}

func filterUnique(in *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("unique", "case_sensitive", "attribute")
	if err != nil {
		return v, err
	}
	items, keys, err := in.keyed(v, arg[1], arg[0])
	if err != nil {
		return v, err
	}
	seen := map[dictKey]bool{}
	var out []Value
	for i, key := range keys {
		k, ok := hashable(key)
		if !ok {
			return v, failf("unhashable type: '%s'", key.typeName())
		}
		if !seen[k] {
			seen[k] = true
			out = append(out, items[i])
		}
	}
	return List(out...), nil
}

// extreme returns max or min: want is the order of a better item against the best so far.
func extreme(name string, want int) filter {
	return func(in *interp, v Value, a values) (Value, error) {
		arg, err := a.bind(name, "case_sensitive", "attribute")
		if err != nil {
			return v, err
		}
		items, keys, err := in.keyed(v, arg[1], arg[0])
		if err != nil {
			return v, err
		}
		if len(items) == 0 {
			return missingValue(&missing{hint: "no aggregated item, sequence was empty"}), nil
		}
		best := 0
		for i := 1; i < len(items); i++ {
			c, err := in.order(keys[i], keys[best])
			if err != nil {
				return v, err
			}
			if c == want {
				best = i
			}
		}
		return items[best], nil
	}
}

func filterSum(in *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("sum", "attribute", "start")
	if err != nil {
		return v, err
	}
	total := Int(0)
	if arg[1].kind != kindUndefined {
		total = arg[1]
	}
	items, keys, err := in.keyed(v, arg[0], Bool(true))
	if err != nil {
		return v, err
	}
	for i := range items {
		if total, err = in.arithmetic("+", total, keys[i]); err != nil {
			return v, err
		}
	}
	return total, nil
}

func filterJoin(in *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("join", "d", "attribute")
	if err != nil {
		return v, err
	}
	items, keys, err := in.keyed(v, arg[1], Bool(true))
	if err != nil {
		return v, err
	}
	sep, err := in.str(arg[0])
	if err != nil {
		return v, err
	}
	return in.join(sep, keys[:len(items)])
}

func testTruth(_ *interp, v Value, _ values) (bool, error) { return v.truth(), nil }

func filterMap(in *interp, v Value, a values) (Value, error) {
	if !v.truth() { // none too, as in the reference
		return List(), nil
	}
	items, err := in.iterate(v)
	if err != nil {
		return v, err
	}
	if err := in.chargeItems(len(items)); err != nil {
		return v, err
	}
	out := make([]Value, len(items))
	if len(a.pos) == 0 {
		arg, err := a.need(1, "map", "attribute", "default")
		if err != nil {
			return v, err
		}
		for i, it := range items {
			if out[i], err = in.path(it, arg[0]); err != nil {
				return v, err
			}
			if out[i].kind == kindUndefined && a.has("default") {
				out[i] = arg[1]
			}
		}
		return List(out...), nil
	}
	name, err := in.str(a.pos[0])
	if err != nil {
		return v, err
	}
	f := in.filters[name.s]
	if f == nil {
		return v, failf("no filter named '%s'", name.s)
	}
	a.pos = a.pos[1:]
	for i, it := range items {
		if out[i], err = in.filter(f, it, a); err != nil {
			return v, err
		}
	}
	return List(out...), nil
}

// pick returns select, reject, selectattr or rejectattr: skip arguments name an attribute, the next a test, by default truth.
// Items stay for which the test gives want.
func pick(skip int, want Value) filter {
	return func(in *interp, v Value, a values) (Value, error) {
		if !v.truth() { // none too, as in the reference
			return List(), nil
		}
		items, err := in.iterate(v)
		if err != nil {
			return v, err
		}
		var attr Value
		if skip > 0 {
			if len(a.pos) == 0 {
				return v, failf("missing parameter for attribute name")
			}
			attr = a.pos[0]
		}
		holds, args := test(testTruth), a
		args.pos = a.pos[skip:]
		if len(args.pos) > 0 {
			name, err := in.str(args.pos[0])
			if err != nil {
				return v, err
			}
			if holds = in.tests[name.s]; holds == nil {
				return v, failf("no test named '%s'", name.s)
			}
			args.pos = args.pos[1:]
		}
		var out []Value
		for _, it := range items {
			if err := in.charge(1); err != nil {
				return v, err
			}
			part, err := in.path(it, attr)
			if err != nil {
				return v, err
			}
			ok, err := holds(in, part, args)
			if err != nil {
				return v, err
			}
			if ok == want.truth() {
				out = append(out, it)
			}
		}
		return List(out...), nil
	}
}
