package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The flags reach the model of each verb that runs one: its context is longer, what it says differs, and what cannot be is refused by name.
func TestRopeFlags(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text.txt")
	if err := os.WriteFile(text, []byte(strings.Repeat("once upon a time there was a model of the world. ", 40)), 0o644); err != nil {
		t.Fatal(err)
	}
	eval := func(args ...string) (p perplexity, err error) {
		out, _, err := winnow(t, "", append([]string{"eval", "demo", "--perplexity", text, "--json", "--chunks", "1", "--ctx", "64"}, args...)...)
		if err == nil {
			err = json.Unmarshal([]byte(out), &p)
		}
		return p, err
	}
	plain, err := eval()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := eval("--rope-scaling", "none", "--yarn-orig-ctx", "32"); err == nil || !strings.Contains(err.Error(), "made for 32") {
		t.Errorf("a model of 32 tokens reads 64: %v", err)
	}
	for _, kind := range []string{"linear", "dynamic", "yarn"} {
		if got, err := eval("--rope-scaling", kind, "--rope-scale", "2", "--yarn-orig-ctx", "32"); err != nil || got.Perplexity == plain.Perplexity {
			t.Errorf("%s: perplexity %v, without %v, %v", kind, got.Perplexity, plain.Perplexity, err)
		}
	}
	if got, err := eval("--rope-freq-base", "500"); err != nil || got.Perplexity == plain.Perplexity {
		t.Errorf("another base: perplexity %v, without %v, %v", got.Perplexity, plain.Perplexity, err)
	}
	for _, verb := range [][]string{{"eval", "demo", "--perplexity", text}, {"run", "demo", "x"}, {"bench", "demo"}, {"serve", "demo"}} {
		for flags, field := range map[string]string{
			"--rope-scaling=ntk": "rope_scaling", "--rope-scaling=yarn --rope-scale=0.5": "rope_scale", "--rope-scale=NaN": "rope_scale",
			"--rope-freq-base=NaN": "rope_freq_base", "--yarn-orig-ctx=9": "yarn_orig_ctx",
		} {
			if _, _, err := winnow(t, "", append(verb, strings.Fields(flags)...)...); err == nil || !strings.Contains(err.Error(), field+" is") {
				t.Errorf("%s %s: %v", verb[0], flags, err)
			}
		}
	}
	bench := []string{"bench", "demo", "-p", "8", "-n", "2", "-r", "1", "-t", "1", "--rope-scaling", "yarn", "--rope-scale", "2"}
	must(t, "", bench...)
	url, stop := serving(t, "demo", "--context", "4096", "--rope-scaling", "yarn", "--rope-scale", "2")
	if status, body := ask(t, url, "demo"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
