package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

const (
	firstPrompt = ">>> "
	nextPrompt  = "... "
	dim, undim  = "\x1b[2m", "\x1b[0m"
)

// screen paints a message being typed on a terminal. It breaks rows itself, one column before the terminal would.
type screen struct {
	out    io.Writer
	size   func() (columns, rows int)
	hint   string // shown dimmed in place of an empty message; "" = nothing
	width  int    // of the terminal when it was painted last
	widths []int  // of the painted rows, in columns
	row    int    // of them, the one that the cursor is in
	column int
}

// row is one line of the screen.
type row struct {
	text  strings.Builder
	width int // columns
}

// layout breaks a message into rows and finds the cursor.
func layout(l *line, columns int) (rows []*row, at, column int) {
	limit := max(columns-1, 2*len(firstPrompt))
	begin := func(prompt string) {
		r := &row{width: len(prompt)}
		r.text.WriteString(prompt)
		rows = append(rows, r)
	}
	begin(firstPrompt)
	for i, r := range l.text {
		shown, w := string(r), runeWidth(r)
		switch r {
		case '\t':
			shown, w = "    ", 4
		case '\n':
			shown, w = "", 0
		}
		if rows[len(rows)-1].width+w > limit {
			begin("")
		}
		last := rows[len(rows)-1]
		if i == l.at {
			at, column = len(rows)-1, last.width
		}
		last.text.WriteString(shown)
		if last.width += w; r == '\n' {
			begin(nextPrompt)
		}
	}
	if l.at == len(l.text) {
		at, column = len(rows)-1, rows[len(rows)-1].width
	}
	return rows, at, column
}

// paint shows a message in place of what it painted before. Of one that is higher than the terminal it shows the part around the cursor.
func (s *screen) paint(l *line) error {
	columns, height := s.size()
	rows, at, column := layout(l, columns)
	if from := max(0, min(at-height/2, len(rows)-height)); len(rows) > height {
		rows, at = rows[from:from+height], at-from
	}
	var b bytes.Buffer
	s.home(&b, columns)
	b.WriteString("\x1b[J")
	s.widths = s.widths[:0]
	for i, r := range rows {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(r.text.String())
		s.widths = append(s.widths, r.width)
	}
	if s.hint != "" && len(l.text) == 0 && len(s.hint)+len(firstPrompt) < columns {
		b.WriteString(dim + s.hint + undim)
	}
	move(&b, len(rows)-1-at, 'A')
	b.WriteByte('\r')
	move(&b, column, 'C')
	s.width, s.row, s.column = columns, at, column
	_, err := s.out.Write(b.Bytes())
	return err
}

// home moves to the beginning of what is painted. Terminals that became narrower break its rows again.
func (s *screen) home(b *bytes.Buffer, columns int) {
	up := s.row
	if columns < s.width {
		up = s.column / columns
		for _, w := range s.widths[:s.row] {
			up += max(1, (w+columns-1)/columns)
		}
	}
	move(b, up, 'A')
	b.WriteByte('\r')
}

// leave moves below what is painted; the next message begins there.
func (s *screen) leave(l *line) error {
	hint := s.hint
	s.hint = ""
	l.at = len(l.text)
	err := s.paint(l)
	s.hint = hint
	s.widths, s.row, s.column = s.widths[:0], 0, 0
	if err == nil {
		_, err = io.WriteString(s.out, "\r\n")
	}
	return err
}

// clear empties the terminal.
func (s *screen) clear() error {
	s.widths, s.row, s.column = s.widths[:0], 0, 0
	_, err := io.WriteString(s.out, "\x1b[H\x1b[2J")
	return err
}

// resized says whether the terminal has another width than what is painted was painted for.
func (s *screen) resized() bool {
	columns, _ := s.size()
	return columns != s.width
}

func move(b *bytes.Buffer, n int, direction byte) {
	if n > 0 {
		fmt.Fprintf(b, "\x1b[%d%c", n, direction)
	}
}
