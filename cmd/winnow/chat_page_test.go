package main

import (
	"strings"
	"testing"
)

func TestPageBreaksBetweenWords(t *testing.T) {
	long := "```\nx = a_function_with_a_long_name(argument)\n```\n"
	for _, c := range []struct{ name, answer, want string }{
		{"short", "One line.\n", "One line."},
		{"a break is added", "One line.", "One line."},
		{"words", "The quick brown fox jumps over the lazy dog.", "The quick brown fox\njumps over the lazy\ndog."},
		{"a space at the edge", "aaaaaaaaa aaaaaaaaa b", "aaaaaaaaa aaaaaaaaa\nb"},
		{"a word longer than a line", "a " + strings.Repeat("b", 25), "a\nbbbbbbbbbbbbbbbbbbb\nbbbbbb"},
		{"wide", "abc 日本語の文章には空白がない。", "abc 日本語の文章に\nは空白がない。"},
		{"lines of the answer", "one\n\n- two\n", "one\n\n- two"},
		{"a table", "|a|\n", "|a|"},
	} {
		for _, piece := range []int{1, 2, 7, 1000} {
			g := newGlass(t, 20, 12)
			p := &page{out: crlf{g}, columns: func() int { return 20 }, wordwrap: true}
			for r := []rune(c.answer); len(r) > 0; r = r[min(piece, len(r)):] {
				if err := p.write(string(r[:min(piece, len(r))])); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.end(); err != nil {
				t.Fatal(err)
			}
			got, at, _ := strings.Cut(g.String(), "@")
			var lines []string
			for line := range strings.Lines(got) {
				lines = append(lines, strings.TrimRight(line, " \n"))
			}
			if got := strings.Join(lines, "\n"); got != c.want || !strings.HasSuffix(at, ":0") {
				t.Errorf("%s, %d at a time: %q, want %q; cursor %s", c.name, piece, got, c.want, at)
			}
		}
	}
	for _, c := range []struct{ name, answer, want string }{
		{"code", "a b\n" + long + "The quick brown fox jumps\n", "a b\n" + long + "The quick brown fox\x1b[0D"},
		{"control characters", "a\x1b[2Jb\x07\u009b31mc\r\n", "a[2Jb31mc\n"},
	} {
		var out strings.Builder
		p := &page{out: &out, columns: func() int { return 20 }, wordwrap: true}
		if err := p.write(c.answer); err != nil {
			t.Fatal(err)
		}
		if want, _, _ := strings.Cut(c.want, "\x1b"); !strings.HasPrefix(out.String(), want) {
			t.Errorf("%s: %q, want %q", c.name, out.String(), want)
		}
	}
}

// Piped, an answer is passed on as it is.
func TestPageElsewhere(t *testing.T) {
	var out strings.Builder
	p := &page{out: &out, wordwrap: true}
	answer := strings.Repeat("word ", 40) + "\x1b[2J"
	if err := p.write(answer); err != nil {
		t.Fatal(err)
	}
	if err := p.end(); err != nil || out.String() != answer+"\n" {
		t.Errorf("%v: %q", err, out.String())
	}
}
