package text

import (
	"strings"
	"unicode"
)

// test answers "v is name(args)".
type test func(in *interp, v Value, a values) (bool, error)

func (e *tested) eval(in *interp) (Value, error) {
	v, err := in.eval(e.of)
	if err != nil {
		return v, err
	}
	if e.f == nil {
		return v, failf("no test named '%s'", e.name)
	}
	a, err := in.evalArguments(&e.args)
	if err != nil {
		return v, err
	}
	ok, err := e.f(in, v, a)
	return Bool(ok), err
}

// kinds returns a test for any of the kinds.
func kinds(ks ...valueKind) test {
	return func(_ *interp, v Value, _ values) (bool, error) {
		for _, k := range ks {
			if v.kind == k {
				return true, nil
			}
		}
		return false, nil
	}
}

// comparing returns a test that compares with its argument.
func comparing(op string) test {
	return func(in *interp, v Value, a values) (bool, error) {
		arg, err := a.need(1, op, "other")
		if err != nil {
			return false, err
		}
		return in.compare(op, v, arg[0])
	}
}

// remainder returns a test of the remainder modulo 2.
func remainder(want int64) test {
	return func(in *interp, v Value, _ values) (bool, error) {
		left, err := in.modulo(v, Int(2))
		if err != nil {
			return false, err
		}
		return in.equal(left, Int(want))
	}
}

// modulo is v % by, and like it formats if v is a string.
func (in *interp) modulo(v, by Value) (Value, error) { return in.arithmetic("%", v, by) }

func testDefined(_ *interp, v Value, _ values) (bool, error) { return v.kind != kindUndefined, nil }

func testTrue(_ *interp, v Value, _ values) (bool, error) {
	return v.kind == kindBool && v.num == 1, nil
}

func testFalse(_ *interp, v Value, _ values) (bool, error) {
	return v.kind == kindBool && v.num == 0, nil
}

func testDivisible(in *interp, v Value, a values) (bool, error) {
	arg, err := a.need(1, "divisibleby", "num")
	if err != nil {
		return false, err
	}
	left, err := in.modulo(v, arg[0])
	if err != nil {
		return false, err
	}
	return in.equal(left, Int(0))
}

func testSameAs(in *interp, v Value, a values) (bool, error) {
	arg, err := a.need(1, "sameas", "other")
	if err != nil || v.kind != arg[0].kind {
		return false, err
	}
	switch v.kind {
	case kindList, kindTuple, kindDict, kindNamespace, kindLoop, kindCallable:
		return v.ref == arg[0].ref, nil
	}
	return in.equal(v, arg[0])
}

func testLower(in *interp, v Value, _ values) (bool, error) {
	m, err := in.str(v)
	return oneCase(m.s, unicode.IsUpper, unicode.IsLower), err
}

func testUpper(in *interp, v Value, _ values) (bool, error) {
	m, err := in.str(v)
	return oneCase(m.s, unicode.IsLower, unicode.IsUpper), err
}

// oneCase reports whether s has a letter that is wanted and none that is not.
func oneCase(s string, not, want func(rune) bool) bool {
	return strings.IndexFunc(s, not) < 0 && strings.IndexFunc(s, want) >= 0
}

func testFilter(in *interp, v Value, _ values) (bool, error) {
	return v.isText() && in.filters[v.text().s] != nil, nil
}

func testTest(in *interp, v Value, _ values) (bool, error) {
	return v.isText() && in.tests[v.text().s] != nil, nil
}

func testEscaped(_ *interp, v Value, _ values) (bool, error) { return v.isText() && v.text().safe, nil }

func not(t test) test {
	return func(in *interp, v Value, a values) (bool, error) {
		ok, err := t(in, v, a)
		return !ok, err
	}
}

// testTable holds the tests. That an undefined value is iterable, callable and a sequence is the reference's answer.
var testTable = map[string]test{
	"boolean":     kinds(kindBool),
	"callable":    kinds(kindCallable, kindUndefined, kindLoop),
	"defined":     testDefined,
	"undefined":   not(testDefined),
	"divisibleby": testDivisible,
	"escaped":     testEscaped,
	"even":        remainder(0),
	"odd":         remainder(1),
	"true":        testTrue,
	"false":       testFalse,
	"filter":      testFilter,
	"test":        testTest,
	"float":       kinds(kindFloat),
	"integer":     kinds(kindInt),
	"number":      kinds(kindInt, kindFloat, kindBool),
	"string":      kinds(kindString),
	"mapping":     kinds(kindDict),
	"none":        kinds(kindNone),
	"iterable":    kinds(kindString, kindList, kindTuple, kindDict, kindUndefined, kindLoop),
	"sequence":    kinds(kindString, kindList, kindTuple, kindDict, kindUndefined),
	"sameas":      testSameAs,
	"lower":       testLower,
	"upper":       testUpper,
	"in":          comparing("in"),
	"eq":          comparing("=="),
	"==":          comparing("=="),
	"equalto":     comparing("=="),
	"ne":          comparing("!="),
	"!=":          comparing("!="),
	"lt":          comparing("<"),
	"<":           comparing("<"),
	"lessthan":    comparing("<"),
	"le":          comparing("<="),
	"<=":          comparing("<="),
	"gt":          comparing(">"),
	">":           comparing(">"),
	"greaterthan": comparing(">"),
	"ge":          comparing(">="),
	">=":          comparing(">="),
}
