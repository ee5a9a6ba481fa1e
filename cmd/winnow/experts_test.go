package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vbauerster/mpb/v8"

	"github.com/winnow-llm/winnow/compress"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

const story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball.\n"

func TestExpertsProfile(t *testing.T) {
	t.Setenv("TMPDIR", alone(t))
	whole := strings.Repeat(story, 20)
	if err := os.WriteFile("text.txt", []byte(whole), 0o644); err != nil {
		t.Fatal(err)
	}
	out := must(t, "", "experts", "profile", "demo", "--text", "text.txt", "--length", "64", "-o", "p.json", "--log", "warn")
	p, err := compress.ReadProfile("p.json")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(whole))
	if len(p.Layers) != 6 || p.Layers[0].Tokens != p.Calibration.Tokens || p.Calibration.Tokens < 300 || p.Calibration.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("%d layers, %+v", len(p.Layers), p.Calibration)
	}
	if p.Layers[0].Inputs != nil || !strings.Contains(out, " of 48 experts saw fewer than 256 tokens") {
		t.Errorf("%s", out)
	}
	if _, err := os.Stat("p.json.partial"); err == nil {
		t.Error("the partial file is still there")
	}
	out = must(t, whole, "experts", "profile", "demo", "--length", "64", "--tokens", "100", "--columns", "-o", "q.json", "--log", "warn")
	q, err := compress.ReadProfile("q.json")
	if err != nil || q.Calibration.Tokens != 100 || q.Calibration.SHA256 != p.Calibration.SHA256 || len(q.Layers[5].Inputs[7]) != 256 {
		t.Errorf("%+v %v: %s", q.Calibration, err, out)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "winnow-text-*")); err != nil || len(left) > 0 {
		t.Errorf("left of standard input: %v %v", left, err)
	}
}

func TestExpertsProfileRefusals(t *testing.T) {
	alone(t)
	if err := os.WriteFile("p.json.partial", []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, piped, want string }{
		{"demo", story, "--output"},
		{"demo -o q.json --length 1", story, "--length is at least 2"},
		{"demo -o q.json --tokens -1", story, "--tokens is -1"},
		{"demo -o q.json --text nowhere.txt", "", "nowhere.txt"},
		{"demo -o q.json --text - --text -", story, "read once"},
		{"demo -o q.json", "", "the text is empty"},
		{"demo -o q.json --length 4096", story, "made for 1 to 2048"},
		{"demo -o p.json", story, "remove it, or write to another file"},
		{"demo -o nowhere/p.json", story, "nowhere"},
	} {
		_, _, err := winnow(t, c.piped, append([]string{"experts", "profile"}, strings.Fields(c.args)...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
	if _, _, err := winnow(t, "", "experts", "walk"); err == nil || !strings.Contains(err.Error(), "walk") {
		t.Errorf("%v", err)
	}
}

func demoTokenizer(t *testing.T) text.Tokenizer {
	t.Helper()
	c, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tok, _, err := serve.Text(c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// beginning is a tokenizer whose file wants BOS.
type beginning struct{ text.Tokenizer }

func (b beginning) Vocab() *text.Vocab {
	v := *b.Tokenizer.Vocab()
	v.AddBOS, v.BOS = true, 3
	return &v
}

func TestCorpusIsCutIntoSequences(t *testing.T) {
	alone(t)
	tok := demoTokenizer(t)
	first, second := strings.Repeat(story, 3), story
	for name, s := range map[string]string{"a": first, "b": second, "none": ""} {
		if err := os.WriteFile(name, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	collect := func(c *corpus) (all [][]int32) {
		for ids, err := range c.sequences {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, slices.Clone(ids))
		}
		return all
	}
	c, err := openCorpus([]string{"a", "none", "b"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.tok, c.length = tok, 10
	var want [][]int32
	for _, s := range []string{first, second} {
		want = slices.AppendSeq(want, slices.Chunk(tok.Encode(nil, text.Span{Text: s}), 10))
	}
	if got := collect(c); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	c.most = 25
	if got := collect(c); len(got) != 3 || !slices.Equal(got[2], want[2][:5]) {
		t.Errorf("25 tokens: %v", got)
	}
	c.most, c.tok = 0, beginning{tok}
	var joined []int32
	for _, ids := range collect(c) {
		if ids[0] != 3 || len(ids) < 2 || len(ids) > 10 {
			t.Errorf("%v", ids)
		}
		joined = append(joined, ids[1:]...)
	}
	if !slices.Equal(joined, slices.Concat(want...)) {
		t.Errorf("%v, want %v", joined, want)
	}
}

// A text of more than a piece gives the same ids as the whole does.
func TestCorpusInPieces(t *testing.T) {
	alone(t)
	tok := demoTokenizer(t)
	whole := strings.Repeat(story, pieceBytes/len(story)*2+3)
	c, err := openCorpus(nil, strings.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	c.tok, c.length = tok, 1000
	var got []int32
	for ids, err := range c.sequences {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ids...)
	}
	if want := tok.Encode(nil, text.Span{Text: whole}); !slices.Equal(got, want) {
		t.Errorf("%d ids, want %d", len(got), len(want))
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
}

func TestPiecesEndBehindLines(t *testing.T) {
	for in, want := range map[string]string{"a b\nc d": "a b\n", "a b c": "a b ", "abc": "abc", "ab\xe2\x82": "ab", "ab\xe2\x82\xac": "ab\xe2\x82\xac", "\xff\xff\xff\xff\xff": "\xff\xff\xff\xff\xff"} {
		if got := in[:cutBehindLine([]byte(in))]; got != want {
			t.Errorf("%q is cut to %q, want %q", in, got, want)
		}
	}
}

func TestTokenProgress(t *testing.T) {
	var out bytes.Buffer
	lines := &tokenLines{out: &out, total: 100}
	bar := &tokenBar{screen: mpb.New(mpb.WithOutput(&out), mpb.WithAutoRefresh()), total: 100}
	for _, tokens := range []int64{15, 19, 21, 29, 60, 100} {
		lines.see(tokens)
	}
	lines.close()
	if out.String() != "goes on from token 15 of 100\n21 of 100 tokens\n60 of 100 tokens\n100 of 100 tokens\n" {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	bar.see(15)
	bar.see(60)
	bar.close()
	if !strings.Contains(out.String(), "60 / 100") {
		t.Errorf("%q", out.String())
	}
	(&tokenBar{screen: mpb.New(mpb.WithOutput(&out)), total: 100}).close()
}

func TestExpertsVerify(t *testing.T) {
	alone(t)
	if err := os.WriteFile("text.txt", []byte(strings.Repeat(story, 4)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("other.gguf", demo.GGUF, 0o644); err != nil {
		t.Fatal(err)
	}
	out := must(t, "", "experts", "verify", "demo", "./other.gguf", "--text", "text.txt", "--length", "50", "--log", "warn")
	for _, want := range []string{"(+0.00 %)", "0.000000 nats a token", "same likeliest  100.00 %", "same experts    100.00 %, least in layer 0: 100.00 %"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	var found compress.Comparison
	out = must(t, strings.Repeat(story, 4), "experts", "verify", "demo", "demo", "--tokens", "40", "--length", "20", "--json")
	if err := json.Unmarshal([]byte(out), &found); err != nil || found.Tokens != 38 || len(found.Routing) != 6 || found.Whole != found.Changed {
		t.Errorf("%v %s", err, out)
	}
	overlay := written(t, "half", half)
	must(t, "", "experts", "apply", "demo", "--overlay", overlay, "-o", "half.gguf")
	file := must(t, "", "experts", "verify", "demo", "./half.gguf", "--text", "text.txt", "--length", "50", "--json")
	if out := must(t, "", "experts", "verify", "--overlay", overlay, "demo", "--text", "text.txt", "--length", "50", "--json"); out != file {
		t.Errorf("under an overlay %s with the file that it makes %s", out, file)
	}
	if err := json.Unmarshal([]byte(file), &found); err != nil || !(found.KL > 0.01) {
		t.Errorf("%v %s", err, file)
	}
	other := written(t, "other", `"9":{"drop":[0]}`)
	for _, c := range []struct{ args, want string }{
		{"demo demo --length 1", "--length is at least 2"}, {"demo demo --tokens -1", "--tokens is -1"}, {"demo nowhere", "nowhere"},
		{"demo demo --length 5000", "made for 1 to 2048"}, {"demo", "name the changed model"}, {"demo demo --overlay x", "one model too many"},
		{"demo --overlay nowhere.json", "nowhere.json"}, {"demo --overlay " + other, "layer 9"},
	} {
		if _, _, err := winnow(t, story, append([]string{"experts", "verify"}, strings.Fields(c.args)...)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}
