package text

import (
	"fmt"
	"strings"
	"time"
)

// strftime shows t by the directives of C's strftime in the C locale; "%-d" has no leading zero. Unknown ones stay as they are.
func strftime(format string, t time.Time) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		bare := format[i] == '-' && i+1 < len(format)
		if bare {
			i++
		}
		s := directive(format[i], t)
		if bare {
			if s = strings.TrimLeft(s, "0 "); s == "" {
				s = "0"
			}
		}
		b.WriteString(s)
	}
	return b.String()
}

func directive(c byte, t time.Time) string {
	switch c {
	case 'Y':
		return fmt.Sprintf("%d", t.Year())
	case 'e':
		return fmt.Sprintf("%2d", t.Day())
	case 'j':
		return fmt.Sprintf("%03d", t.YearDay())
	case 'f':
		return fmt.Sprintf("%06d", t.Nanosecond()/1000)
	case 's':
		return fmt.Sprintf("%d", t.Unix())
	case 'w':
		return fmt.Sprintf("%d", int(t.Weekday()))
	case 'u':
		return fmt.Sprintf("%d", (int(t.Weekday())+6)%7+1)
	case '%':
		return "%"
	case 'n':
		return "\n"
	case 't':
		return "\t"
	}
	layout, ok := layouts[c]
	if !ok {
		return "%" + string(rune(c))
	}
	return t.Format(layout)
}

// layouts are the directives that Go's time layouts know.
var layouts = map[byte]string{
	'y': "06", 'm': "01", 'd': "02", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'b': "Jan", 'h': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'Z': "MST", 'z': "-0700",
	'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'D': "01/02/06",
	'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05", 'r': "03:04:05 PM",
}
