package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/model/modeltest"
	"github.com/winnow-llm/winnow/store"
)

// A file of experts with a tensor each, in ollama's words, is described like one of stacks; what was repaired is said, and logged once it is loaded.
func TestInspectSaysRepairs(t *testing.T) {
	c, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	apart, path := modeltest.Separate(c), filepath.Join(t.TempDir(), "apart.gguf")
	delete(apart.Meta, "qwen3moe.expert_feed_forward_length")
	apart.Meta["qwen3moe.feed_forward_length"] = uint32(9999)
	if err := store.WriteGGUF(t.Context(), path, modeltest.File(apart), nil); err != nil {
		t.Fatal(err)
	}
	var want, got inspection
	for name, in := range map[string]*inspection{demo.Name: &want, path: &got} {
		if err := json.Unmarshal([]byte(must(t, "", "inspect", name, "--json")), in); err != nil {
			t.Fatal(err)
		}
	}
	if got.ExpertBytes != want.ExpertBytes || got.Parameters != want.Parameters || got.Experts != want.Experts {
		t.Errorf("%+v, want %+v", got, want)
	}
	if len(want.Repairs) != 0 || len(got.Repairs) != 1 || !strings.Contains(must(t, "", "inspect", path), "expert_feed_forward_length") {
		t.Errorf("repairs of the demo: %q, of the other: %q", want.Repairs, got.Repairs)
	}
	text := filepath.Join(t.TempDir(), "text.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("once upon a time there was a model. ", 20)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, notes, err := winnow(t, "", "eval", path, "--perplexity", text, "--ctx", "16", "--chunks", "1"); err != nil || !strings.Contains(notes, "expert_feed_forward_length") {
		t.Errorf("the log does not say it: %v\n%s", err, notes)
	}
}
