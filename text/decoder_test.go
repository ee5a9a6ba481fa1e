package text_test

import (
	"testing"

	"github.com/winnow-llm/winnow/text"
)

// byteID is the token of a byte in the stories vocabulary.
func byteID(b byte) int32 { return 3 + int32(b) }

func TestDecoderRunes(t *testing.T) {
	tok := stories(t)
	for _, c := range []struct {
		in    string
		steps []string // what each byte gives, then Flush
	}{
		{"ab", []string{"a", "b", ""}},
		{"é", []string{"", "é", ""}},
		{"😀", []string{"", "", "", "😀", ""}},
		{"\xe2\x82A", []string{"", "", "\ufffdA", ""}},
		{"\xf0\x9f", []string{"", "", "\ufffd"}},
		{"\x80\xc0\xff", []string{"\ufffd", "\ufffd", "\ufffd", ""}},
		{"\xed\xa0\x80", []string{"", "\ufffd\ufffd", "\ufffd", ""}},
		{"\xf0\x9f\x98\xe2\x82\xac", []string{"", "", "", "\ufffd", "", "€", ""}},
		{"\xf4\x90A", []string{"", "\ufffd\ufffd", "A", ""}},
		{"", []string{""}},
	} {
		d := text.NewDecoder(tok)
		for i := range len(c.in) {
			if got := d.Next(byteID(c.in[i])); got != c.steps[i] {
				t.Errorf("%q byte %d: got %q, want %q", c.in, i, got, c.steps[i])
			}
		}
		if got, want := d.Flush(), c.steps[len(c.in)]; got != want {
			t.Errorf("%q at the end: got %q, want %q", c.in, got, want)
		}
	}
}

func TestDecoderStart(t *testing.T) {
	tok := stories(t)
	const bos, once, upon = 1, 403, 407
	d := text.NewDecoder(tok)
	if got := d.Next(bos) + d.Next(once) + d.Next(upon); got != "Once upon" {
		t.Errorf("from the start: %q", got)
	}
	d = text.NewDecoder(tok)
	d.Continue([]int32{bos, once})
	if got := d.Next(upon); got != " upon" {
		t.Errorf("continued: %q", got)
	}
	d = text.NewDecoder(tok)
	d.Continue([]int32{once, bos})
	if got := d.Next(upon); got != "upon" {
		t.Errorf("after a control token: %q", got)
	}
	d = text.NewDecoder(tok)
	d.Continue([]int32{bos, byteID(0xc3)})
	if got := d.Next(byteID(0xa9)); got != "é" {
		t.Errorf("a rune that the prompt begins: %q", got)
	}
	d = text.NewDecoder(tok)
	d.Control = true
	if got := d.Next(bos) + d.Next(once) + d.Next(-1) + d.Next(1<<30) + d.Flush(); got != "<s>Once" {
		t.Errorf("with control tokens: %q", got)
	}
}

func TestPiece(t *testing.T) {
	for _, tok := range []text.Tokenizer{tiny(t), stories(t)} {
		if tok.Piece(-1) != nil || tok.Piece(int32(len(tok.Vocab().Tokens))) != nil {
			t.Error("a piece outside the vocabulary")
		}
	}
	if got := string(stories(t).Piece(403)); got != " Once" {
		t.Errorf("piece 403 is %q", got)
	}
}
