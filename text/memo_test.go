package text_test

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/winnow-llm/winnow/text"
)

// book is a memo that forgets nothing, or all.
type book struct {
	mu      sync.Mutex
	ids     map[string][]int32
	found   int
	forgets bool
}

func (b *book) Find(s string) ([]int32, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids, ok := b.ids[s]
	if ok {
		b.found++
	}
	return ids, ok
}

func (b *book) Keep(s string, ids []int32) {
	if !b.forgets {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.ids[strings.Clone(s)] = slices.Clone(ids)
	}
}

// vocabTables are all that tests have: one of each kind here, and those beside the repository where they are.
func vocabTables(t testing.TB) map[string]*text.Vocab {
	t.Helper()
	all := map[string]*text.Vocab{"tiny": tiny(t).Vocab()}
	spm, err := text.ParseSentencePiece(fixture(t, "stories260k.model"))
	if err != nil {
		t.Fatal(err)
	}
	all["stories"] = spm
	for name, change := range map[string]func(*text.Vocab){
		"stories, space first": func(v *text.Vocab) { v.AddSpacePrefix, v.PrefixFirst = true, true },
		"stories, if none":     func(v *text.Vocab) { v.AddSpacePrefix, v.PrefixIfNone = true, true },
		"stories, stripped":    func(v *text.Vocab) { v.LStrip, v.RStrip = []int32{v.EOS}, []int32{v.BOS} },
	} {
		v := *spm
		change(&v)
		all[name] = &v
	}
	files, err := filepath.Glob(filepath.Join("..", "..", "shared", "assets", "ggml-vocab", "ggml-vocab-*.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if v, err := ggufVocab(f); err == nil && v.Model != "bert" && !testing.Short() {
			all[filepath.Base(f)] = v
		}
	}
	return all
}

// wholeTexts are some texts of a vocabulary that are matched whole.
func wholeTexts(v *text.Vocab) (out []string) {
	for i, kind := range v.Types {
		if (kind == text.TypeControl || kind == text.TypeUserDefined) && len(out) < 6 {
			out = append(out, v.Tokens[i])
		}
	}
	return out
}

// A tokenizer that remembers gives the ids of one that does not, in every vocabulary, whatever it remembers and wherever spans are cut.
func TestRemembering(t *testing.T) {
	words := []string{"Once upon a time, ", "  there\n\n", "was é世界 ", "12345 ", "\t", " ", strings.Repeat("a story of a cat ", 12), "\xff\xe2", "x"}
	for name, v := range vocabTables(t) {
		plain := tokenizer(t, v)
		full, empty := &book{ids: map[string][]int32{}}, &book{forgets: true}
		remembers, forgets := text.Remembering(plain, full), text.Remembering(plain, empty)
		parts := append(slices.Clone(words), wholeTexts(v)...)
		rng := rand.New(rand.NewPCG(7, uint64(len(v.Tokens))))
		var spans []text.Span
		for turn := range 60 {
			if turn%12 == 0 {
				spans = nil
			}
			for range 1 + rng.IntN(4) {
				spans = append(spans, text.Span{Text: parts[rng.IntN(len(parts))], Input: rng.IntN(3) == 0})
			}
			want := plain.Encode(nil, spans...)
			for range 2 {
				if got := remembers.Encode([]int32{1, 2}, spans...); !slices.Equal(got[2:], want) {
					t.Fatalf("%s: %+v\n got %v\nwant %v", name, spans, got[2:], want)
				}
			}
			if got := forgets.Encode(nil, spans...); !slices.Equal(got, want) {
				t.Fatalf("%s: %+v\n got %v\nwant %v", name, spans, got, want)
			}
		}
		if full.found == 0 {
			t.Errorf("%s: nothing was remembered", name)
		}
	}
}

// FuzzRemembering grows a text and compares, with vocabularies of both kinds.
func FuzzRemembering(f *testing.F) {
	v := vocabTables(f)
	var plain, remembers []text.Tokenizer
	for _, name := range []string{"tiny", "stories", "stories, space first", "stories, if none", "stories, stripped"} {
		tok := tokenizer(f, v[name])
		plain = append(plain, tok)
		remembers = append(remembers, text.Remembering(tok, &book{ids: map[string][]int32{}}))
	}
	f.Add("<s>"+strings.Repeat("once ", 40), "</s> twice\n"+strings.Repeat(" more", 40), uint8(3))
	f.Add(strings.Repeat("é<|eos|>", 40), strings.Repeat(" \n", 80)+"<|eos|>", uint8(0))
	f.Fuzz(func(t *testing.T, a, b string, origin uint8) {
		spans := []text.Span{{Text: a, Input: origin&1 > 0}, {Text: b, Input: origin&2 > 0}, {Text: a, Input: origin&4 > 0}}
		for i, tok := range plain {
			for n := range spans {
				if want, got := tok.Encode(nil, spans[:n+1]...), remembers[i].Encode(nil, spans[:n+1]...); !slices.Equal(got, want) {
					t.Fatalf("%d: %+v\n got %v\nwant %v", i, spans[:n+1], got, want)
				}
			}
		}
	})
}

// Values that differ have different keys, and those that do not the same.
func TestValueKeys(t *testing.T) {
	seen := map[string]int{}
	for i, v := range []text.Value{
		text.Undefined, text.None, text.Bool(false), text.Bool(true), text.Int(0), text.Int(1), text.Int(-17), text.Float(1), text.String("1"),
		text.String(""), text.Input("1"), text.List(), text.List(text.Int(1), text.Int(2)), text.List(text.List(text.Int(1)), text.Int(2)),
		text.List(text.String("a"), text.String("b")), text.List(text.String("ab")), text.List(text.String("a"), text.Input("b")),
		text.Dict(), text.Dict(text.Pair{Key: "a", Value: text.Int(1)}), text.Dict(text.Pair{Key: "a", Value: text.None}),
	} {
		key := string(v.AppendKey(nil))
		if other, twice := seen[key]; twice {
			t.Errorf("values %d and %d have one key %q", other, i, key)
		}
		if seen[key] = i; string(v.AppendKey([]byte("x"))) != "x"+key {
			t.Errorf("value %d has two keys", i)
		}
	}
}
