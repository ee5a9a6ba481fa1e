package main

import (
	"fmt"
	"io"
	"strings"
)

// page is where answers are written as they come. On a terminal it breaks lines between words, leaves code and tables as they are, and
// keeps control characters of the answer from the terminal. Elsewhere the answer is written as it is.
type page struct {
	out      io.Writer
	columns  func() int // of the terminal; nil = none is there
	wordwrap bool
	first    func() // called once before anything is written, or at the end; nil = nothing to do

	buf    strings.Builder
	column int
	word   []rune // at the end of the line so far
	head   []rune // the beginning of the answer's own line, which tells fences
	fenced bool
	ended  bool // the last character was a line break
	began  bool // anything was written
}

// longestFence is how much of a line's beginning is looked at.
const longestFence = 6

func (p *page) write(s string) error {
	if s == "" {
		return nil
	}
	p.begin()
	p.began, p.ended = true, strings.HasSuffix(s, "\n")
	if p.columns == nil {
		_, err := io.WriteString(p.out, s)
		return err
	}
	width := p.columns() - 1 // the last column is left free: terminals disagree about a cursor behind it
	for _, r := range printable(s) {
		p.put(r, width)
	}
	_, err := io.WriteString(p.out, p.buf.String())
	p.buf.Reset()
	return err
}

func (p *page) begin() {
	if p.first != nil {
		p.first()
		p.first = nil
	}
}

// put writes a rune of the answer.
func (p *page) put(r rune, width int) {
	if r == '\n' {
		if fence := strings.TrimSpace(string(p.head)); strings.HasPrefix(fence, "```") || strings.HasPrefix(fence, "~~~") {
			p.fenced = !p.fenced
		}
		p.head = p.head[:0]
		p.newLine()
		return
	}
	if len(p.head) < longestFence {
		p.head = append(p.head, r)
	}
	w := runeWidth(r)
	if r == '\t' {
		w = 8 - p.column%8
	}
	switch {
	case !p.wordwrap || p.fenced || p.head[0] == '|' || width < 2*longestFence:
		p.word = p.word[:0]
	case r == ' ' || r == '\t':
		if p.word = p.word[:0]; p.column+w > width {
			p.newLine()
			return
		}
	case w == 2: // a line may break before and behind it
		if p.word = p.word[:0]; p.column+w > width {
			p.newLine()
		}
	case p.column+w > width:
		p.wrap()
		p.word = append(p.word, r)
	default:
		p.word = append(p.word, r)
	}
	p.buf.WriteRune(r)
	p.column += w
}

// wrap begins a line, and takes the word at the end of the line before with it, unless it is the whole line.
func (p *page) wrap() {
	word, back := string(p.word), 0
	for _, r := range p.word {
		back += runeWidth(r)
	}
	if back >= p.column {
		word, back = "", 0
	}
	if back > 0 {
		fmt.Fprintf(&p.buf, "\x1b[%dD\x1b[K", back)
	}
	kept := []rune(word)
	p.newLine()
	p.buf.WriteString(word)
	p.column, p.word = back, kept
}

func (p *page) newLine() {
	p.buf.WriteByte('\n')
	p.column, p.word = 0, p.word[:0]
}

// end finishes an answer with a line break, its own or one that is added. The next answer begins anew.
func (p *page) end() error {
	p.begin()
	var err error
	if p.began && !p.ended {
		_, err = io.WriteString(p.out, "\n")
	}
	*p = page{out: p.out, columns: p.columns, wordwrap: p.wordwrap}
	return err
}
