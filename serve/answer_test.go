package serve

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/winnow-llm/winnow/text"
)

// bytewise is a tokenizer with a token for every byte, a few longer ones, and a control token.
func bytewise(t *testing.T) text.Tokenizer {
	t.Helper()
	v := &text.Vocab{Model: "llama", BOS: -1, EOS: -1, UNK: -1, PAD: -1, AddSpacePrefix: true}
	for b := range 256 {
		v.Tokens = append(v.Tokens, "<0x"+strings.ToUpper(hex(b))+">")
		v.Types = append(v.Types, text.TypeByte)
	}
	for _, s := range []string{"stop", "▁a", "<end>"} {
		v.Tokens, v.Types = append(v.Tokens, s), append(v.Types, text.TypeNormal)
	}
	v.Types[len(v.Types)-1] = text.TypeControl
	v.Scores = make([]float32, len(v.Tokens))
	tok, err := text.NewTokenizer(v)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func hex(b int) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[b>>4], digits[b&15]})
}

// The writer never shows half a rune or a stop string's beginning, and each token comes with the text it makes.
func TestWriter(t *testing.T) {
	tok := bytewise(t)
	const stopID, a, control = 256, 257, 258
	for name, c := range map[string]struct {
		ids     []int32
		stops   []string
		want    string
		stopped bool
	}{
		"plain":                {[]int32{'h', 'i'}, nil, "hi", false},
		"leading space":        {[]int32{a, a}, nil, "a a", false},
		"runes":                {[]int32{0xE2, 0x82, 0xAC, 'x'}, nil, "€x", false},
		"half a rune at end":   {[]int32{'x', 0xE2, 0x82}, nil, "x\uFFFD", false},
		"control":              {[]int32{'x', control, 'y'}, nil, "xy", false},
		"stop":                 {[]int32{'x', stopID, 'y'}, []string{"stop"}, "x", true},
		"stop over tokens":     {[]int32{'x', 's', 't', 'o', 'p', 'y'}, []string{"stop"}, "x", true},
		"stop within a token":  {[]int32{'x', stopID}, []string{"op"}, "xst", true},
		"no stop after all":    {[]int32{'s', 't', 'o', 'x'}, []string{"stop"}, "stox", false},
		"unfinished stop":      {[]int32{'s', 't', 'o'}, []string{"stop"}, "sto", false},
		"stop with runes":      {[]int32{'x', 0xE2, 0x82, 0xAC, 'y'}, []string{"€"}, "x", true},
		"stop in what is left": {[]int32{'x', 0xE2}, []string{"\uFFFD"}, "x", true},
		"two stops, the first": {[]int32{'a', 'b', 'c'}, []string{"c", "b"}, "a", true},
	} {
		w := newWriter(tok, nil, c.stops)
		var all Delta
		add := func(d Delta) {
			if !utf8.ValidString(d.Text) {
				t.Errorf("%s: %q", name, d.Text)
			}
			all.Text, all.Tokens = all.Text+d.Text, append(all.Tokens, d.Tokens...)
		}
		for _, id := range c.ids {
			add(w.push(piece{TokenLogprob: TokenLogprob{ID: id, Bytes: tok.Piece(id)}, wanted: true}))
			if w.stopped {
				break
			}
		}
		add(w.flush())
		bytes := ""
		for _, tok := range all.Tokens {
			bytes += string(tok.Bytes)
		}
		if all.Text != c.want || w.stopped != c.stopped || strings.ToValidUTF8(bytes, "\uFFFD") != c.want {
			t.Errorf("%s: %q of %q, stopped %v, want %q", name, all.Text, bytes, w.stopped, c.want)
		}
	}
}
