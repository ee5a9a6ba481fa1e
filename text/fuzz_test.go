package text_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/winnow-llm/winnow/text"
)

// exercise checks what holds for every vocabulary that was accepted: no panic, ids within it, and no control
// token out of what a user wrote.
func exercise(t *testing.T, v *text.Vocab) {
	tok, err := text.NewTokenizer(v)
	if err != nil {
		if !errors.Is(err, text.ErrVocab) {
			t.Fatalf("not a vocabulary error: %v", err)
		}
		return
	}
	v.EndIDs()
	s := "a <|eos|></s> the\n\n 12é世\xff" + strings.Join(v.Tokens[:min(8, len(v.Tokens))], " ")
	for _, input := range []bool{false, true} {
		d := text.NewDecoder(tok)
		for _, id := range tok.Encode(nil, text.Span{Text: s, Input: input}) {
			if id < 0 || int(id) >= len(v.Tokens) {
				t.Fatalf("id %d of %d", id, len(v.Tokens))
			}
			if input && len(v.Types) > 0 && v.Types[id] == text.TypeControl && id != v.UNK {
				t.Fatalf("a user wrote control token %d %q", id, v.Tokens[id])
			}
			d.Next(id)
		}
		d.Flush()
	}
}

func FuzzTokenizerJSON(f *testing.F) {
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},"pre_tokenizer":{"type":"Sequence","pretokenizers":[` +
		`{"type":"Split","pattern":{"Regex":"\\p{N}"},"behavior":"Isolated"},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},"normalizer":{"type":"NFC"}}`))
	f.Add([]byte(`{"model":{"type":"BPE","byte_fallback":true,"vocab":{"<0x41>":0,"▁":1,"a":2,"▁a":3},"merges":[["▁","a"]]},` +
		`"pre_tokenizer":{"type":"Metaspace","replacement":"▁","split":false,"prepend_scheme":"first"},"added_tokens":[{"id":4,"content":"x","special":true}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := text.ParseTokenizerJSON(b)
		if err != nil {
			if !errors.Is(err, text.ErrVocab) {
				t.Fatal(err)
			}
			return
		}
		exercise(t, v)
	})
}

func FuzzSentencePiece(f *testing.F) {
	// A few pieces and the end of a real model: a fuzzer gets nowhere with long inputs.
	var small []byte
	for rest := fixture(f, "stories260k.model"); len(rest) > 0; {
		n := protowire.ConsumeFieldValue(1, protowire.BytesType, rest[1:]) + 1
		if num, _, _ := protowire.ConsumeTag(rest); num != 1 || len(small) < 150 {
			small = append(small, rest[:n]...)
		}
		rest = rest[n:]
	}
	f.Add(small)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := text.ParseSentencePiece(b)
		if err != nil {
			if !errors.Is(err, text.ErrVocab) {
				t.Fatal(err)
			}
			return
		}
		exercise(t, v)
	})
}

// FuzzRoundTrip checks that byte-level BPE loses nothing, wherever spans are cut and whatever the bytes are.
func FuzzRoundTrip(f *testing.F) {
	v := tiny(f).Vocab()
	var toks []text.Tokenizer
	for _, pre := range []string{"gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken", "falcon", "smollm", "deepseek-llm", "deepseek-coder", "deepseek-v3", "qwen35", "viking", "default", "seed-coder", "kimi-k2", "afmoe", "exaone-moe", "youtu"} {
		w := *v
		w.Pre = pre
		toks = append(toks, tokenizer(f, &w))
	}
	f.Add("Hello, World's end 123\r\n\t  x", uint16(3))
	f.Add("<|eos|>\xff\xe2\x82 \u00a0世界ア e\u0301Ａ½", uint16(9))
	f.Fuzz(func(t *testing.T, s string, cut uint16) {
		at := int(cut) % (len(s) + 1)
		for _, tok := range toks {
			ids := tok.Encode(nil, text.Span{Text: s[:at], Input: true}, text.Span{Text: s[at:], Input: true})
			var b []byte
			for _, id := range ids {
				b = append(b, tok.Piece(id)...)
			}
			if string(b) != s {
				t.Fatalf("%s: %q came back as %q", tok.Vocab().Pre, s, b)
			}
			if whole := tok.Encode(nil, text.Span{Text: s, Input: true}); !slices.Equal(ids, whole) {
				t.Fatalf("%s: %q in two spans: %v, in one: %v", tok.Vocab().Pre, s, ids, whole)
			}
			if back := decode(tok, ids); len(s) > 0 && strings.ToValidUTF8(s, "") == s && back != s {
				t.Fatalf("%s: decoded %q, want %q", tok.Vocab().Pre, back, s)
			}
		}
	})
}
