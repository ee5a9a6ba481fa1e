package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model/modeltest"
)

// A checkpoint with a layer that foretells tokens is described with it, drafts by it where no draft model is named, and only such a one may be asked to.
func TestHead(t *testing.T) {
	dir := t.TempDir()
	if err := (modeltest.MiMo{Vocab: 512, Dim: 64, Layers: 3, Seed: 7, Chain: true}).Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tokenizer.model", "tokenizer_config.json"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "model", "testdata", "stories260k", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var in inspection
	if err := json.Unmarshal([]byte(must(t, "", "inspect", dir, "--json")), &in); err != nil {
		t.Fatal(err)
	}
	const own = 4 * (64*64*2 + 64*64*2 + 2*32*64 + 64 + 32 + 32 + 3*64*96 + 5*64) // two halves, q and o, k and v, their biases, the network, norms
	if in.Architecture != "mimo" || in.Layers != 3 || in.MTPLayers != 1 || in.MTPBytes != own {
		t.Errorf("%+v, want %d bytes", in, own)
	}
	if out := must(t, "", "inspect", dir); !strings.Contains(out, "1 layer foretells further tokens (MTP)") {
		t.Error(out)
	}
	if out := must(t, "", "inspect", "demo"); strings.Contains(out, "MTP") {
		t.Error(out)
	}
	file := filepath.Join(t.TempDir(), "ask.txt")
	if err := os.WriteFile(file, []byte("Once upon a time"), 0o600); err != nil {
		t.Fatal(err)
	}
	alone(t)
	for _, how := range []string{"auto", "draft", "always"} {
		out := must(t, "", "bench", dir, "-f", file, "--speculative", how, "--draft-max", "3", "-n", "60", "-r", "1", "-o", "json", "--log", "warn")
		var results []draftResult
		if err := json.Unmarshal([]byte(out), &results); err != nil {
			t.Fatal(err)
		}
		if r := results[0]; r.NGen != 60 || r.ModelAccepted != r.ModelDrafted || how == "always" && r.ModelAccepted < 30 {
			t.Errorf("%s: %+v", how, r)
		}
	}
	if _, _, err := winnow(t, "", "bench", "demo", "-f", file, "--speculative", "draft"); err == nil || !strings.Contains(err.Error(), "demo") {
		t.Errorf("%v", err)
	}
	if _, _, err := winnow(t, "", "serve", "demo", "--addr", "127.0.0.1:0", "--speculative", "draft"); err == nil || !strings.Contains(err.Error(), "demo") {
		t.Errorf("%v", err)
	}
}
