package main

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/winnow-llm/winnow/configs"
)

// text writes a line for each layer.
func (m *expertMap) text(out io.Writer) error {
	w := bufio.NewWriter(out)
	fmt.Fprintln(w, m.title)
	for _, r := range m.rows {
		fmt.Fprintln(w, r.line)
	}
	m.end(w)
	return w.Flush()
}

// Cells of a terminal from 0 to 1: shades, or colours of the 256 from dark to bright.
var (
	shades = []rune(" ░▒▓█")
	heat   = []int{233, 52, 88, 124, 166, 208, 220, 229}
)

// draw fits a map into so many columns; long rows go on in the next line.
func (m *expertMap) draw(out io.Writer, columns int, screen configs.Screen) error {
	const label = 7 // "   12 |"
	w := bufio.NewWriter(out)
	fmt.Fprintln(w, m.title)
	wide := max(8, columns-label-1)
	for _, r := range m.rows {
		for at := 0; at == 0 || at < len(r.cells); at += wide {
			name := fmt.Sprintf("%5d |", r.layer)
			if at > 0 {
				name = "      |"
			}
			w.WriteString(name)
			w.WriteString(cellsOf(r.cells[at:min(at+wide, len(r.cells))], screen))
			w.WriteString("|\n")
		}
	}
	m.end(w)
	return w.Flush()
}

// end writes what stands below a map.
func (m *expertMap) end(w io.Writer) {
	if m.foot != "" {
		fmt.Fprintln(w, m.foot)
	}
}

// cellsOf writes cells, with colours where they are welcome.
func cellsOf(cells []float64, screen configs.Screen) string {
	var b strings.Builder
	last := -1
	for _, v := range cells {
		if !screen.Color {
			b.WriteRune(shades[level(v, len(shades))])
			continue
		}
		if color := heat[level(v, len(heat))]; color != last {
			fmt.Fprintf(&b, "\x1b[38;5;%dm", color)
			last = color
		}
		b.WriteRune('█')
	}
	if last >= 0 {
		b.WriteString("\x1b[0m")
	}
	return b.String()
}

// level is which of n steps a value from 0 to 1 is on: the lowest is 0 alone, the highest 1 alone.
func level(v float64, n int) int {
	if v <= 0 {
		return 0
	}
	return min(n-1, 1+int(v*float64(n-2)))
}

// svg writes a map as a picture; a pointer over a cell shows layer, expert and value.
func (m *expertMap) svg(out io.Writer) error {
	const side, left, top = 10, 40, 30
	widest := 0
	for _, r := range m.rows {
		widest = max(widest, len(r.cells))
	}
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"9\">\n",
		max(480, left+side*widest+side), top+side*len(m.rows)+side)
	fmt.Fprintf(w, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text x=\"%d\" y=\"18\" font-size=\"11\">%s</text>\n", left, html.EscapeString(m.title))
	for i, r := range m.rows {
		y := top + side*i
		fmt.Fprintf(w, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%d</text>\n", left-4, y+side-2, r.layer)
		for e, v := range r.cells {
			fmt.Fprintf(w, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"><title>layer %d, expert %d: %.3f</title></rect>\n",
				left+side*e, y, side-1, side-1, blue(v), r.layer, e, v)
		}
	}
	fmt.Fprintln(w, "</svg>")
	return w.Flush()
}

// blue is a colour from near white at 0 to a dark blue at 1.
func blue(v float64) string {
	between := func(light, dark float64) int { return int(light + (dark-light)*v) }
	return fmt.Sprintf("#%02x%02x%02x", between(240, 8), between(242, 48), between(245, 107))
}
