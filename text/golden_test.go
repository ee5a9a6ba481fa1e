package text_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/text"
)

// shared is a file beside the repository, or skips the test.
func shared(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join("..", "..", "shared", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs %s beside the repository", name)
	}
	return path
}

// vectors reads the texts and ids of one of llama.cpp's tokenizer tests.
func vectors(t testing.TB, name string) (texts []string, ids [][]int32) {
	t.Helper()
	in, err := os.ReadFile(shared(t, "assets/ggml-vocab/ggml-vocab-"+name+".gguf.inp"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(shared(t, "assets/ggml-vocab/ggml-vocab-"+name+".gguf.out"))
	if err != nil {
		t.Fatal(err)
	}
	texts = strings.Split(string(in), "\n__ggml_vocab_test__\n")
	lines := strings.Split(string(out), "\n")
	for i := range texts {
		var l []int32
		for _, f := range strings.Fields(lines[i]) {
			n, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			l = append(l, int32(n))
		}
		ids = append(ids, l)
	}
	return texts, ids
}

// checkVectors encodes all texts and decodes all ids.
func checkVectors(t *testing.T, tok text.Tokenizer, name string) {
	texts, ids := vectors(t, name)
	right := 0
	for i, s := range texts {
		got := tok.Encode(nil, text.Span{Text: s, Input: true})
		if !slices.Equal(got, ids[i]) {
			t.Errorf("%q\n got %v\nwant %v", s, got, ids[i])
			continue
		}
		right++
		d := text.NewDecoder(tok)
		var back strings.Builder
		for _, id := range got {
			back.WriteString(d.Next(id))
		}
		back.WriteString(d.Flush())
		if back.String() != s {
			t.Errorf("decoded %q, want %q", back.String(), s)
		}
	}
	t.Logf("%s: %d of %d", name, right, len(texts))
}

// Every vocabulary with vectors is followed, but BERT's, which is WordPiece.
func TestVectorsOfVocabularies(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(shared(t, "assets/ggml-vocab"), "ggml-vocab-*.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "ggml-vocab-"), ".gguf")
		t.Run(name, func(t *testing.T) {
			v, err := ggufVocab(f)
			if err != nil {
				t.Fatal(err)
			}
			if v.Model == "bert" {
				t.Skip("WordPiece")
			}
			checkVectors(t, tokenizer(t, v), name)
		})
	}
}

// folder reads tokenizer.json and tokenizer_config.json of a model folder.
func folder(t testing.TB, dir string) *text.Vocab {
	t.Helper()
	b, err := os.ReadFile(shared(t, dir+"/tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := text.ParseTokenizerJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(shared(t, dir+"/tokenizer_config.json")); err != nil {
		t.Fatal(err)
	}
	c, err := text.ParseTokenizerConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Apply(c); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectorsOfQwen3(t *testing.T) {
	v := folder(t, "assets/qwen3-tokenizer")
	if v.Pre != "qwen2" || !v.NFC || v.Tokens[v.EOS] != "<|im_end|>" || v.BOS != -1 {
		t.Errorf("pre %q nfc %v eos %d bos %d", v.Pre, v.NFC, v.EOS, v.BOS)
	}
	tok := tokenizer(t, v)
	checkVectors(t, tok, "qwen2")
	chat := "<|im_start|>user\nHi<|im_end|>\n"
	if got, want := encode(tok, chat), []int32{151644, 872, 198, 13048, 151645, 198}; !slices.Equal(got, want) {
		t.Errorf("%q: got %v, want %v", chat, got, want)
	}
	if a, b := encode(tok, "e\u0301"), encode(tok, "\u00e9"); !slices.Equal(a, b) {
		t.Errorf("not composed: %v, want %v", a, b)
	}
}

// The slow path gives the ids of the hand-written splitters.
func TestVectorsThroughMatcher(t *testing.T) {
	v := folder(t, "assets/qwen3-tokenizer")
	v.Pre = ""
	v.SplitRegex = []string{`(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`}
	checkVectors(t, tokenizer(t, v), "qwen2")
}

// A model's GGUF file and its folder say the same.
func TestDemoModel(t *testing.T) {
	tok := tokenizer(t, folder(t, "models/demo-moe"))
	v, err := ggufVocab(shared(t, "models/demo-moe/model.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	twin := tokenizer(t, v)
	for s, want := range map[string][]int32{
		"Once upon a time, there was": {453, 458, 258, 411, 11, 401, 285},
		"<|im_start|>user\n":          {4094, 574, 274, 198},
	} {
		if got := encode(tok, s); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", s, got, want)
		}
	}
	for _, name := range []string{"chat", "go", "books"} {
		b, err := os.ReadFile(shared(t, "models/demo-moe/eval/"+name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		a := encode(tok, string(b))
		if !slices.Equal(a, encode(twin, string(b))) {
			t.Errorf("%s: the two files differ", name)
		}
		if got := decode(tok, tok.Encode(nil, text.Span{Text: string(b), Input: true})); got != string(b) {
			t.Errorf("%s: decoding gives another text", name)
		}
	}
	if got, want := tok.Vocab().EndIDs(), []int32{4095, 4093}; !slices.Equal(got, want) {
		t.Errorf("end ids %v, want %v", got, want)
	}
}

func TestStoriesModel(t *testing.T) {
	v, err := ggufVocab(shared(t, "models/stories260k/model.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := stories(t), tokenizer(t, v)
	for _, s := range []string{"Once upon a time", "  Once  upon a time ", "Lily's mom said, \"Héllo\"\n", "\t世界"} {
		if x, y := encode(a, s), encode(b, s); !slices.Equal(x, y) {
			t.Errorf("%q: %v from tokenizer.model, %v from GGUF", s, x, y)
		}
	}
}

// The tiny models name the pre-tokenizers of their architectures.
func TestTinyModels(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join("..", "..", "shared", "models", "tiny", "*", "model.gguf"))
	if len(files) == 0 {
		t.Skip("needs models/tiny beside the repository")
	}
	for _, f := range files {
		v, err := ggufVocab(f)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := text.NewTokenizer(v)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		const s = "Hello, Wörld! 12345\r\n\t  I'm here. 世界 ＡＢ a\u0301"
		if got := decode(tok, encode(tok, s)); got != s {
			t.Errorf("%s (%s): %q came back as %q", f, v.Pre, s, got)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	raw, err := os.ReadFile(shared(b, "models/demo-moe/eval/books.txt"))
	if err != nil {
		b.Fatal(err)
	}
	prose := strings.Repeat(string(raw), 1+(1<<20)/len(raw))
	bench := func(name string, tok text.Tokenizer, s string) {
		b.Run(name, func(b *testing.B) {
			var ids []int32
			b.SetBytes(int64(len(s)))
			for b.Loop() {
				ids = tok.Encode(ids[:0], text.Span{Text: s, Input: true})
			}
			b.ReportMetric(float64(len(ids))*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mtok/s")
		})
	}
	for _, name := range []string{"gpt-2", "falcon", "deepseek-llm", "llama-spm"} {
		v, err := ggufVocab(shared(b, "assets/ggml-vocab/ggml-vocab-"+name+".gguf"))
		if err != nil {
			b.Fatal(err)
		}
		bench(name, tokenizer(b, v), prose)
	}
	qwen := tokenizer(b, folder(b, "assets/qwen3-tokenizer"))
	bench("qwen3", qwen, prose)
	bench("qwen3 long piece", qwen, strings.Repeat("a", 1<<20))
}
