package text

import (
	"math"
	"math/bits"
	"strings"
)

func (e *negated) eval(in *interp) (Value, error) {
	v, err := in.eval(e.of)
	return Bool(!v.truth()), err
}

func (e *logical) eval(in *interp) (Value, error) {
	v, err := in.eval(e.left)
	if err != nil || v.truth() == (e.op == "or") {
		return v, err
	}
	return in.eval(e.right)
}

func (e *conditional) eval(in *interp) (Value, error) {
	v, err := in.eval(e.cond)
	switch {
	case err != nil:
		return v, err
	case v.truth():
		return in.eval(e.then)
	case e.otherwise != nil:
		return in.eval(e.otherwise)
	}
	return missingValue(&missing{hint: "the inline if has no else and its condition is false"}), nil
}

func (e *concat) eval(in *interp) (Value, error) {
	var w markedWriter
	for _, p := range e.parts {
		v, err := in.eval(p)
		if err != nil {
			return Value{}, err
		}
		m, err := in.str(v)
		if err != nil {
			return Value{}, err
		}
		if err := in.chargeText(w.size() + len(m.s)); err != nil {
			return Value{}, err
		}
		w.add(m)
	}
	return textValue(w.done()), nil
}

func (e *signed) eval(in *interp) (Value, error) {
	v, err := in.eval(e.of)
	if err != nil {
		return v, err
	}
	switch i, ok := v.whole(); {
	case ok && e.op == '+':
		return Int(i), nil
	case ok:
		return Int(-i), nil
	case v.kind == kindFloat && e.op == '+':
		return v, nil
	case v.kind == kindFloat:
		return Float(-v.float()), nil
	case v.kind == kindUndefined:
		return v, v.undefinedError()
	}
	return v, failf("bad operand type for unary %c: '%s'", e.op, v.typeName())
}

func (e *binary) eval(in *interp) (Value, error) {
	l, err := in.eval(e.left)
	if err != nil {
		return l, err
	}
	r, err := in.eval(e.right)
	if err != nil {
		return r, err
	}
	return in.arithmetic(e.op, l, r)
}

// eval adds from left to right; strings only are joined at once.
func (e *sum) eval(in *interp) (Value, error) {
	var room [8]Value
	vs := room[:0]
	texts, size := true, 0
	for _, p := range e.parts {
		v, err := in.eval(p)
		if err != nil {
			return v, err
		}
		vs = append(vs, v)
		texts = texts && v.isText() && !v.ref.(*marked).safe
		size += v.size()
	}
	if texts {
		if err := in.chargeText(size); err != nil {
			return Value{}, err
		}
		var w markedWriter
		w.b.Grow(size)
		for _, v := range vs {
			w.add(v.text())
		}
		return textValue(w.done()), nil
	}
	total := vs[0]
	for _, v := range vs[1:] {
		var err error
		if total, err = in.arithmetic("+", total, v); err != nil {
			return total, err
		}
	}
	return total, nil
}

// arithmetic is l op r.
func (in *interp) arithmetic(op string, l, r Value) (Value, error) {
	switch {
	case op == "%" && l.isText():
		return in.formatPercent(l.text(), r)
	case l.kind == kindUndefined:
		return l, l.undefinedError()
	case r.kind == kindUndefined:
		return r, r.undefinedError()
	}
	switch {
	case op == "+":
		if v, ok, err := in.joinValues(l, r); ok || err != nil {
			return v, err
		}
	case op == "*":
		if v, ok, err := in.repeat(l, r); ok || err != nil {
			return v, err
		}
	}
	a, aOK := l.whole()
	b, bOK := r.whole()
	if aOK && bOK {
		return wholeArithmetic(op, a, b)
	}
	x, xOK := l.number()
	y, yOK := r.number()
	if xOK && yOK {
		return floatArithmetic(op, x, y)
	}
	if l.isText() && op == "+" {
		return l, failf(`can only concatenate str (not "%s") to str`, r.typeName())
	}
	return l, failf("unsupported operand type(s) for %s: '%s' and '%s'", op, l.typeName(), r.typeName())
}

// joinValues is + for two strings, lists or tuples; ok is false for anything else.
func (in *interp) joinValues(l, r Value) (v Value, ok bool, err error) {
	switch {
	case l.isText() && r.isText():
		a, b := l.text(), r.text()
		if a.safe != b.safe {
			if a.safe {
				b = escapeMarkup(b)
			} else {
				a = escapeMarkup(a)
			}
		}
		if err := in.chargeText(len(a.s) + len(b.s)); err != nil {
			return v, false, err
		}
		return textValue(joinText(a, b)), true, nil
	case l.isSequence() && l.kind == r.kind:
		a, b := l.items(), r.items()
		if err := in.chargeItems(len(a) + len(b)); err != nil {
			return v, false, err
		}
		items := append(append(make([]Value, 0, len(a)+len(b)), a...), b...)
		return Value{kind: l.kind, user: l.user || r.user, ref: &list{items: items}}, true, nil
	}
	return v, false, nil
}

// joinText returns a followed by b.
func joinText(a, b marked) marked {
	switch {
	case b.s == "":
		return a
	case a.s == "":
		return b
	case a.all == b.all && len(a.in) == 0 && len(b.in) == 0:
		return marked{s: a.s + b.s, all: a.all, safe: a.safe}
	}
	var w markedWriter
	w.b.Grow(len(a.s) + len(b.s))
	w.add(a)
	w.add(b)
	m := w.done()
	m.safe = a.safe
	return m
}

// repeat is * for a string, list or tuple and a whole number, in either order.
func (in *interp) repeat(l, r Value) (v Value, ok bool, err error) {
	n, isN := r.whole()
	if !isN {
		l, r = r, l
		n, isN = r.whole()
	}
	if !isN || !l.isText() && !l.isSequence() {
		return v, false, nil
	}
	n = max(n, 0)
	hi, total := bits.Mul64(uint64(n), uint64(l.size()))
	if hi != 0 || total > math.MaxInt32 {
		return v, false, limitError("repeated too often")
	}
	if l.isText() {
		if err := in.chargeText(int(total)); err != nil {
			return v, false, err
		}
		m := l.text()
		if len(m.in) == 0 {
			return textValue(marked{s: strings.Repeat(m.s, int(n)), all: m.all, safe: m.safe}), true, nil
		}
		var w markedWriter
		for range n {
			w.add(m)
		}
		return textValue(w.done()), true, nil
	}
	if err := in.chargeItems(int(total)); err != nil {
		return v, false, err
	}
	items := make([]Value, 0, total)
	if l.size() > 0 {
		for range n {
			items = append(items, l.items()...)
		}
	}
	l.ref = &list{items: items}
	return l, true, nil
}

func wholeArithmetic(op string, a, b int64) (Value, error) {
	switch op {
	case "+":
		if c := a + b; (c > a) == (b > 0) {
			return Int(c), nil
		}
	case "-":
		if c := a - b; (c < a) == (b > 0) {
			return Int(c), nil
		}
	case "*":
		if c, ok := multiply(a, b); ok {
			return Int(c), nil
		}
	case "/":
		return floatArithmetic(op, float64(a), float64(b))
	case "//", "%":
		if b == 0 {
			return Value{}, failf("integer division or modulo by zero")
		}
		if b == -1 {
			if op == "%" {
				return Int(0), nil
			}
			return wholeArithmetic("-", 0, a)
		}
		q, r := a/b, a%b
		if r != 0 && (r < 0) != (b < 0) {
			q, r = q-1, r+b
		}
		if op == "//" {
			return Int(q), nil
		}
		return Int(r), nil
	case "**":
		if b < 0 {
			return floatArithmetic(op, float64(a), float64(b))
		}
		if c, ok := wholePower(a, b); ok {
			return Int(c), nil
		}
	}
	return Value{}, failf("the result of %d %s %d has more than 64 bits", a, op, b)
}

func multiply(a, b int64) (int64, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	c := a * b
	return c, c/b == a && !(a == -1 && b == math.MinInt64) && !(b == -1 && a == math.MinInt64)
}

func wholePower(a, b int64) (int64, bool) {
	if a == 0 || a == 1 || a == -1 {
		switch {
		case b == 0:
			return 1, true
		case a == -1 && b%2 == 0:
			return 1, true
		}
		return a, true
	}
	out := int64(1)
	for ; b > 0; b-- {
		var ok bool
		if out, ok = multiply(out, a); !ok {
			return 0, false
		}
	}
	return out, true
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

func floatArithmetic(op string, x, y float64) (Value, error) {
	switch op {
	case "+":
		return Float(x + y), nil
	case "-":
		return Float(x - y), nil
	case "*":
		return Float(x * y), nil
	case "**":
		p := math.Pow(x, y)
		if finite(x) && finite(y) && !finite(p) {
			return Value{}, failf("the result of %v ** %v is no finite number", x, y)
		}
		return Float(p), nil
	}
	if y == 0 {
		return Value{}, failf("division by zero")
	}
	switch op {
	case "/":
		return Float(x / y), nil
	case "//":
		return Float(math.Floor(x / y)), nil
	}
	m := math.Mod(x, y)
	if m != 0 && (m < 0) != (y < 0) {
		m += y
	}
	return Float(m), nil
}
