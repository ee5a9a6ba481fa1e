package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
)

// alone leaves a test in an empty folder, with an empty store and no settings but its own.
func alone(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	t.Chdir(dir)
	t.Setenv("HOME", dir)
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	for _, name := range []string{"WINNOW_CONFIG", "WINNOW_ADDR", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		t.Setenv(name, "")
	}
	t.Setenv("WINNOW_MODELS", filepath.Join(dir, "store"))
	return dir
}

// winnow runs a command line with something piped into it.
func winnow(t *testing.T, piped string, args ...string) (out, notes string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c := root()
	c.SetArgs(args)
	c.SetIn(strings.NewReader(piped))
	c.SetOut(&stdout)
	c.SetErr(&stderr)
	err = c.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

// must runs a command line that works and gives its output.
func must(t *testing.T, piped string, args ...string) string {
	t.Helper()
	out, notes, err := winnow(t, piped, args...)
	if err != nil {
		t.Fatalf("winnow %s: %v\n%s", strings.Join(args, " "), err, notes)
	}
	return out
}

func TestListShowsTheDemoAndTheStore(t *testing.T) {
	dir := alone(t)
	if err := os.MkdirAll(filepath.Join(dir, "store"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "store", "mine.gguf"), demo.GGUF, 0o644); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(must(t, "", "list")), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "demo ") || !strings.HasPrefix(lines[2], "mine ") {
		t.Errorf("%q", lines)
	}
	for _, name := range []string{"mine", filepath.Join("store", "mine.gguf"), "demo"} {
		if out := must(t, "", "inspect", name); !strings.Contains(out, "8, 2 used for a token, in 6 layers") {
			t.Errorf("inspect %s: %s", name, out)
		}
	}
}

func TestInspectAsJSON(t *testing.T) {
	alone(t)
	var in inspection
	if err := json.Unmarshal([]byte(must(t, "", "inspect", "demo", "--json")), &in); err != nil {
		t.Fatal(err)
	}
	want := inspection{
		Model: "demo", Container: "gguf", Architecture: "qwen3moe", Parameters: 6963200, Bytes: 7446528, Layers: 6, Dim: 256, Heads: 4, KVHeads: 2,
		Vocabulary: 4096, Context: 2048, MoELayers: 6, Experts: 8, ExpertsUsed: 2, ExpertBytes: 5013504, Tokenizer: "gpt2/qwen2", Template: true,
		PageTokens: 64, PageBytes: 6 * 2 * 2 * 64 * 64 * 2,
	}
	formats := in.Formats
	in.Formats = nil
	got, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if expected, err := json.Marshal(want); err != nil || !bytes.Equal(got, expected) {
		t.Errorf("got  %s\nwant %s (%v)", got, expected, err)
	}
	if len(formats) != 2 || formats[0].Format != "Q8_0" || formats[0].Tensors != 43 {
		t.Errorf("formats %+v", formats)
	}
}

func TestRefusalsNameTheTrouble(t *testing.T) {
	alone(t)
	if err := os.WriteFile("cut.gguf", demo.GGUF[:1000], 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, want string
	}{
		{"inspect nowhere", "nowhere"},
		{"inspect ./cut.gguf", "cut.gguf"},
		{"serve demo ./nowhere.gguf", "nowhere"},
		{"serve demo demo", `both served as "demo"`},
		{"serve --addr nowhere", "host:port"},
		{"serve --thread 2", "thread"},
		{"eval demo", "--perplexity"},
		{"eval demo --logits in.json", "--output"},
		{"eval demo --perplexity missing.txt", "missing.txt"},
		{"bench demo -r 0", "-r at least 1"},
		{"bench demo -t 0", "0 threads"},
		{"bench demo -p -1", "-1 tokens"},
		{"run demo --cpu sse", "want one of auto, amx, avx512, avx2, dotprod, neon, go"},
		{"run demo --dtype f64", "want one of native, f32"},
		{"run demo --kv-type q4", "want one of auto, f32, f16, q8_0, q4_0, mustafar-50, mustafar-70"},
		{"run demo", "no prompt"},
		{"run demo --format json hello", "cannot be held to a format"},
		{"run demo --temperature 3 hello", "not a number from 0 to 2"},
		{"run demo --stop= hello", "would end every answer"},
		{"run demo --top-k -1 hello", "not a whole number from 0"},
		{"version --server --addr 127.0.0.1:1", "no server answers"},
		{"walk", "unknown command"},
	} {
		_, _, err := winnow(t, "", strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("winnow %s: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestVersion(t *testing.T) {
	alone(t)
	var v map[string]string
	if err := json.Unmarshal([]byte(must(t, "", "version", "--json")), &v); err != nil || v["version"] != version || v["go"] == "" {
		t.Errorf("%v %v", v, err)
	}
	if out := must(t, "", "--version"); !strings.Contains(out, version) {
		t.Errorf("%q", out)
	}
}

func TestRunIsAFilterWhenPiped(t *testing.T) {
	alone(t)
	args := []string{"run", "demo", "--temperature", "0", "--max-tokens", "12"}
	out, notes, err := winnow(t, "Tell me a story about a cat.", args...)
	if err != nil {
		t.Fatal(err, notes)
	}
	if strings.TrimSpace(out) == "" || strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, "\n") {
		t.Errorf("the answer is %q", out)
	}
	if again := must(t, "", append(args, "Tell", "me a story about a cat.")...); again != out {
		t.Errorf("as words %q, piped %q", again, out)
	}
	if again := must(t, "Tell me a story about a cat.\n", args...); again != out {
		t.Errorf("with a line break at its end %q, without %q", again, out)
	}
	_, notes, err = winnow(t, "Tell me a story.", append(args, "--verbose", "about a dog")...)
	if err != nil || !strings.Contains(notes, "eval count:           12 token(s)\n") {
		t.Errorf("%v: %s", err, notes)
	}
}

func TestRunDrawsFromItsSeed(t *testing.T) {
	alone(t)
	said := func(seed string) string {
		return must(t, "Tell me a story.", "run", "demo", "--temperature", "1.5", "--max-tokens", "16", "--seed", seed)
	}
	if a, b, c := said("1"), said("1"), said("2"); a != b || a == c {
		t.Errorf("seed 1: %q and %q, seed 2: %q", a, b, c)
	}
}

func TestRunStopsAtAnyOfItsTexts(t *testing.T) {
	alone(t)
	args := []string{"run", "demo", "--temperature", "0", "--stop", "nowhere in it", "--stop", " time"}
	if out := must(t, "Tell me a story.", args...); out != "Once upon a\n" {
		t.Errorf("%q", out)
	}
}

func TestSizesAndDigests(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 7578208: "7.6 MB", 3e13: "30.0 TB"} {
		if got := size(bytes); got != want {
			t.Errorf("%d: %s, want %s", bytes, got, want)
		}
	}
	if got := shortDigest("sha256:0123456789abcdef"); got != "0123456789ab" {
		t.Error(got)
	}
	if got := shortDigest(""); got != "-" {
		t.Error(got)
	}
}
