package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBenchDrafts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ask.txt")
	if err := os.WriteFile(file, []byte("Tell me a story about a cat. A cat. A cat."), 0o600); err != nil {
		t.Fatal(err)
	}
	alone(t)
	out := must(t, "", "bench", "demo", "-f", file, "--speculative", "always", "-n", "40", "-r", "2", "-o", "json", "--log", "warn")
	var results []draftResult
	if err := json.Unmarshal([]byte(out), &results); err != nil {
		t.Fatal(err)
	}
	if r := results[0]; len(results) != 1 || r.NGen < 2 || r.NGen > 40 || r.PlainTS <= 0 || r.DraftTS <= 0 || r.Drafted < r.Accepted {
		t.Errorf("%+v", results)
	}
	if out := must(t, "", "bench", "demo", "-f", file, "-n", "10", "-r", "1"); !strings.Contains(out, "with drafts") {
		t.Error(out)
	}
	for _, args := range [][]string{{"-f", file, "--speculative", "off"}, {"-f", "nowhere"}, {"-f", file, "-n", "0"}} {
		if out, _, err := winnow(t, "", append([]string{"bench", "demo"}, args...)...); err == nil {
			t.Errorf("%v: %s", args, out)
		}
	}
}
