package text

import (
	"strings"
	"unicode/utf8"
)

// Decoder turns ids into text one at a time and never cuts a rune. One goroutine.
type Decoder struct {
	// Control asks for the literal text of control tokens, which is otherwise left out.
	Control bool

	t       Tokenizer
	pending []byte // the beginning of a rune
	atStart bool   // nothing was decoded yet, so that an added space is still to be taken away
}

// NewDecoder decodes a text from its start.
func NewDecoder(t Tokenizer) *Decoder {
	v := t.Vocab()
	return &Decoder{t: t, atStart: v.Model == "llama" && v.AddSpacePrefix}
}

// Continue tells a new decoder that its text goes on after prompt: a space that follows ordinary text is then
// kept, and a rune that the prompt begins is finished. After a control token text starts anew.
func (d *Decoder) Continue(prompt []int32) {
	const most = utf8.UTFMax - 1 // tokens that can hold the beginning of a rune
	for _, id := range prompt[max(0, len(prompt)-most):] {
		d.Next(id)
	}
	if n := len(prompt); n > 0 && !d.control(prompt[n-1]) {
		d.atStart = false
	} else if n > 0 {
		v := d.t.Vocab()
		d.atStart = v.Model == "llama" && v.AddSpacePrefix && !v.PrefixFirst
	}
}

func (d *Decoder) control(id int32) bool {
	v := d.t.Vocab()
	if id < 0 || int(id) >= len(v.Tokens) {
		return true
	}
	k := v.kind(id)
	return k == TypeControl || k == TypeUnknown
}

// Next is the text that id completes: whole runes, with what is no UTF-8 as U+FFFD by Unicode's rule of
// maximal subparts. The beginning of a rune is held back until its end comes or cannot come any more.
func (d *Decoder) Next(id int32) string {
	piece := d.t.Piece(id)
	if d.control(id) {
		if !d.Control {
			return ""
		}
	} else if d.atStart && len(piece) > 0 {
		d.atStart = false
		if piece[0] == ' ' {
			piece = piece[1:]
		}
	}
	if len(d.pending) == 0 && utf8.Valid(piece) {
		return string(piece)
	}
	d.pending = append(d.pending, piece...)
	out, n := validRunes(d.pending)
	d.pending = append(d.pending[:0], d.pending[n:]...)
	return out
}

// Flush ends the text: what is held back becomes U+FFFD.
func (d *Decoder) Flush() string {
	if len(d.pending) == 0 {
		return ""
	}
	d.pending = d.pending[:0]
	return string(utf8.RuneError)
}

// validRunes is the text of b up to an unfinished rune at its end, and how many bytes that took.
func validRunes(b []byte) (string, int) {
	var out strings.Builder
	i := 0
	for i < len(b) && utf8.FullRune(b[i:]) {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			n = subpart(b[i:])
		}
		out.WriteRune(r)
		i += n
	}
	return out.String(), i
}

// subpart is the length of the longest beginning of b that could have begun a rune, at least 1.
func subpart(b []byte) int {
	for n := min(len(b), utf8.UTFMax) - 1; n > 1; n-- {
		if !utf8.FullRune(b[:n]) {
			return n
		}
	}
	return 1
}
