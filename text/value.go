package text

import "math"

// valueKind tells what a Value is. The zero Value is undefined, as a variable that nobody set.
type valueKind uint8

const (
	kindUndefined valueKind = iota
	kindNone
	kindBool
	kindInt
	kindFloat
	kindString
	kindList
	kindTuple
	kindDict
	kindNamespace
	kindLoop
	kindCallable
)

// Value is one value of the template language. It is immutable, except for the namespace that a template makes for itself,
// and remembers whether a user wrote it: see marked for strings and user for the rest.
type Value struct {
	kind valueKind
	user bool   // not for strings: a user wrote it, so its printed form is input
	num  uint64 // bool, int (two's complement) or the bits of a float
	ref  any    // *missing, *marked, *list, *dict, *namespace, *loop or *callable, by kind
}

// Pair is one entry of a dict.
type Pair struct {
	Key   string
	Value Value
}

// missing says what was looked up in vain, for the error that follows if the value is used.
type missing struct {
	owner string // what was looked into; "" for a variable
	name  string
	hint  string // replaces the usual message
}

// list holds the items of a list or tuple; names, if any, name those of a tuple.
type list struct {
	items []Value
	names []string
}

var (
	Undefined = Value{}               // prints as nothing; looking into it is an error
	None      = Value{kind: kindNone} // null
)

var emptyText = Value{kind: kindString, ref: &marked{}}

// String returns text that the template's author or the server wrote: special tokens in it count.
func String(s string) Value { return textValue(marked{s: s}) }

// Input returns text that a user wrote: it stays text, whatever it spells.
func Input(s string) Value { return textValue(marked{s: s, all: s != ""}) }

// Bool returns true or false.
func Bool(b bool) Value {
	v := Value{kind: kindBool}
	if b {
		v.num = 1
	}
	return v
}

// Int returns a whole number.
func Int(i int64) Value { return Value{kind: kindInt, num: uint64(i)} }

// Float returns a floating-point number.
func Float(f float64) Value { return Value{kind: kindFloat, num: math.Float64bits(f)} }

// List returns a list of vs, which it keeps.
func List(vs ...Value) Value { return Value{kind: kindList, ref: &list{items: vs}} }

// Dict returns a dict in the order of pairs; of equal keys the last value counts. The keys are the server's text.
func Dict(pairs ...Pair) Value {
	d := newDict(len(pairs))
	for _, p := range pairs {
		d.set(String(p.Key), p.Value)
	}
	return dictValue(d)
}

func tupleValue(vs ...Value) Value { return Value{kind: kindTuple, ref: &list{items: vs}} }

func dictValue(d *dict) Value { return Value{kind: kindDict, ref: d} }

func textValue(m marked) Value {
	if m.s == "" {
		return emptyText
	}
	return Value{kind: kindString, ref: &m}
}

func missingValue(m *missing) Value { return Value{ref: m} }

func (v Value) int() int64     { return int64(v.num) }
func (v Value) float() float64 { return math.Float64frombits(v.num) }
func (v Value) text() marked   { return *v.ref.(*marked) }
func (v Value) dict() *dict    { return v.ref.(*dict) }

// items returns what a list or tuple holds; not to be written to.
func (v Value) items() []Value { return v.ref.(*list).items }

func (v Value) isText() bool     { return v.kind == kindString }
func (v Value) isSequence() bool { return v.kind == kindList || v.kind == kindTuple }

// whole returns v as an integer, if it is one; true and false are 1 and 0, as in Python.
func (v Value) whole() (int64, bool) {
	return v.int(), v.kind == kindInt || v.kind == kindBool
}

// number returns v as a float, if it is a number.
func (v Value) number() (float64, bool) {
	switch v.kind {
	case kindInt, kindBool:
		return float64(v.int()), true
	case kindFloat:
		return v.float(), true
	}
	return 0, false
}

// size returns the number of entries, or of bytes of a string.
func (v Value) size() int {
	switch v.kind {
	case kindString:
		return len(v.ref.(*marked).s)
	case kindList, kindTuple:
		return len(v.items())
	case kindDict:
		return len(v.dict().keys)
	}
	return 0
}

// truth is Python's bool(v).
func (v Value) truth() bool {
	switch v.kind {
	case kindUndefined, kindNone:
		return false
	case kindBool, kindInt:
		return v.num != 0
	case kindFloat:
		return v.float() != 0
	case kindString, kindList, kindTuple, kindDict:
		return v.size() > 0
	}
	return true
}

// written reports whether a user wrote any of v itself (not of what it holds).
func (v Value) written() bool {
	if v.kind == kindString {
		return v.ref.(*marked).touched()
	}
	return v.user
}

// typeName is Python's name of v's type, for error messages.
func (v Value) typeName() string {
	switch v.kind {
	case kindUndefined:
		return "Undefined"
	case kindNone:
		return "NoneType"
	case kindBool:
		return "bool"
	case kindInt:
		return "int"
	case kindFloat:
		return "float"
	case kindString:
		return "str"
	case kindList:
		return "list"
	case kindTuple:
		return "tuple"
	case kindDict:
		return "dict"
	case kindNamespace:
		return "Namespace"
	case kindLoop:
		return "LoopContext"
	}
	return "function"
}

// dictKey is a hashable form of a key: 1, 1.0 and true are one key, as in Python.
type dictKey struct {
	kind valueKind
	num  uint64
	str  string
}

// dict is an ordered map. Small ones are searched in order, larger ones have an index.
type dict struct {
	keys  []Value
	vals  []Value
	index map[dictKey]int
}

// indexedFrom is the size from which a dict keeps an index.
const indexedFrom = 12

func newDict(n int) *dict {
	return &dict{keys: make([]Value, 0, n), vals: make([]Value, 0, n)}
}

// hashable returns the key form of v; lists and dicts have none.
func hashable(v Value) (dictKey, bool) {
	switch v.kind {
	case kindString:
		return dictKey{kind: kindString, str: v.ref.(*marked).s}, true
	case kindBool, kindInt:
		return dictKey{kind: kindInt, num: v.num}, true
	case kindFloat:
		if f := v.float(); f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return dictKey{kind: kindInt, num: uint64(int64(f))}, true
		}
		return dictKey{kind: kindFloat, num: v.num}, true
	case kindNone, kindUndefined:
		return dictKey{kind: v.kind}, true
	case kindTuple:
		return tupleKey(v.items())
	}
	return dictKey{}, false
}

// tupleKey spells out the keys of a tuple's items; tuples inside tuples are not taken as keys.
func tupleKey(items []Value) (dictKey, bool) {
	var b []byte
	for _, it := range items {
		k, ok := hashable(it)
		if !ok || k.kind == kindTuple || len(b) > 1<<16 {
			return dictKey{}, false
		}
		b = append(b, byte(k.kind))
		for i := range 8 {
			b = append(b, byte(k.num>>(8*i)), byte(len(k.str)>>(8*i)))
		}
		b = append(b, k.str...)
	}
	return dictKey{kind: kindTuple, str: string(b)}, true
}

func (d *dict) find(k dictKey) int {
	if d.index != nil {
		if i, ok := d.index[k]; ok {
			return i
		}
		return -1
	}
	for i := range d.keys {
		if own, ok := hashable(d.keys[i]); ok && own == k {
			return i
		}
	}
	return -1
}

// lookup finds the value of a text key.
func (d *dict) lookup(key string) (Value, bool) {
	if i := d.find(dictKey{kind: kindString, str: key}); i >= 0 {
		return d.vals[i], true
	}
	return Value{}, false
}

// set adds or replaces an entry while the dict is being built. It reports whether the key may be a key.
func (d *dict) set(key, val Value) bool {
	k, ok := hashable(key)
	if !ok {
		return false
	}
	if i := d.find(k); i >= 0 {
		d.vals[i] = val
		return true
	}
	d.keys, d.vals = append(d.keys, key), append(d.vals, val)
	switch {
	case d.index != nil:
		d.index[k] = len(d.keys) - 1
	case len(d.keys) == indexedFrom:
		d.index = make(map[dictKey]int, 2*indexedFrom)
		for i := range d.keys {
			own, _ := hashable(d.keys[i])
			d.index[own] = i
		}
	}
	return true
}
