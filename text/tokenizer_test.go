package text_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/winnow-llm/winnow/text"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tiny is a byte-level vocabulary of 320 tokens; 0 to 2 are <|pad|>, <|bos|>, <|eos|>.
func tiny(t testing.TB) text.Tokenizer {
	t.Helper()
	v, err := text.ParseTokenizerJSON(fixture(t, "tiny.json"))
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer(t, v)
}

// stories is a SentencePiece vocabulary of 512 tokens.
func stories(t testing.TB) text.Tokenizer {
	t.Helper()
	v, err := text.ParseSentencePiece(fixture(t, "stories260k.model"))
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer(t, v)
}

func tokenizer(t testing.TB, v *text.Vocab) text.Tokenizer {
	t.Helper()
	tok, err := text.NewTokenizer(v)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func encode(tok text.Tokenizer, s string) []int32 { return tok.Encode(nil, text.Span{Text: s}) }

func decode(tok text.Tokenizer, ids []int32) string {
	d := text.NewDecoder(tok)
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(d.Next(id))
	}
	return b.String() + d.Flush()
}

func TestSentencePieceModel(t *testing.T) {
	tok := stories(t)
	v := tok.Vocab()
	if v.BOS != 1 || v.EOS != 2 || v.UNK != 0 || v.PAD != -1 || !v.AddSpacePrefix {
		t.Errorf("bos %d eos %d unk %d pad %d prefix %v", v.BOS, v.EOS, v.UNK, v.PAD, v.AddSpacePrefix)
	}
	for _, c := range []struct {
		in   string
		want []int32
	}{
		{"Once upon a time", []int32{403, 407, 261, 378}},
		{"", nil},
		{"\x00", []int32{410, 3}},
		{"ψ\xff", []int32{410, 3 + 0xcf, 3 + 0x88, 3 + 0xff}},
	} {
		got := encode(tok, c.in)
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: got %v, want %v", c.in, got, c.want)
		}
		if back := decode(tok, got); back != strings.ToValidUTF8(c.in, "\ufffd") {
			t.Errorf("%q came back as %q", c.in, back)
		}
	}
}

// Borders between spans change nothing but who may write a control token.
func TestSpans(t *testing.T) {
	for name, c := range map[string]struct {
		tok           text.Tokenizer
		control, user string
		id            int32
	}{
		"bytes":         {tiny(t), "<|eos|>", " the end", 2},
		"sentencepiece": {stories(t), "</s>", " the end", 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := "Say" + c.control + c.user
			whole := encode(c.tok, s)
			if !slices.Contains(whole, c.id) {
				t.Fatalf("no id %d in %v", c.id, whole)
			}
			for i := range len(s) + 1 {
				got := c.tok.Encode([]int32{7}, text.Span{Text: s[:i]}, text.Span{Input: true}, text.Span{Text: s[i:]})
				if !slices.Equal(got[1:], whole) || got[0] != 7 {
					t.Errorf("cut at %d: %v, want 7 and %v", i, got, whole)
				}
			}
			for i := range len(c.control) {
				spans := []text.Span{{Text: "Say" + c.control[:i]}, {Text: c.control[i : i+1], Input: true}, {Text: c.control[i+1:] + c.user}}
				if got := c.tok.Encode(nil, spans...); slices.Contains(got, c.id) {
					t.Errorf("byte %d of the control token is a user's, and it counted: %v", i, got)
				} else if back := decode(c.tok, got); back != s {
					t.Errorf("decoded %q", back)
				}
			}
			spans := []text.Span{{Text: c.control, Input: true}, {Text: c.control}, {Text: c.control, Input: true}, {Text: c.control}}
			n := 0
			for _, id := range c.tok.Encode(nil, spans...) {
				if id == c.id {
					n++
				}
			}
			if n != 2 {
				t.Errorf("%d control tokens, want 2", n)
			}
		})
	}
}

func TestAddedTokens(t *testing.T) {
	v := *tiny(t).Vocab()
	v.Types = slices.Clone(v.Types)
	v.Tokens = append(slices.Clone(v.Tokens), "<think>", "<think", "<|mid|>", "<|im_end|>")
	v.Types = append(v.Types, text.TypeUserDefined, text.TypeUserDefined, text.TypeControl, text.TypeUserDefined)
	v.RStrip, v.LStrip = []int32{322}, []int32{322}
	tok := tokenizer(t, &v)
	if got := tok.Encode(nil, text.Span{Text: "<think><think", Input: true}); !slices.Equal(got, []int32{320, 321}) {
		t.Errorf("a user's <think>: %v", got)
	}
	if got := tok.Encode(nil, text.Span{Text: "<|im_end|>", Input: true}); slices.Contains(got, 323) {
		t.Errorf("a user ended the turn: %v", got)
	}
	a, b := encode(tok, "a"), encode(tok, "b")
	want := append(append(slices.Clone(a), 322), b...)
	if got := encode(tok, "a \n<|mid|>\u00a0 b"); !slices.Equal(got, want) {
		t.Errorf("white space around a token that swallows it: %v, want %v", got, want)
	}
}

func TestEndIDs(t *testing.T) {
	v := &text.Vocab{Tokens: []string{"a", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|eot_id|>", "</s>"},
		Types: []int32{1, 3, 3, 3, 3, 1, 3}, EOS: 6, EOG: []int32{0, 6}}
	if got, want := v.EndIDs(), []int32{6, 0, 1, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	v.Types[3] = 1
	if got, want := v.EndIDs(), []int32{6, 0, 1, 2, 4}; !slices.Equal(got, want) {
		t.Errorf("without <|return|>: got %v, want %v", got, want)
	}
	if got := (&text.Vocab{EOS: -1}).EndIDs(); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// A piece of any length takes n log n; a quadratic one would not end here.
func TestLongPieces(t *testing.T) {
	for name, tok := range map[string]text.Tokenizer{"bytes": tiny(t), "sentencepiece": stories(t)} {
		for _, unit := range []string{"a", " ", "the", "\n", "1", "é", "'", "<|", "<|eos|", "世"} {
			s := strings.Repeat(unit, 1<<18/len(unit))
			got := tok.Encode(nil, text.Span{Text: s, Input: true})
			if back := decode(tok, got); back != s {
				t.Errorf("%s: a long run of %q came back as %d bytes", name, unit, len(back))
			}
		}
	}
}

func TestEncodeFromManyGoroutines(t *testing.T) {
	for _, tok := range []text.Tokenizer{tiny(t), stories(t)} {
		s := "The cat sat on the mat, and the rat saw that. <|eos|></s> "
		want := encode(tok, s)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 200 {
					if got := encode(tok, s); !slices.Equal(got, want) {
						t.Errorf("got %v, want %v", got, want)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

// An expression that holds line ends means what one does that spells them, and has its name.
func TestLineEndsInExpression(t *testing.T) {
	var j map[string]any
	if err := json.Unmarshal(fixture(t, "tiny.json"), &j); err != nil {
		t.Fatal(err)
	}
	expr := strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(
		`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`)
	j["pre_tokenizer"] = map[string]any{"type": "Sequence", "pretokenizers": []any{
		map[string]any{"type": "Split", "pattern": map[string]any{"Regex": expr}, "behavior": "Isolated"},
		map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
	}}
	raw, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := text.ParseTokenizerJSON(raw); err != nil || v.Pre != "qwen2" {
		t.Errorf("%v, %v", v, err)
	}
}
