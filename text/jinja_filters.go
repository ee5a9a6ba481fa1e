package text

import (
	"math"
	"strconv"
	"strings"
)

// filter computes "v | name(args)".
type filter func(in *interp, v Value, a values) (Value, error)

func (e *filtered) eval(in *interp) (Value, error) {
	v, err := in.eval(e.of)
	if err != nil {
		return v, err
	}
	if e.f == nil {
		return v, failf("no filter named '%s'", e.name)
	}
	a, err := in.evalArguments(&e.args)
	if err != nil {
		return v, err
	}
	return in.filter(e.f, v, a)
}

// filter runs f after the steps for reading its operands are taken.
func (in *interp) filter(f filter, v Value, a values) (Value, error) {
	if err := in.chargeRead(v); err != nil {
		return v, err
	}
	for _, arg := range a.pos {
		if err := in.chargeRead(arg); err != nil {
			return v, err
		}
	}
	return f(in, v, a)
}

// onText returns a filter that is a method of strings, over what its operand prints.
func onText(m method) filter {
	return func(in *interp, v Value, a values) (Value, error) {
		s, err := in.str(v)
		if err != nil {
			return v, err
		}
		return m(in, textValue(s), a)
	}
}

func filterDefault(_ *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("default", "default_value", "boolean")
	if err != nil {
		return v, err
	}
	if v.kind == kindUndefined || arg[1].truth() && !v.truth() {
		if arg[0].kind == kindUndefined && len(a.pos) == 0 && !a.has("default_value") {
			return emptyText, nil
		}
		return arg[0], nil
	}
	return v, nil
}

func filterString(in *interp, v Value, _ values) (Value, error) {
	m, err := in.str(v)
	return textValue(m), err
}

func filterSafe(in *interp, v Value, _ values) (Value, error) {
	m, err := in.str(v)
	m.safe = true
	return textValue(m), err
}

func filterEscape(in *interp, v Value, _ values) (Value, error) {
	m, err := in.str(v)
	if err != nil || m.safe {
		return textValue(m), err
	}
	if err := in.chargeText(5 * len(m.s)); err != nil {
		return v, err
	}
	return textValue(escapeMarkup(m)), nil
}

func filterForceEscape(in *interp, v Value, a values) (Value, error) {
	m, err := in.str(v)
	if err != nil {
		return v, err
	}
	m.safe = false
	return filterEscape(in, textValue(m), a)
}

// filterTitle capitalises after blanks, hyphens and opening brackets only, unlike the method of that name.
var filterTitle = onText(titled(func(r rune) bool { return isPythonSpace(r) || strings.ContainsRune("-({[<", r) }))

func filterReplace(in *interp, v Value, a values) (Value, error) {
	s, err := in.str(v)
	if err != nil {
		return v, err
	}
	arg, err := a.need(2, "replace", "old", "new", "count")
	if err != nil {
		return v, err
	}
	var part [2]marked
	for i := range part {
		if part[i], err = in.str(arg[i]); err != nil {
			return v, err
		}
	}
	most := int64(-1)
	if n, ok := arg[2].whole(); ok {
		most = n
	}
	return in.replace(s, part[0].s, part[1], most)
}

func filterFormat(in *interp, v Value, a values) (Value, error) {
	m, err := in.str(v)
	if err != nil {
		return v, err
	}
	if len(a.names) > 0 {
		d := newDict(len(a.names))
		for i, name := range a.names {
			d.set(String(name), a.named[i])
		}
		return in.formatPercent(m, dictValue(d))
	}
	return in.formatPercent(m, tupleValue(a.pos...))
}

func filterIndent(in *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("indent", "width", "first", "blank")
	if err != nil {
		return v, err
	}
	if !v.isText() {
		return v, failf("indent needs a str, not %s", v.typeName())
	}
	m := v.text()
	by := marked{s: "    "}
	if n, ok := arg[0].whole(); ok {
		spaces, err := in.pad(marked{}, "l", n, marked{s: " "})
		if err != nil {
			return v, err
		}
		by = spaces.text()
	} else if arg[0].isText() {
		by = arg[0].text()
	}
	lines := lineCuts(m.s)
	if m.s == "" || strings.HasSuffix(m.s, "\n") {
		lines = append(lines, mark{len(m.s), len(m.s)})
	}
	if len(by.s) > 0 && len(lines) > in.lim.Output/len(by.s) {
		return v, limitError("text is too long")
	}
	if err := in.chargeText(len(m.s) + len(lines)*(len(by.s)+1)); err != nil {
		return v, err
	}
	var w markedWriter
	for i, k := range lines {
		if i > 0 {
			w.text("\n")
		}
		if i == 0 && arg[1].truth() || i > 0 && (k.hi > k.lo || arg[2].truth()) {
			w.add(by)
		}
		w.add(m.slice(k.lo, k.hi))
	}
	return textValue(w.done()), nil
}

func filterTruncate(in *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("truncate", "length", "killwords", "end", "leeway")
	if err != nil {
		return v, err
	}
	if !v.isText() {
		return v, failf("truncate needs a str, not %s", v.typeName())
	}
	m := v.text()
	length, leeway, end := int64(255), int64(5), marked{s: "..."}
	if n, ok := arg[0].whole(); ok {
		length = n
	}
	if n, ok := arg[3].whole(); ok {
		leeway = n
	}
	if arg[2].isText() {
		end = arg[2].text()
	}
	chars := m.chars()
	keep := length - int64(len(end.chars()))
	switch {
	case keep < 0 || leeway < 0:
		return v, failf("truncate: the length is shorter than the end, or the leeway negative")
	case int64(len(chars)) <= length+leeway:
		return textValue(m), nil
	}
	cut := m.slice(0, byteOffset(m.s, int(keep)))
	if !arg[1].truth() {
		if i := strings.LastIndexByte(cut.s, ' '); i >= 0 {
			cut = cut.slice(0, i)
		}
	}
	return textValue(joinText(cut, end)), nil
}

func filterWordCount(in *interp, v Value, _ values) (Value, error) {
	m, err := in.str(v)
	return Int(int64(len(strings.FieldsFunc(m.s, func(r rune) bool { return !isNameRune(r) })))), err
}

func filterURLEncode(in *interp, v Value, _ values) (Value, error) {
	if v.isSequence() || v.kind == kindDict {
		return v, failf("urlencode takes text, not %s", v.typeName())
	}
	m, err := in.str(v)
	if err != nil {
		return v, err
	}
	if err := in.chargeText(3 * len(m.s)); err != nil {
		return v, err
	}
	return textValue(m.mapRunes(func(r rune) string {
		if r < 0x80 && (isDigit(byte(r)) || r|0x20 >= 'a' && r|0x20 <= 'z' || strings.ContainsRune("_.-~/", r)) {
			return string(r)
		}
		var b []byte
		for _, c := range []byte(string(r)) {
			b = append(b, '%', strings.ToUpper(hexDigits)[c>>4], strings.ToUpper(hexDigits)[c&15])
		}
		return string(b)
	})), nil
}

func filterAbs(_ *interp, v Value, _ values) (Value, error) {
	if i, ok := v.whole(); ok {
		return Int(max(i, -i)), nil
	}
	if v.kind == kindFloat {
		return Float(math.Abs(v.float())), nil
	}
	return v, failf("bad operand type for abs(): '%s'", v.typeName())
}

func filterInt(_ *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("int", "default", "base")
	switch {
	case err != nil:
		return v, err
	case v.kind == kindUndefined:
		return v, v.undefinedError()
	}
	base := int64(10)
	if n, ok := arg[1].whole(); ok {
		base = n
	}
	if i, ok := v.whole(); ok {
		return Int(i), nil
	}
	x, ok := v.number()
	if v.isText() && base >= 2 && base <= 36 {
		s := strings.TrimFunc(v.text().s, isPythonSpace)
		if prefix := map[int64]string{16: "0x", 8: "0o", 2: "0b"}[base]; prefix != "" {
			s = strings.TrimPrefix(strings.ToLower(s), prefix)
		}
		if i, err := strconv.ParseInt(s, int(base), 64); err == nil {
			return Int(i), nil
		}
		x, ok = floatOf(s)
	}
	if ok && math.Abs(x) < 1<<63 {
		return Int(int64(x)), nil
	}
	if arg[0].kind == kindUndefined {
		return Int(0), nil
	}
	return arg[0], nil
}

// floatOf reads s as Python's float does; hexadecimal floats are none.
func floatOf(s string) (float64, bool) {
	if strings.ContainsAny(s, "xX_pP") {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil || math.IsInf(f, 0)
}

func filterFloat(_ *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("float", "default")
	switch {
	case err != nil:
		return v, err
	case v.kind == kindUndefined:
		return v, v.undefinedError()
	}
	x, ok := v.number()
	if v.isText() {
		x, ok = floatOf(strings.TrimFunc(v.text().s, isPythonSpace))
	}
	switch {
	case ok:
		return Float(x), nil
	case arg[0].kind == kindUndefined:
		return Float(0), nil
	}
	return arg[0], nil
}

func filterRound(_ *interp, v Value, a values) (Value, error) {
	arg, err := a.bind("round", "precision", "method")
	if err != nil {
		return v, err
	}
	x, ok := v.number()
	digits, _ := arg[0].whole()
	if !ok || digits < -300 || digits > 300 {
		return v, failf("round needs a number and a sensible precision")
	}
	how := "common"
	if arg[1].isText() {
		how = arg[1].text().s
	}
	scale := math.Pow(10, float64(digits))
	switch how {
	case "common":
		if i, ok := v.whole(); ok && digits >= 0 {
			return Int(i), nil
		}
		if digits >= 0 {
			x, _ = strconv.ParseFloat(strconv.FormatFloat(x, 'f', int(digits), 64), 64)
			return Float(x), nil
		}
		return Float(math.RoundToEven(x*scale) / scale), nil
	case "ceil":
		return Float(math.Ceil(x*scale) / scale), nil
	case "floor":
		return Float(math.Floor(x*scale) / scale), nil
	}
	return v, failf("round: method must be common, ceil or floor")
}
