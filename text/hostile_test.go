package text_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/winnow-llm/winnow/text"
)

// hostileVocab is a small vocabulary of each kind that works until a case breaks it.
func hostileVocab(model string) *text.Vocab {
	v := &text.Vocab{Model: model, Tokens: []string{"<s>", "</s>", "a", "b", "ab", "<0x41>"}, Types: []int32{3, 3, 1, 1, 1, 1}, BOS: 0, EOS: 1, UNK: -1, PAD: -1,
		Merges: []string{"a b"}}
	if model == "llama" {
		v.Types[5] = text.TypeByte
		v.Merges, v.Scores = nil, []float32{0, 0, -1, -2, -3, 0}
	}
	return v
}

func TestHostileVocab(t *testing.T) {
	for _, c := range []struct {
		name, model string
		change      func(v *text.Vocab)
		want        string // in the error
	}{
		{"no tokens", "gpt2", func(v *text.Vocab) { v.Tokens = nil }, "no tokens"},
		{"model", "gpt2", func(v *text.Vocab) { v.Model = "bert" }, `"bert"`},
		{"pre", "gpt2", func(v *text.Vocab) { v.Pre = "nobody" }, `"nobody"`},
		{"expression", "gpt2", func(v *text.Vocab) { v.SplitRegex = []string{`\s+`, `(`} }, "split[1]"},
		{"expressions", "gpt2", func(v *text.Vocab) { v.SplitRegex = make([]string, 1000) }, "1000"},
		{"types", "gpt2", func(v *text.Vocab) { v.Types = v.Types[:3] }, "3 types"},
		{"type", "gpt2", func(v *text.Vocab) { v.Types[4] = 99 }, "types[4]"},
		{"byte in bytes", "gpt2", func(v *text.Vocab) { v.Types[5] = text.TypeByte }, "tokens[5]"},
		{"repeated", "gpt2", func(v *text.Vocab) { v.Tokens[3] = "a" }, "tokens[3] repeats tokens[2]"},
		{"merge alone", "gpt2", func(v *text.Vocab) { v.Merges = []string{"a b", "ab"} }, "merges[1]"},
		{"merge empty", "gpt2", func(v *text.Vocab) { v.Merges = []string{""} }, "merges[0]"},
		{"merge of nothing", "gpt2", func(v *text.Vocab) { v.Merges = []string{" a"} }, "merges[0]"},
		{"merge open", "gpt2", func(v *text.Vocab) { v.Merges = []string{"a "} }, "merges[0]"},
		{"merge cycle", "gpt2", func(v *text.Vocab) { v.Merges = []string{"a b", "ab a"} }, "merges[1]"},
		{"merge to control", "gpt2", func(v *text.Vocab) { v.Types[4] = text.TypeControl }, "merges[0]"},
		{"eos", "gpt2", func(v *text.Vocab) { v.EOS = 6 }, "eos is 6"},
		{"bos", "gpt2", func(v *text.Vocab) { v.BOS = -2 }, "bos is -2"},
		{"eog", "gpt2", func(v *text.Vocab) { v.EOG = []int32{1, 1 << 30} }, "eog[1]"},
		{"long token", "gpt2", func(v *text.Vocab) { v.Tokens[2] = strings.Repeat("x", 1<<20) }, "tokens[2]"},
		{"long control", "gpt2", func(v *text.Vocab) { v.Tokens[0] = strings.Repeat("x", 1<<12) }, "tokens[0]"},
		{"scores", "llama", func(v *text.Vocab) { v.Scores = v.Scores[:2] }, "2 scores"},
		{"score", "llama", func(v *text.Vocab) { v.Scores[3] = float32(math.NaN()) }, "scores[3]"},
		{"no ranks", "llama", func(v *text.Vocab) { v.Scores = nil }, "neither"},
		{"byte -1", "llama", func(v *text.Vocab) { v.Tokens[5] = "<0x-1>" }, "tokens[5]"},
		{"byte GG", "llama", func(v *text.Vocab) { v.Tokens[5] = "<0xGG>" }, "tokens[5]"},
		{"byte twice", "llama", func(v *text.Vocab) { v.Tokens[2], v.Types[2] = "<0x41>", text.TypeByte }, "tokens[5] repeats tokens[2]"},
		{"long piece", "llama", func(v *text.Vocab) { v.Tokens[2] = strings.Repeat("x", 1<<12) }, "tokens[2]"},
		{"twice", "llama", func(v *text.Vocab) { v.Tokens[3] = "a" }, "tokens[3] repeats tokens[2]"},
	} {
		v := hostileVocab(c.model)
		if _, err := text.NewTokenizer(v); err != nil {
			t.Fatalf("before any change: %v", err)
		}
		c.change(v)
		_, err := text.NewTokenizer(v)
		if !errors.Is(err, text.ErrVocab) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: got %v, want one with %s", c.name, err, c.want)
		}
	}
}

// Infinite scores order like others, bytes without a token go to UNK or nowhere.
func TestPoorVocab(t *testing.T) {
	v := hostileVocab("llama")
	v.Scores[4] = float32(math.Inf(1))
	tok := tokenizer(t, v)
	if got := encode(tok, "abAx"); !slices.Equal(got, []int32{4, 5}) {
		t.Errorf("without UNK: %v", got)
	}
	v.UNK = 1
	if got := encode(tokenizer(t, v), "xab"); !slices.Equal(got, []int32{1, 4}) {
		t.Errorf("with UNK: %v", got)
	}
	if got := encode(tokenizer(t, hostileVocab("gpt2")), "xab\xff"); !slices.Equal(got, []int32{4}) {
		t.Errorf("bytes: %v", got)
	}
}

func TestHostileJSON(t *testing.T) {
	var good map[string]any
	if err := json.Unmarshal(fixture(t, "tiny.json"), &good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, patch, want string
	}{
		{"model", `{"model":{"type":"Unigram"}}`, "Unigram"},
		{"vocab", `{"model":{"type":"BPE","vocab":[]}}`, "model.vocab"},
		{"id", `{"model":{"type":"BPE","vocab":{"a":-1}}}`, "-1"},
		{"far id", `{"model":{"type":"BPE","vocab":{"a":1000000}}}`, "1000000"},
		{"id twice", `{"model":{"type":"BPE","vocab":{"a":5,"b":5}}}`, "two tokens"},
		{"merge", `{"model":{"type":"BPE","vocab":{"a":5},"merges":[["a"]]}}`, "merges[0]"},
		{"merge number", `{"model":{"type":"BPE","vocab":{"a":5},"merges":["a a",7]}}`, "model.merges"},
		{"suffix", `{"model":{"type":"BPE","vocab":{"a":5},"end_of_word_suffix":"</w>"}}`, "suffix"},
		{"added", `{"added_tokens":[{"id":9999999,"content":"x"}]}`, "added_tokens[0]"},
		{"single word", `{"added_tokens":[{"id":3,"content":"x","single_word":true}]}`, "single_word"},
		{"normalizer", `{"normalizer":{"type":"Lowercase"}}`, "Lowercase"},
		{"no pre", `{"pre_tokenizer":null}`, "ByteLevel"},
		{"pre", `{"pre_tokenizer":{"type":"Whitespace"}}`, "Whitespace"},
		{"prefix", `{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true}}`, "add_prefix_space"},
		{"split", `{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"x"},"behavior":"MergedWithNext"}}`, "MergedWithNext"},
		{"template", `{"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}],"special_tokens":{"x":{"ids":[77777]}}}}`, "post_processor"},
		{"fallback", `{"model":{"type":"BPE","byte_fallback":true,"vocab":{"a":5}},"normalizer":null,"pre_tokenizer":null}`, "spaces"},
		{"not JSON", `[]`, ""},
	} {
		bad := map[string]any{}
		for k, x := range good {
			bad[k] = x
		}
		raw := []byte(c.patch)
		if json.Unmarshal(raw, &bad) == nil {
			raw, _ = json.Marshal(bad)
		}
		_, err := text.ParseTokenizerJSON(raw)
		if !errors.Is(err, text.ErrVocab) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want one with %q", c.name, err, c.want)
		}
	}
}

// A SentencePiece vocabulary written as tokenizer.json ranks merges in place of scores.
func TestSentencePieceJSON(t *testing.T) {
	base := `{"model":{"type":"BPE","unk_token":"<unk>","byte_fallback":true,
		"vocab":{"<unk>":0,"<s>":1,"<0x41>":2,"▁":3,"a":4,"b":5,"▁a":6,"ab":7},"merges":["a b","▁ a"]},
		"added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":1,"content":"<s>","special":true}],
		"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[1]}}},`
	prepend := `"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}}`
	meta := func(scheme string) string {
		return `"pre_tokenizer":{"type":"Metaspace","replacement":"▁","split":false,"prepend_scheme":"` + scheme + `"}}`
	}
	for _, c := range []struct {
		name, rest, in string
		want           []int32
	}{
		{"prepend", prepend, "ab<s> aA", []int32{3, 7, 1, 3, 6, 2}},
		{"never", meta("never"), "ab<s> aA", []int32{7, 1, 6, 2}},
		{"first", meta("first"), "ab<s>a", []int32{3, 7, 1, 4}},
		{"always", meta("always"), " a<s>a", []int32{6, 1, 6}},
		{"unknown", prepend, "xa", []int32{3, 0, 4}},
	} {
		v, err := text.ParseTokenizerJSON([]byte(base + c.rest))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if v.BOS != 1 || !v.AddBOS || v.UNK != 0 {
			t.Errorf("%s: bos %d %v unk %d", c.name, v.BOS, v.AddBOS, v.UNK)
		}
		if got := encode(tokenizer(t, v), c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestSentencePieceErrors(t *testing.T) {
	good := fixture(t, "stories260k.model")
	if _, err := text.ParseSentencePiece(good[:4000]); !errors.Is(err, text.ErrVocab) {
		t.Errorf("cut short: %v", err)
	}
	// The last trainer_spec counts: one that says unigram, and one whose escape is off.
	spec := func(field, inner protowire.Number, x uint64) []byte {
		msg := protowire.AppendVarint(protowire.AppendTag(nil, inner, protowire.VarintType), x)
		return append(slices.Clone(good), protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), msg)...)
	}
	for want, b := range map[string][]byte{
		"no pieces":    nil,
		"model_type 1": spec(2, 3, 1),
		"spaces":       spec(3, 5, 0),
		"pieces[512]":  spec(1, 3, 77),
	} {
		if _, err := text.ParseSentencePiece(b); !errors.Is(err, text.ErrVocab) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want one with %q", err, want)
		}
	}
}

// What stands behind a text in tokenizer.json stays so when a configuration names another EOS.
func TestClosing(t *testing.T) {
	v, err := text.ParseTokenizerJSON([]byte(`{"model":{"type":"BPE","unk_token":"<unk>","byte_fallback":true,
		"vocab":{"<unk>":0,"<s>":1,"<end>":2,"▁":3,"a":4},"merges":[]},
		"added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":1,"content":"<s>","special":true},{"id":2,"content":"<end>","special":true}],
		"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
		"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},{"SpecialToken":{"id":"<end>"}}],"special_tokens":{"<end>":{"ids":[2]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := text.ParseTokenizerConfig([]byte(`{"eos_token":"<s>"}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Apply(c); err != nil {
		t.Fatal(err)
	}
	if v.EOS != 1 || !v.AddEOS || v.AddBOS || !slices.Equal(v.Closing, []int32{2}) {
		t.Errorf("eos %d %v, closing %v", v.EOS, v.AddEOS, v.Closing)
	}
}

func TestTokenizerConfig(t *testing.T) {
	c, err := text.ParseTokenizerConfig([]byte(`{"bos_token":{"content":"<|bos|>"},"eos_token":"<|late|>","pad_token":null,"add_bos_token":true,
		"chat_template":[{"name":"tool_use","template":"T"},{"name":"default","template":"D"}],
		"added_tokens_decoder":{"322":{"content":"<|late|>","special":true,"rstrip":true},"1":{"content":"<|bos|>","special":true}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.ChatTemplate != "D" || c.Templates["tool_use"] != "T" {
		t.Errorf("templates %q %v", c.ChatTemplate, c.Templates)
	}
	v := tiny(t).Vocab()
	if err := v.Apply(c); err != nil {
		t.Fatal(err)
	}
	if v.BOS != 1 || v.EOS != 322 || v.PAD != -1 || !v.AddBOS || v.AddEOS || len(v.Tokens) != 323 {
		t.Errorf("bos %d eos %d pad %d add %v %v, %d tokens", v.BOS, v.EOS, v.PAD, v.AddBOS, v.AddEOS, len(v.Tokens))
	}
	if got := encode(tokenizer(t, v), "<|late|> \n<|bos|>"); !slices.Equal(got, []int32{322, 1}) {
		t.Errorf("got %v", got)
	}
	for _, s := range []string{`[]`, `{"eos_token":7}`, `{"chat_template":7}`, `{"added_tokens_decoder":{"-1":{}}}`, `{"added_tokens_decoder":{"x":{}}}`} {
		if _, err := text.ParseTokenizerConfig([]byte(s)); !errors.Is(err, text.ErrVocab) {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{`{"eos_token":"nobody"}`, `{"added_tokens_decoder":{"900000":{"content":"x"}}}`} {
		c, err := text.ParseTokenizerConfig([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		if err := tiny(t).Vocab().Apply(c); !errors.Is(err, text.ErrVocab) {
			t.Errorf("%s: %v", s, err)
		}
	}
}
