package text

import "unicode/utf8"

// padded returns ljust, rjust or center, by the side that the text goes to: "l", "r" or "c".
func padded(side string) method {
	return func(in *interp, of Value, a values) (Value, error) {
		arg, err := a.need(1, "width", "width", "fillchar")
		if err != nil {
			return of, err
		}
		width, ok := arg[0].whole()
		if !ok {
			return of, failf("width must be an integer, not %s", arg[0].typeName())
		}
		fill := marked{s: " "}
		if arg[1].isText() {
			if fill = arg[1].text(); utf8.RuneCountInString(fill.s) != 1 {
				return of, failf("the fill character must be exactly one character long")
			}
		}
		return in.pad(of.text(), side, width, fill)
	}
}

// pad fills m up to width code points.
func (in *interp) pad(m marked, side string, width int64, fill marked) (Value, error) {
	size := int64(utf8.RuneCountInString(m.s))
	if width <= size {
		return textValue(m), nil
	}
	if width > int64(in.lim.Output) {
		return Value{}, limitError("text is too long")
	}
	if err := in.chargeText(len(m.s) + int(width-size)*len(fill.s)); err != nil {
		return Value{}, err
	}
	left, right := int64(0), width-size
	switch side {
	case "r":
		left, right = right, 0
	case "c": // as Python rounds
		left = right/2 + right&width&1
		right -= left
	}
	var w markedWriter
	for range left {
		w.add(fill)
	}
	w.add(m)
	for range right {
		w.add(fill)
	}
	return textValue(w.done()), nil
}

func textZfill(in *interp, of Value, a values) (Value, error) {
	arg, err := a.need(1, "zfill", "width")
	if err != nil {
		return of, err
	}
	width, ok := arg[0].whole()
	if !ok {
		return of, failf("width must be an integer, not %s", arg[0].typeName())
	}
	m := of.text()
	if m.s == "" || m.s[0] != '-' && m.s[0] != '+' {
		return in.pad(m, "r", width, marked{s: "0"})
	}
	v, err := in.pad(m.slice(1, len(m.s)), "r", width-1, marked{s: "0"})
	if err != nil {
		return v, err
	}
	return textValue(joinText(m.slice(0, 1), v.text())), nil
}
