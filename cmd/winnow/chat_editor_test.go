package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// glass is a terminal that shows what is written to it. It fails a test that writes into its last column, or what it does not know.
type glass struct {
	t       testing.TB
	columns int
	rows    [][]rune // a wide character is followed by 0
	x, y    int
}

func newGlass(t testing.TB, columns, rows int) *glass {
	return &glass{t: t, columns: columns, rows: make([][]rune, rows)}
}

func (g *glass) Write(p []byte) (int, error) {
	for s := string(p); s != ""; {
		if strings.HasPrefix(s, "\x1b") {
			n := sequenceLen([]byte(s))
			if n == 0 {
				g.t.Fatalf("half a sequence: %q", s)
			}
			g.obey(s[:n])
			s = s[n:]
			continue
		}
		r := []rune(s)[0]
		s = s[len(string(r)):]
		switch r {
		case '\r':
			g.x = 0
		case '\n':
			if g.y++; g.y == len(g.rows) {
				g.rows, g.y = append(g.rows[1:], nil), g.y-1
			}
		default:
			g.put(r)
		}
	}
	return len(p), nil
}

func (g *glass) put(r rune) {
	w := runeWidth(r)
	if r < ' ' || g.x+w >= g.columns {
		g.t.Errorf("%q in column %d of %d", r, g.x, g.columns)
	}
	if w == 0 {
		return
	}
	row := g.rows[g.y]
	for len(row) < g.x+w {
		row = append(row, ' ')
	}
	row[g.x] = r
	if w == 2 {
		row[g.x+1] = 0
	}
	g.rows[g.y] = row
	g.x += w
}

func (g *glass) obey(sequence string) {
	var n int
	if _, err := fmt.Sscanf(sequence, "\x1b[%d", &n); err != nil {
		n = 1
	}
	switch sequence[len(sequence)-1] {
	case 'A':
		g.y = max(0, g.y-n)
	case 'C':
		g.x = min(g.columns-1, g.x+n)
	case 'D':
		g.x = max(0, g.x-n)
	case 'H':
		g.x, g.y = 0, 0
	case 'K':
		g.rows[g.y] = g.rows[g.y][:min(g.x, len(g.rows[g.y]))]
	case 'J':
		from := g.y
		if n == 2 {
			g.x, from = 0, 0
		}
		for y := from; y < len(g.rows); y++ {
			g.rows[y] = g.rows[y][:min(g.x, len(g.rows[y]))]
		}
	case 'm', 'h', 'l':
	default:
		g.t.Errorf("sequence %q", sequence)
	}
}

// String is the screen without empty rows at its end, with the cursor's place as row:column.
func (g *glass) String() string {
	var b strings.Builder
	for _, row := range g.rows {
		for _, r := range row {
			if r != 0 {
				b.WriteRune(r)
			}
		}
		b.WriteByte('\n')
	}
	return fmt.Sprintf("%s@%d:%d", strings.TrimRight(b.String(), "\n"), g.y, g.x)
}

func newEditor(g *glass, before ...string) *editor {
	e := &editor{history: &history{entries: before}}
	e.screen = screen{out: g, size: func() (int, int) { return g.columns, len(g.rows) }}
	if err := e.begin(); err != nil {
		g.t.Fatal(err)
	}
	return e
}

const (
	upArrow, downArrow    = "\x1b[A", "\x1b[B"
	rightArrow, leftArrow = "\x1b[C", "\x1b[D"
	pasteBegin            = "\x1b[200~"
)

func TestEditorMakesMessages(t *testing.T) {
	for _, c := range []struct{ name, typed, want string }{
		{"plain", "hello\r", "hello"},
		{"line feed ends too", "hello\n", "hello"},
		{"left, right", "held" + leftArrow + "lo wor" + rightArrow + leftArrow + leftArrow + rightArrow + "\r", "hello word"},
		{"home and end", "b\x01a\x05c\x1b[H-\x1b[F-\x1bOH+\x1b[4~+\r", "+-abc-+"},
		{"backspace, delete", "abcd\x7f\x08\x01\x1b[3~\r", "b"},
		{"Ctrl-D deletes", "abc\x01\x04\r", "bc"},
		{"kill to the end and yank", "one two\x1bb\x0b\x01\x19-\r", "two-one "},
		{"kill to the beginning", "one two\x1bb\x15\r", "two"},
		{"kill words", "one two-three\x17four\r", "one four"},
		{"kill words of letters", "one two-three\x1b\x7ffour\r", "one two-four"},
		{"kill the word behind", "one two\x01\x1bd\r", " two"},
		{"word moves", "one two three\x1b[1;5D\x1bb!\x1b[1;3C\x1bf?\r", "one !two three?"},
		{"transpose", "ab\x14cd" + leftArrow + "\x14\r", "badc"},
		{"marks go with their letter", "e\u0301x" + leftArrow + leftArrow + "a\x05\x7f\x7f\r", "a"},
		{"joined emoji are one", "👩‍💻x" + leftArrow + "\x7f\r", "x"},
		{"wide", "日本語" + leftArrow + "\x7f\r", "日語"},
		{"bytes that are no text", "a\xff\xfeb\r", "ab"},
		{"unknown keys", "a\x1b[15~\x1b[1;2P\x1bOS\x1bz\x00\x1cb\r", "ab"},
		{"escape alone", "a\x1b\x1b[Db\r", "ba"},
		{"Alt-Enter", "a\x1b\rb\r", "a\nb"},
		{"Shift-Enter", "a\x1b[13;2ub\r", "a\nb"},
		{"backslash", "a\\\rb\r", "a\nb"},
		{"backslash within", "a\\b\r", "a\\b"},
		{"quotes", "\"\"\"a\rb\"\"\"\r", "\"\"\"a\nb\"\"\""},
		{"quotes of a command", "/set system \"\"\"a\rb\"\"\"\r", "/set system \"\"\"a\nb\"\"\""},
		{"quotes within", "say \"\"\"a\r", "say \"\"\"a"},
		{"moves in lines", "one\x1b\rtwo\x1b\r3" + upArrow + upArrow + "\x1b[1~a" + downArrow + downArrow + "b\r", "aone\ntwo\n3b"},
		{"history", upArrow + upArrow + "!" + downArrow + upArrow + upArrow + upArrow + "\r", "older"},
		{"history and back", "dra" + upArrow + upArrow + downArrow + downArrow + downArrow + "ft\r", "draft"},
		{"history over lines", "x\x1b\ry" + upArrow + upArrow + downArrow + "\r", "x\ny"},
		{"Ctrl-P and Ctrl-N", "\x10\x10\x0e\r", "newer"},
		{"paste", pasteBegin + "a\r\nb\rc\n\td\x1b[31me\x07\x03" + pasteEnd + "\r", "a\nb\nc\n\td[31me"},
		{"paste and type", "x" + pasteBegin + "1\n2" + pasteEnd + "y\r", "x1\n2y"},
		{"paste with a backslash", pasteBegin + "cc \\\n a.c" + pasteEnd + "\r", "cc \\\n a.c"},
		{"tab", "a\tb\r", "a\tb"},
		{"clear the screen", "ab\x0cc\r", "abc"},
	} {
		for _, chunk := range []int{1, 2, 3, 1000} { // keys come in any pieces
			e := newEditor(newGlass(t, 20, 10), "older", "newer")
			got, complete := "", false
			for i := 0; i < len(c.typed) && !complete; i += chunk {
				e.typed = append(e.typed, c.typed[i:min(len(c.typed), i+chunk)]...)
				var err error
				if got, complete, err = e.take(); err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
			}
			if got != c.want || !complete {
				t.Errorf("%s, %d bytes at a time: %q, want %q", c.name, chunk, got, c.want)
			}
		}
	}
}

func TestEditorLeaves(t *testing.T) {
	for typed, want := range map[string]error{"\x03": errInterrupted, "a\x03": errDropped, "\x04": io.EOF, "a\x7f\x04": io.EOF, "\"\"\"\r\x03": errDropped} {
		e := newEditor(newGlass(t, 40, 5))
		e.typed = []byte(typed + "more")
		if _, complete, err := e.take(); complete || !errors.Is(err, want) || string(e.typed) != "more" {
			t.Errorf("%q: %v, want %v; %q is left", typed, err, want, e.typed)
		}
	}
}

// A paste whose end is lost leaves the user a way out, and a long one takes no longer than its length.
func TestPastes(t *testing.T) {
	e := newEditor(newGlass(t, 40, 5))
	for i, piece := range []string{pasteBegin + "lost", "\r", "\x03"} {
		e.feed([]byte(piece))
		if _, complete, err := e.take(); complete || (err != nil) != (i == 2) {
			t.Errorf("after %q: %v %v", piece, complete, err)
		}
	}
	e = newEditor(newGlass(t, 40, 5))
	long := strings.Repeat("漢字 text\n", 1<<17)
	e.feed([]byte(pasteBegin))
	for s := long; s != ""; s = s[min(4096, len(s)):] {
		e.feed([]byte(s[:min(4096, len(s))]))
		if _, _, err := e.take(); err != nil {
			t.Fatal(err)
		}
	}
	e.feed([]byte(pasteEnd + "\r"))
	if got, complete, err := e.take(); err != nil || !complete || got != string([]rune(long)[:mostTyped]) {
		t.Errorf("%v %v: %d bytes of %d", complete, err, len(got), len(long))
	}
}

func TestScreen(t *testing.T) {
	for _, c := range []struct{ name, typed, want string }{
		{"empty", "", ">>>@0:4"},
		{"a line", "hello" + leftArrow + leftArrow, ">>> hello@0:7"},
		{"breaks before the last column", "0123456789012345", ">>> 012345678901234\n5@1:1"},
		{"wide does not fit", "01234567890123漢字", ">>> 01234567890123\n漢字@1:4"},
		{"back over the break", "01234567890123漢字" + leftArrow + leftArrow, ">>> 01234567890123\n漢字@1:0"},
		{"lines", "ab\x1b\rcd" + upArrow, ">>> ab\n... cd@0:6"},
		{"shorter again", "01234567890123456789\x15", ">>>@0:4"},
		{"higher than the screen", "1\x1b\r2\x1b\r3\x1b\r4\x1b\r5\x1b\r6\x1b\r7", "... 3\n... 4\n... 5\n... 6\n... 7@4:5"},
		{"around the cursor", "1\x1b\r2\x1b\r3\x1b\r4\x1b\r5\x1b\r6\x1b\r7" + strings.Repeat(upArrow, 6), ">>> 1\n... 2\n... 3\n... 4\n... 5@0:5"},
		{"done", "ab\x1b\rcd" + upArrow + "\r", ">>> ab\n... cd@2:0"},
		{"cleared", "abc\x0c", ">>> abc@0:7"},
	} {
		g := newGlass(t, 20, 5)
		e := newEditor(g)
		e.typed = []byte(c.typed)
		if _, _, err := e.take(); err != nil {
			t.Fatal(err)
		}
		if got := g.String(); strings.ReplaceAll(got, " @", "@") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Whatever is typed, in whatever pieces, the screen is as if the message had been painted at once, and stays within its bounds.
func FuzzEditor(f *testing.F) {
	f.Add([]byte("hello\x1b[D\x1b[D\x7f\x01\x0b\x19\x1b\r漢字e\u0301\x1b[200~a\nb\x1b[201~\x1b[A\x1b[B\t\x14\x17"), uint64(1))
	f.Add([]byte("0123456789012345678901234567890123456789\x1b[H\x1b[3~\x1b[Fx\r"), uint64(2))
	f.Fuzz(func(t *testing.T, typed []byte, seed uint64) {
		if len(typed) > 2000 {
			return
		}
		pieces := rand.New(rand.NewPCG(seed, 0))
		g := newGlass(t, 9+pieces.IntN(30), 2+pieces.IntN(8))
		e := newEditor(g, "older\nthan this", "newer")
		for len(typed) > 0 {
			n := min(len(typed), 1+pieces.IntN(8))
			e.typed, typed = append(e.typed, typed[:n]...), typed[n:]
			_, complete, err := e.take()
			if e.at < 0 || e.at > len(e.text) {
				t.Fatalf("at %d of %d", e.at, len(e.text))
			}
			if e.pasting {
				continue
			}
			if complete || err != nil {
				*g = *newGlass(t, g.columns, len(g.rows))
				if err := e.begin(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			fresh := newGlass(t, g.columns, len(g.rows))
			whole := screen{out: fresh, size: e.screen.size}
			if err := whole.paint(&e.line); err != nil {
				t.Fatal(err)
			}
			if g.String() != fresh.String() {
				t.Fatalf("%q at %d\n%s\nwant\n%s", string(e.text), e.at, g, fresh)
			}
		}
	})
}

func TestRuneWidth(t *testing.T) {
	for s, want := range map[string]int{
		"a": 1, "é": 1, "e\u0301": 1, "漢": 2, "ｶ": 1, "Ａ": 2, "한": 2, "\u1112\u1161\u11ab": 2, "🐱": 2, "\u200b": 0, "\u00ad": 1, "\x1b": 0, "—": 1, "☃": 1, "👩‍💻": 4,
	} {
		got := 0
		for _, r := range s {
			got += runeWidth(r)
		}
		if got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}
