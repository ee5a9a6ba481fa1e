package text

import (
	"strings"
	"unicode/utf8"
)

// cuts is where a string is split: pieces [lo, hi) in bytes.
type cuts []mark

func (c cuts) values(m marked) Value {
	out := make([]Value, len(c))
	for i, k := range c {
		out[i] = textValue(m.slice(k.lo, k.hi))
	}
	return List(out...)
}

// splitArgs returns the separator and the number of splits, -1 for all of them.
func splitArgs(of Value, a values, what string) (sep string, spaces string, most int, err error) {
	arg, err := a.bind(what, "sep", "maxsplit")
	if err != nil {
		return "", "", 0, err
	}
	most = -1
	if n, ok := arg[1].whole(); ok {
		most = int(min(max(n, -1), int64(of.size())))
	} else if arg[1].kind != kindUndefined {
		return "", "", 0, failf("%s: maxsplit must be an integer", what)
	}
	switch {
	case arg[0].kind == kindUndefined || arg[0].kind == kindNone:
		return "", "spaces", most, nil
	case !arg[0].isText():
		return "", "", 0, failf("%s: must be str or None, not %s", what, arg[0].typeName())
	case arg[0].size() == 0:
		return "", "", 0, failf("%s: empty separator", what)
	}
	return arg[0].text().s, "", most, nil
}

func textSplit(in *interp, of Value, a values) (Value, error) {
	sep, spaces, most, err := splitArgs(of, a, "split")
	if err != nil {
		return of, err
	}
	m := of.text()
	var out cuts
	if spaces != "" {
		out = splitSpaces(m.s, most)
	} else {
		at := 0
		for most < 0 || len(out) < most {
			i := strings.Index(m.s[at:], sep)
			if i < 0 {
				break
			}
			out = append(out, mark{at, at + i})
			at += i + len(sep)
		}
		out = append(out, mark{at, len(m.s)})
	}
	return out.values(m), in.chargeItems(len(out))
}

// splitSpaces cuts at runs of white space; there are no empty pieces.
func splitSpaces(s string, most int) cuts {
	var out cuts
	at := 0
	for {
		at = len(s) - len(strings.TrimLeftFunc(s[at:], isPythonSpace))
		if at == len(s) {
			return out
		}
		if most >= 0 && len(out) == most {
			return append(out, mark{at, len(s)})
		}
		i := strings.IndexFunc(s[at:], isPythonSpace)
		if i < 0 {
			return append(out, mark{at, len(s)})
		}
		out = append(out, mark{at, at + i})
		at += i
	}
}

func textRSplit(in *interp, of Value, a values) (Value, error) {
	sep, spaces, most, err := splitArgs(of, a, "rsplit")
	if err != nil {
		return of, err
	}
	m := of.text()
	var back cuts
	end := len(m.s)
	for spaces == "" {
		i := strings.LastIndex(m.s[:end], sep)
		if i < 0 || most >= 0 && len(back) == most {
			back = append(back, mark{0, end})
			break
		}
		back = append(back, mark{i + len(sep), end})
		end = i
	}
	for spaces != "" {
		end = len(strings.TrimRightFunc(m.s[:end], isPythonSpace))
		if end == 0 {
			break
		}
		from := strings.LastIndexFunc(m.s[:end], isPythonSpace)
		if most >= 0 && len(back) == most {
			back = append(back, mark{0, end})
			break
		}
		if from >= 0 {
			_, n := utf8.DecodeRuneInString(m.s[from:])
			from += n
		} else {
			from = 0
		}
		back = append(back, mark{from, end})
		end = from
	}
	out := make(cuts, len(back))
	for i := range back {
		out[len(back)-1-i] = back[i]
	}
	return out.values(m), in.chargeItems(len(out))
}

// lineCuts returns the lines of s without their ends, by Python's idea of a line.
func lineCuts(s string) cuts {
	var out cuts
	from := 0
	for at, r := range s {
		switch r {
		case '\n', '\r', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
			if at < from { // the \n of a \r\n
				continue
			}
			out = append(out, mark{from, at})
			from = at + utf8.RuneLen(r)
			if strings.HasPrefix(s[at:], "\r\n") {
				from++
			}
		}
	}
	if from < len(s) {
		out = append(out, mark{from, len(s)})
	}
	return out
}

func textSplitLines(in *interp, of Value, a values) (Value, error) {
	arg, err := a.bind("splitlines", "keepends")
	if err != nil {
		return of, err
	}
	m := of.text()
	out := lineCuts(m.s)
	if arg[0].truth() {
		for i := range out {
			out[i].hi = len(m.s)
			if i+1 < len(out) {
				out[i].hi = out[i+1].lo
			}
		}
	}
	return out.values(m), in.chargeItems(len(out))
}

func textPartition(_ *interp, of Value, a values) (Value, error) {
	m := of.text()
	sep, err := a.oneText("partition")
	if err != nil || sep.s == "" {
		return of, failOr(err, "empty separator")
	}
	i := strings.Index(m.s, sep.s)
	if i < 0 {
		return tupleValue(of, emptyText, emptyText), nil
	}
	return parted(m, sep.s, i), nil
}

func textRPartition(_ *interp, of Value, a values) (Value, error) {
	m := of.text()
	sep, err := a.oneText("rpartition")
	if err != nil || sep.s == "" {
		return of, failOr(err, "empty separator")
	}
	i := strings.LastIndex(m.s, sep.s)
	if i < 0 {
		return tupleValue(emptyText, emptyText, of), nil
	}
	return parted(m, sep.s, i), nil
}

func parted(m marked, sep string, i int) Value {
	return tupleValue(textValue(m.slice(0, i)), textValue(m.slice(i, i+len(sep))), textValue(m.slice(i+len(sep), len(m.s))))
}

// failOr returns err, or an error of its own if there is none.
func failOr(err error, why string) error {
	if err != nil {
		return err
	}
	return failf("%s", why)
}

func textJoin(in *interp, of Value, a values) (Value, error) {
	arg, err := a.need(1, "join", "iterable")
	if err != nil {
		return of, err
	}
	items, err := in.iterate(arg[0])
	if err != nil {
		return of, err
	}
	for i, it := range items {
		if !it.isText() {
			return of, failf("sequence item %d: expected str instance, %s found", i, it.typeName())
		}
	}
	return in.join(of.text(), items)
}

// join puts sep between what the items print.
func (in *interp) join(sep marked, items []Value) (Value, error) {
	var w markedWriter
	for i, it := range items {
		m, err := in.str(it)
		if err != nil {
			return Value{}, err
		}
		n := len(m.s)
		if i > 0 {
			n += len(sep.s)
		}
		if w.size()+n > in.lim.Output {
			return Value{}, limitError("text is too long")
		}
		if err := in.charge(1 + n/bytesPerStep); err != nil {
			return Value{}, err
		}
		if i > 0 {
			w.add(sep)
		}
		w.add(m)
	}
	return textValue(w.done()), nil
}

func textReplace(in *interp, of Value, a values) (Value, error) {
	arg, err := a.need(2, "replace", "old", "new", "count")
	if err != nil {
		return of, err
	}
	if !arg[0].isText() || !arg[1].isText() {
		return of, failf("replace needs two str, not %s and %s", arg[0].typeName(), arg[1].typeName())
	}
	most := int64(-1)
	if n, ok := arg[2].whole(); ok {
		most = n
	}
	return in.replace(of.text(), arg[0].text().s, arg[1].text(), most)
}

// replace replaces the first most places of old, all if most is negative. An empty old stands between all code points.
func (in *interp) replace(m marked, old string, new marked, most int64) (Value, error) {
	places := strings.Count(m.s, old)
	if most >= 0 && int64(places) > most {
		places = int(most)
	}
	if places == 0 {
		return textValue(m), nil
	}
	if len(new.s) > in.lim.Output {
		return Value{}, limitError("text is too long")
	}
	if grown := len(new.s) - len(old); grown > 0 && places > in.lim.Output/grown {
		return Value{}, limitError("text is too long")
	}
	if err := in.chargeText(len(m.s) + places*(len(new.s)-len(old))); err != nil {
		return Value{}, err
	}
	if err := in.charge(places); err != nil {
		return Value{}, err
	}
	var w markedWriter
	at := 0
	for n := range places {
		i := strings.Index(m.s[at:], old)
		if old == "" {
			i = 0
			if n > 0 {
				_, i = utf8.DecodeRuneInString(m.s[at:])
			}
		}
		w.add(m.slice(at, at+i))
		w.add(new)
		at += i + len(old)
	}
	w.add(m.slice(at, len(m.s)))
	return textValue(w.done()), nil
}

// seek returns the code point at which the argument is found, -1 for none.
func seek(of Value, a values, index func(s, part string) int) (int64, error) {
	part, err := a.oneText("find")
	if err != nil {
		return 0, err
	}
	s := of.text().s
	i := index(s, part.s)
	if i < 0 {
		return -1, nil
	}
	return int64(utf8.RuneCountInString(s[:i])), nil
}

func textFind(_ *interp, of Value, a values) (Value, error) {
	i, err := seek(of, a, strings.Index)
	return Int(i), err
}

func textRFind(_ *interp, of Value, a values) (Value, error) {
	i, err := seek(of, a, strings.LastIndex)
	return Int(i), err
}

func textIndex(_ *interp, of Value, a values) (Value, error) {
	i, err := seek(of, a, strings.Index)
	if i < 0 {
		return of, failf("substring not found")
	}
	return Int(i), err
}

func textRIndex(_ *interp, of Value, a values) (Value, error) {
	i, err := seek(of, a, strings.LastIndex)
	if i < 0 {
		return of, failf("substring not found")
	}
	return Int(i), err
}

func textCount(_ *interp, of Value, a values) (Value, error) {
	part, err := a.oneText("count")
	return Int(int64(strings.Count(of.text().s, part.s))), err
}
