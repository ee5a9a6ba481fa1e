package text

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// numberText shows a number by its verb, with its sign.
func numberText(v Value, f *formatSpec) (string, error) {
	x, _ := v.number()
	i, whole := v.whole()
	if !whole && isOneOf(f.verb, "dxXobc") {
		if !f.percent || f.verb != 'd' || math.Abs(x) >= 1<<63 || x != x {
			return "", failf("%%%c format: an integer is required, not float", f.verb)
		}
		i = int64(x)
	}
	var s string
	prec := int(f.prec)
	switch f.verb {
	case 'd':
		s = formatInt(i)
	case 'x', 'X', 'o', 'b':
		s = strconv.FormatInt(i, map[byte]int{'x': 16, 'X': 16, 'o': 8, 'b': 2}[f.verb])
		if f.alt {
			digits := strings.TrimPrefix(s, "-")
			s = s[:len(s)-len(digits)] + "0" + string(f.verb|0x20) + digits
		}
		if f.verb == 'X' {
			s = strings.ToUpper(s)
		}
	case 'c':
		if i < 0 || i > utf8.MaxRune {
			return "", failf("%%c arg not in range(0x110000)")
		}
		s = string(rune(i))
	case '%':
		if prec < 0 {
			prec = 6
		}
		s = floatText(x*100, 'f', prec) + "%"
	default:
		if prec < 0 {
			prec = 6
		}
		s = floatText(x, f.verb, prec)
	}
	if f.comma {
		s = thousands(s)
	}
	if f.sign != 0 && s[0] != '-' {
		s = string(f.sign) + s
	}
	return s, nil
}

// floatText shows x as C's printf does.
func floatText(x float64, verb byte, prec int) string {
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		return formatFloat(x)
	case verb == 'F':
		verb = 'f'
	case verb != 'g' && verb != 'G':
	case prec == 0:
		prec = 1
	}
	return strconv.FormatFloat(x, verb, prec, 64)
}

// thousands puts commas into the whole part of a number.
func thousands(s string) string {
	sign := len(s) - len(strings.TrimLeft(s, "-+"))
	end := sign
	for end < len(s) && isDigit(s[end]) {
		end++
	}
	var b strings.Builder
	b.WriteString(s[:sign])
	for i := sign; i < end; i++ {
		if i > sign && (end-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteByte(s[i])
	}
	b.WriteString(s[end:])
	return b.String()
}
