package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
)

// A shortlist of all experts is the router: the file keeps every tensor of the model, is written once, and runs.
func TestExpertsShortlist(t *testing.T) {
	alone(t)
	writeFile(t, "text.txt", strings.Repeat(story, 12))
	out := must(t, "", "experts", "shortlist", "demo", "--text", "text.txt", "--length", "32", "--leaves", "8", "-o", "s.gguf", "--log", "warn")
	for _, want := range []string{"LAYER  EXPERTS  SHORTLIST  RECALL ", "\n5      8        8          1.00000  100.00 %", "divergence      0.00000", "wrote s.gguf\nall routers take "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	c, err := store.Open("s.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	whole, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range whole.Tensors {
		if got := c.Tensors[name]; got.Format != want.Format || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("tensor %s is another", name)
		}
	}
	if n := len(c.Tensors) - len(whole.Tensors); n != 6*3 || c.Meta["qwen3moe.expert_router_type"] != "shortlist" {
		t.Errorf("%d tensors more, router type %v", n, c.Meta["qwen3moe.expert_router_type"])
	}
	out = must(t, story, "experts", "verify", "demo", "./s.gguf", "--length", "16", "--log", "warn")
	if !strings.Contains(out, "same likeliest  100.00 %") {
		t.Error(out)
	}
	if _, _, err := winnow(t, strings.Repeat(story, 12), "experts", "shortlist", "./s.gguf", "--length", "32", "-o", "twice.gguf"); err == nil ||
		!strings.Contains(err.Error(), "layer 0 chooses its experts by another router than top-k already") {
		t.Error(err)
	}
}

func TestShortlistsThatAreRefused(t *testing.T) {
	alone(t)
	long := strings.Repeat(story, 12)
	writeFile(t, "taken", "")
	for _, c := range []struct{ args, piped, want string }{
		{"demo", "", `"output" not set`},
		{"demo -o x.gguf --length 32 --leaves 2 --recall 0.9999", long, "layer 0: a shortlist of 2 experts finds 0."},
		{"demo -o x.gguf --length 32 --leaves 2 --recall 0.3 --worse 0", long, "at most +0.000 % is allowed"},
		{"demo -o x.gguf --length 32 --leaves 9", long, "layer 0: moe: convert router: shortlists of [9] of 8 experts"},
		{"demo -o x.gguf --length 32", story, "want 160 rows or more"},
		{"demo -o x.gguf --length 1", long, "--length is at least 2"},
		{"demo -o x.gguf --tokens -1", long, "--tokens is -1"},
		{"demo -o x.gguf --recall 0", long, "--recall is 0"},
		{"demo -o x.gguf --worse -1", long, "--worse is -1"},
		{"demo -o x.gguf --leaves -1", long, "--leaves is -1"},
		{"demo -o x.gguf", "", "the text is empty"},
		{"demo -o taken", long, "name is taken"},
		{"demo -o nowhere/x.gguf", long, "nowhere"},
		{"nobody -o x.gguf", long, "nobody"},
	} {
		_, _, err := winnow(t, c.piped, append([]string{"experts", "shortlist", "--log", "warn"}, strings.Fields(c.args)...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
		if _, err := os.Stat("x.gguf"); err == nil {
			t.Fatalf("%s: something is written", c.args)
		}
	}
}
