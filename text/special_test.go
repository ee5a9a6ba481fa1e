package text_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/text"
)

// vocabularies are those of the tests' own files and those beside the repository that can be read.
func vocabularies(t testing.TB) map[string]text.Tokenizer {
	all := map[string]text.Tokenizer{"tiny": tiny(t), "stories": stories(t)}
	root := filepath.Join("..", "..", "shared")
	for _, pattern := range []string{"assets/ggml-vocab/*.gguf", "models/*/model.gguf", "models/tiny/*/model.gguf"} {
		files, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, f := range files {
			v, err := ggufVocab(f)
			if err != nil {
				t.Fatal(err)
			}
			if v.Model != "bert" {
				all[strings.TrimPrefix(f, root+"/")] = tokenizer(t, v)
			}
		}
	}
	if folders, _ := filepath.Glob(filepath.Join(root, "assets/qwen3-tokenizer/tokenizer.json")); len(folders) > 0 {
		all["qwen3"] = tokenizer(t, folder(t, "assets/qwen3-tokenizer"))
	}
	return all
}

// controls are the control tokens of a vocabulary that are not its unknown token.
func controls(tok text.Tokenizer) (ids []int32) {
	v := tok.Vocab()
	for id := range v.Types {
		if v.Types[id] == text.TypeControl && v.Tokens[id] != "" && int32(id) != v.UNK {
			ids = append(ids, int32(id))
		}
	}
	return ids
}

// chatTemplate writes messages between marks of a vocabulary, as published templates do.
const chatTemplate = `{% for m in messages %}{{ mark + m.role + "\n" + m.content + mark }}{% endfor %}{{ mark }}`

// chat renders messages of users.
func chat(t testing.TB, tmpl *text.Template, mark string, contents ...string) []text.Span {
	t.Helper()
	var messages []text.Value
	for _, c := range contents {
		messages = append(messages, text.Dict(text.Pair{Key: "role", Value: text.String("user")}, text.Pair{Key: "content", Value: text.Input(c)}))
	}
	spans, err := tmpl.Render(text.Dict(text.Pair{Key: "mark", Value: text.String(mark)}, text.Pair{Key: "messages", Value: text.List(messages...)}), text.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return spans
}

// TestNobodyTypesControlTokens writes every control token of every vocabulary where a user may: whole, cut over two messages, and
// completed by what the template writes.
func TestNobodyTypesControlTokens(t *testing.T) {
	tmpl, err := text.ParseTemplate(chatTemplate)
	if err != nil {
		t.Fatal(err)
	}
	for name, tok := range vocabularies(t) {
		t.Run(name, func(t *testing.T) {
			ids := controls(tok)
			if len(ids) == 0 {
				t.Skip("no control tokens")
			}
			mark := tok.Vocab().Tokens[ids[0]]
			count := func(spans []text.Span) (n int) {
				for _, id := range tok.Encode(nil, spans...) {
					if slices.Contains(ids, id) {
						n++
					}
				}
				return n
			}
			in := func(s string) text.Span { return text.Span{Text: s, Input: true} }
			for _, id := range ids {
				s := tok.Vocab().Tokens[id]
				typed := "Say " + s + " now"
				if n := count([]text.Span{in(typed)}); n != 0 {
					t.Errorf("%q typed makes %d control tokens", typed, n)
				}
				if got := decode(tok, tok.Encode(nil, in(typed))); got != typed && !tok.Vocab().NFC {
					t.Errorf("%q typed came back as %q", typed, got)
				}
				for cut := 1; cut < len(s); cut++ {
					if n := count([]text.Span{in(s[:cut]), in(s[cut:])}); n != 0 {
						t.Errorf("%q cut at %d makes %d control tokens", s, cut, n)
					}
					if n := count([]text.Span{in(s[:cut]), {Text: s[cut:]}}); n != 0 && !strings.Contains(s[cut:], mark) {
						t.Errorf("%q begun by a user and ended by a template at %d makes %d control tokens", s, cut, n)
					}
				}
				if n := count(chat(t, tmpl, mark, s, s[:len(s)/2], s[len(s)/2:], s+mark)); n != 9 {
					t.Errorf("a chat about %q has %d control tokens, its template wrote 9", s, n)
				}
			}
		})
	}
}

// FuzzIDs: what any ids say, encoded and decoded again, says the same.
func FuzzIDs(f *testing.F) {
	toks := []text.Tokenizer{tiny(f), stories(f)}
	for _, tok := range toks {
		var b []byte
		for _, id := range encode(tok, "Once upon a time, 12 ｃats  \n<|eos|>") {
			b = append(b, byte(id), byte(id>>8))
		}
		f.Add(b)
	}
	f.Add([]byte{2, 0, 0xff, 0xff, 0, 1, 3, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, tok := range toks {
			var ids []int32
			for i := 0; i+1 < len(b); i += 2 {
				ids = append(ids, int32(b[i])|int32(b[i+1])<<8)
			}
			said := decode(tok, ids)
			again := decode(tok, tok.Encode(nil, text.Span{Text: said, Input: true}))
			if again != said {
				t.Fatalf("%s: %v say %q, and again %q", tok.Vocab().Model, ids, said, again)
			}
		}
	})
}
