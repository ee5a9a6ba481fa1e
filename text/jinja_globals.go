package text

// namespace is what a template can change: {% set ns.x = 1 %}.
type namespace struct{ vars *dict }

// loop is the variable of that name: where a for loop stands.
type loop struct {
	items   []Value
	at      int
	changed []Value // what loop.changed saw last
}

// field returns an attribute of the loop.
func (l *loop) field(name string) (Value, bool) {
	n := len(l.items)
	switch name {
	case "index":
		return Int(int64(l.at + 1)), true
	case "index0":
		return Int(int64(l.at)), true
	case "revindex":
		return Int(int64(n - l.at)), true
	case "revindex0":
		return Int(int64(n - l.at - 1)), true
	case "first":
		return Bool(l.at == 0), true
	case "last":
		return Bool(l.at == n-1), true
	case "length":
		return Int(int64(n)), true
	case "depth":
		return Int(1), true
	case "depth0":
		return Int(0), true
	case "previtem":
		if l.at > 0 {
			return l.items[l.at-1], true
		}
		return missingValue(&missing{hint: "there is no previous item"}), true
	case "nextitem":
		if l.at+1 < n {
			return l.items[l.at+1], true
		}
		return missingValue(&missing{hint: "there is no next item"}), true
	case "cycle":
		return callableValue(name, l.cycle), true
	case "changed":
		return callableValue(name, l.differs), true
	}
	return Value{}, false
}

func (l *loop) cycle(_ *interp, a values) (Value, error) {
	if len(a.pos) == 0 {
		return Value{}, failf("no items for cycling given")
	}
	return a.pos[l.at%len(a.pos)], nil
}

// differs reports whether the arguments are not those of the call before.
func (l *loop) differs(in *interp, a values) (Value, error) {
	if l.changed != nil {
		same, err := in.equal(tupleValue(l.changed...), tupleValue(a.pos...))
		if err != nil || same {
			return Bool(false), err
		}
	}
	l.changed = append([]Value{}, a.pos...)
	return Bool(true), nil
}

var globals = map[string]Value{
	"range":           callableValue("range", globalRange),
	"dict":            callableValue("dict", globalDict),
	"namespace":       callableValue("namespace", globalNamespace),
	"raise_exception": callableValue("raise_exception", globalRaise),
	"strftime_now":    callableValue("strftime_now", globalNow),
	"joiner":          callableValue("joiner", globalJoiner),
	"cycler":          callableValue("cycler", globalCycler),
}

// maxRange is the longest range, as in the reference's sandbox.
const maxRange = 100_000

func globalRange(in *interp, a values) (Value, error) {
	if len(a.pos) == 0 || len(a.pos) > 3 || len(a.names) > 0 {
		return Value{}, failf("range takes 1 to 3 whole numbers")
	}
	bound := [3]int64{0, 0, 1}
	for i, v := range a.pos {
		n, ok := v.whole()
		if !ok {
			return Value{}, failf("'%s' object cannot be interpreted as an integer", v.typeName())
		}
		if len(a.pos) == 1 {
			i = 1
		}
		bound[i] = n
	}
	lo, hi, step := bound[0], bound[1], bound[2]
	if step == 0 {
		return Value{}, failf("range step must not be zero")
	}
	var n uint64
	switch {
	case step > 0 && hi > lo:
		n = (uint64(hi)-uint64(lo)-1)/uint64(step) + 1
	case step < 0 && lo > hi:
		n = (uint64(lo)-uint64(hi)-1)/-uint64(step) + 1
	}
	if n > maxRange {
		return Value{}, limitError("range is longer than 100000")
	}
	if err := in.chargeItems(int(n)); err != nil {
		return Value{}, err
	}
	items := make([]Value, n)
	for i := range items {
		items[i] = Int(lo + int64(i)*step)
	}
	return List(items...), nil
}

// namedDict returns the arguments of dict and namespace: a dict or pairs, and names.
func namedDict(in *interp, a values) (*dict, error) {
	d := newDict(len(a.names))
	if len(a.pos) > 1 {
		return nil, failf("dict takes at most 1 argument")
	}
	for _, v := range a.pos {
		pairs, err := in.pairs(v)
		if err != nil {
			return nil, err
		}
		for _, p := range pairs {
			if !d.set(p.items()[0], p.items()[1]) {
				return nil, failf("unhashable type: '%s'", p.items()[0].typeName())
			}
		}
	}
	for i, name := range a.names {
		d.set(String(name), a.named[i])
	}
	return d, in.charge(len(d.keys))
}

// pairs returns the entries of a dict, or of a list of pairs, as tuples.
func (in *interp) pairs(v Value) ([]Value, error) {
	if v.kind == kindDict {
		return dictItems(v.dict()), in.charge(v.size())
	}
	items, err := in.iterate(v)
	if err != nil {
		return nil, err
	}
	out := make([]Value, len(items))
	for i, it := range items {
		part, err := in.iterate(it)
		if err != nil {
			return nil, err
		}
		if len(part) != 2 {
			return nil, failf("dict entry %d has length %d; 2 is required", i, len(part))
		}
		out[i] = tupleValue(part...)
	}
	return out, in.charge(len(out))
}

func globalDict(in *interp, a values) (Value, error) {
	d, err := namedDict(in, a)
	return dictValue(d), err
}

func globalNamespace(in *interp, a values) (Value, error) {
	d, err := namedDict(in, a)
	return Value{kind: kindNamespace, ref: &namespace{d}}, err
}

// globalRaise lets a template refuse a conversation.
func globalRaise(in *interp, a values) (Value, error) {
	arg, err := a.need(1, "raise_exception", "message")
	if err != nil {
		return Value{}, err
	}
	m, err := in.str(arg[0])
	if err != nil {
		return Value{}, err
	}
	return Value{}, &TemplateError{When: ErrTemplateRaised, Why: m.s}
}

func globalNow(in *interp, a values) (Value, error) {
	arg, err := a.need(1, "strftime_now", "format")
	if err != nil {
		return Value{}, err
	}
	if !arg[0].isText() {
		return Value{}, failf("strftime_now needs a format string")
	}
	if err := in.chargeText(16 * arg[0].size()); err != nil {
		return Value{}, err
	}
	m := arg[0].text()
	return textValue(m.with(strftime(m.s, in.lim.Now()))), nil
}

// globalJoiner returns a callable that yields nothing at first, and its separator from then on.
func globalJoiner(_ *interp, a values) (Value, error) {
	arg, err := a.bind("joiner", "sep")
	if err != nil {
		return Value{}, err
	}
	sep, used := arg[0], false
	if sep.kind == kindUndefined {
		sep = String(", ")
	}
	return callableValue("joiner", func(*interp, values) (Value, error) {
		if !used {
			used = true
			return emptyText, nil
		}
		return sep, nil
	}), nil
}

// globalCycler returns a namespace whose next yields the arguments in turn.
func globalCycler(_ *interp, a values) (Value, error) {
	if len(a.pos) == 0 {
		return Value{}, failf("cycler needs at least one item")
	}
	d, at := newDict(3), 0
	show := func() { d.set(String("current"), a.pos[at]) }
	show()
	d.set(String("next"), callableValue("next", func(*interp, values) (Value, error) {
		v := a.pos[at]
		at = (at + 1) % len(a.pos)
		show()
		return v, nil
	}))
	d.set(String("reset"), callableValue("reset", func(*interp, values) (Value, error) {
		at = 0
		show()
		return None, nil
	}))
	return Value{kind: kindNamespace, ref: &namespace{d}}, nil
}
