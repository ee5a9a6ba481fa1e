package text

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// formatSpec is how one value is to be shown, by % or by str.format.
type formatSpec struct {
	fill    marked
	align   byte // '<', '>', '^', '=' or 0 for the kind's own
	sign    byte // '+', ' ' or 0
	alt     bool
	comma   bool
	width   int64
	prec    int64 // -1: none
	verb    byte  // 0: the kind's own
	percent bool  // the rules of %, not of str.format
}

// maxPrecision is the most digits behind the point.
const maxPrecision = 1000

func isOneOf(c byte, set string) bool { return strings.IndexByte(set, c) >= 0 }

// count reads digits at i; -1 if there are none.
func count(s string, i int) (n int64, next int) {
	from := i
	for i < len(s) && isDigit(s[i]) && i-from < 10 {
		n = n*10 + int64(s[i]-'0')
		i++
	}
	if i == from {
		return -1, i
	}
	return n, i
}

// formatPercent is Python's m % arg.
func (in *interp) formatPercent(m marked, arg Value) (Value, error) {
	args := []Value{arg}
	if arg.kind == kindTuple {
		args = arg.items()
	}
	var w markedWriter
	at, used := 0, 0
	for {
		i := strings.IndexByte(m.s[at:], '%')
		if i < 0 {
			break
		}
		w.add(m.slice(at, at+i))
		f, key, next, err := percentSpec(m.s, at+i+1)
		if err != nil {
			return Value{}, err
		}
		at = next
		if f.verb == '%' {
			w.text("%")
			continue
		}
		var v Value
		switch {
		case key != nil:
			if arg.kind != kindDict {
				return Value{}, failf("format requires a mapping")
			}
			var ok bool
			if v, ok = arg.dict().lookup(*key); !ok {
				return Value{}, failf("no entry %s", reprText(*key))
			}
			used = len(args)
		case used >= len(args):
			return Value{}, failf("not enough arguments for format string")
		default:
			v = args[used]
			used++
		}
		if err := in.addFormatted(&w, v, f); err != nil {
			return Value{}, err
		}
	}
	if used < len(args) && arg.kind != kindDict && arg.kind != kindList && arg.kind != kindUndefined {
		return Value{}, failf("not all arguments converted during string formatting")
	}
	w.add(m.slice(at, len(m.s)))
	return textValue(w.done()), in.chargeText(w.size())
}

// percentSpec reads what follows a percent sign.
func percentSpec(s string, i int) (f formatSpec, key *string, next int, err error) {
	f = formatSpec{percent: true, fill: marked{s: " "}, align: '>', prec: -1}
	if i < len(s) && s[i] == '(' {
		end := strings.IndexByte(s[i:], ')')
		if end < 0 {
			return f, nil, i, failf("incomplete format key")
		}
		name := s[i+1 : i+end]
		key, i = &name, i+end+1
	}
	for ; i < len(s) && isOneOf(s[i], "-+ #0"); i++ {
		switch s[i] {
		case '-':
			f.align, f.fill = '<', marked{s: " "}
		case '0':
			if f.align == '>' {
				f.align, f.fill = '=', marked{s: "0"}
			}
		case '#':
			f.alt = true
		default:
			f.sign = s[i]
		}
	}
	f.width, i = count(s, i)
	if i < len(s) && s[i] == '.' {
		if f.prec, i = count(s, i+1); f.prec < 0 {
			f.prec = 0
		}
	}
	if i >= len(s) {
		return f, nil, i, failf("incomplete format")
	}
	f.verb = s[i]
	if f.verb == 'i' || f.verb == 'u' {
		f.verb = 'd'
	}
	if !isOneOf(f.verb, "%sradxXoeEfFgGc") {
		return f, nil, i, failf("unsupported format character '%c'", f.verb)
	}
	return f, key, i + 1, nil
}

// textFormat is str.format with positions and names; looking into a value there is not supported.
func textFormat(in *interp, of Value, a values) (Value, error) {
	m := of.text()
	var w markedWriter
	auto := 0
	for at := 0; at < len(m.s); {
		i := strings.IndexAny(m.s[at:], "{}")
		if i < 0 {
			w.add(m.slice(at, len(m.s)))
			break
		}
		w.add(m.slice(at, at+i))
		at += i
		if at+1 < len(m.s) && m.s[at+1] == m.s[at] {
			w.add(m.slice(at, at+1))
			at += 2
			continue
		}
		end := strings.IndexByte(m.s[at:], '}')
		if m.s[at] == '}' || end < 0 {
			return of, failf("single '%c' encountered in format string", m.s[at])
		}
		field, spec, _ := strings.Cut(m.s[at+1:at+end], ":")
		at += end + 1
		if err := in.addField(&w, field, spec, fieldArgs{a, &auto}); err != nil {
			return of, err
		}
	}
	return textValue(w.done()), in.chargeText(w.size())
}

// fieldArgs are the arguments of str.format and how many of them fields without a name took.
type fieldArgs struct {
	values
	auto *int
}

func (a fieldArgs) value(name string) (Value, bool) {
	if name == "" {
		name = strconv.Itoa(*a.auto)
		*a.auto++
	}
	if n, next := count(name, 0); n >= 0 && next == len(name) {
		if n >= int64(len(a.pos)) {
			return Value{}, false
		}
		return a.pos[n], true
	}
	for i, own := range a.names {
		if own == name {
			return a.named[i], true
		}
	}
	return Value{}, false
}

// addField writes one replacement field of str.format.
func (in *interp) addField(w *markedWriter, field, spec string, a fieldArgs) error {
	name, conversion, _ := strings.Cut(field, "!")
	v, ok := a.value(name)
	if !ok {
		return failf("format has no argument '%s'", name)
	}
	f, err := fieldSpec(spec)
	if err != nil {
		return err
	}
	switch conversion {
	case "":
	case "s", "r", "a":
		m, err := in.str(v)
		if conversion != "s" {
			m, err = in.repr(v)
		}
		if err != nil {
			return err
		}
		v = textValue(m)
	default:
		return failf("unknown conversion '%s'", conversion)
	}
	return in.addFormatted(w, v, f)
}

// fieldSpec reads [[fill]align][sign][#][0][width][,][.precision][type].
func fieldSpec(s string) (formatSpec, error) {
	f := formatSpec{fill: marked{s: " "}, prec: -1}
	if _, n := utf8.DecodeRuneInString(s); len(s) > n && n > 0 && isOneOf(s[n], "<>^=") {
		f.fill, f.align = marked{s: s[:n]}, s[n]
		s = s[n+1:]
	} else if s != "" && isOneOf(s[0], "<>^=") {
		f.align, s = s[0], s[1:]
	}
	i := 0
	if i < len(s) && isOneOf(s[i], "+- ") {
		if f.sign = s[i]; f.sign == '-' {
			f.sign = 0
		}
		i++
	}
	if i < len(s) && s[i] == '#' {
		f.alt = true
		i++
	}
	if i < len(s) && s[i] == '0' && f.align == 0 {
		f.fill, f.align = marked{s: "0"}, '='
	}
	f.width, i = count(s, i)
	if i < len(s) && s[i] == ',' {
		f.comma = true
		i++
	}
	if i < len(s) && s[i] == '.' {
		if f.prec, i = count(s, i+1); f.prec < 0 {
			return f, failf("format specifier missing precision")
		}
	}
	if i < len(s) {
		f.verb = s[i]
		i++
	}
	if i < len(s) || f.verb != 0 && !isOneOf(f.verb, "sdxXobeEfFgGc%") {
		return f, failf("invalid format specifier")
	}
	return f, nil
}

// addFormatted writes v as f says.
func (in *interp) addFormatted(w *markedWriter, v Value, f formatSpec) error {
	if f.prec > maxPrecision && f.verb != 's' && f.verb != 0 {
		return limitError("precision is too high")
	}
	m, err := in.formatted(v, &f)
	if err != nil {
		return err
	}
	size := int64(utf8.RuneCountInString(m.s))
	if f.width > size {
		if f.width > int64(in.lim.Output) {
			return limitError("text is too long")
		}
		var padded Value
		switch f.align {
		case '<':
			padded, err = in.pad(m, "l", f.width, f.fill)
		case '^':
			left := (f.width - size) / 2
			if padded, err = in.pad(m, "r", size+left, f.fill); err == nil {
				padded, err = in.pad(padded.text(), "l", f.width, f.fill)
			}
		case '=':
			signs := len(m.s) - len(strings.TrimLeft(m.s, "+- "))
			if padded, err = in.pad(m.slice(signs, len(m.s)), "r", f.width-int64(signs), f.fill); err == nil {
				padded = textValue(joinText(m.slice(0, signs), padded.text()))
			}
		default:
			padded, err = in.pad(m, "r", f.width, f.fill)
		}
		if err != nil {
			return err
		}
		m = padded.text()
	}
	if err := in.chargeText(w.size() + len(m.s)); err != nil {
		return err
	}
	w.add(m)
	return nil
}

// formatted shows v without padding, and settles the alignment.
func (in *interp) formatted(v Value, f *formatSpec) (marked, error) {
	_, isNumber := v.number()
	if f.verb == 0 {
		switch {
		case v.kind == kindInt:
			f.verb = 'd'
		case v.kind == kindFloat && f.prec >= 0:
			f.verb = 'g'
		default:
			f.verb = 's'
		}
	}
	if isOneOf(f.verb, "sra") {
		if f.align == 0 && !(isNumber && v.kind != kindBool) || f.percent && f.align == '=' {
			f.align = map[bool]byte{true: '>', false: '<'}[f.percent]
			f.fill = marked{s: " "}
		}
		m, err := in.str(v)
		if f.verb != 's' {
			m, err = in.repr(v)
		}
		if err == nil && f.prec >= 0 && f.prec < int64(utf8.RuneCountInString(m.s)) {
			m = m.slice(0, byteOffset(m.s, int(f.prec)))
		}
		return m, err
	}
	if f.verb == 'c' && v.isText() && utf8.RuneCountInString(v.text().s) == 1 {
		return v.text(), nil
	}
	if !isNumber {
		return marked{}, failf("%%%c format: a number is required, not %s", f.verb, v.typeName())
	}
	s, err := numberText(v, f)
	return marked{s: s, all: v.user && s != ""}, err
}
