package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/store"
)

// tale is a text that the demo model knows how to go on.
const tale = `Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. The ball
was under a tree, and a small dog sat beside it. They played all afternoon until the sun went down. `

func TestQuantizedModelsRun(t *testing.T) {
	alone(t)
	if err := os.WriteFile("text.txt", []byte(strings.Repeat(tale, 8)), 0o644); err != nil {
		t.Fatal(err)
	}
	measure := func(model string) float64 {
		var p perplexity
		out := must(t, "", "eval", model, "--perplexity", "text.txt", "--ctx", "64", "--json", "--log", "warn")
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatal(err)
		}
		return p.Perplexity
	}
	before := measure("demo")
	for _, to := range []string{"q4_k", "Q2_K", "IQ4_NL", "w4g32 --as f32"} {
		must(t, "", strings.Fields("quantize demo --force -o out.gguf --to "+to)...)
		if after := measure("out.gguf"); !(after > before/1.2 && after < before*1.2) {
			t.Errorf("%s: perplexity %v, before %v", to, after, before)
		}
	}
}

func TestBitsAndQuantize(t *testing.T) {
	alone(t)
	if err := os.WriteFile("text.txt", []byte(strings.Repeat("The cat sat on the mat and looked at the red ball. ", 40)), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "", "experts", "profile", "demo", "--text", "text.txt", "-o", "profile.json")
	for _, policy := range bitsPolicies {
		out := must(t, "", "experts", "bits", "demo", "--avg", "4.3", "--rows", "4", "--profile", "profile.json", "--policy", policy, "-o", policy+".json")
		if !strings.Contains(out, " bits a weight") || !strings.Contains(out, "attention Q") {
			t.Errorf("%s: %s", policy, out)
		}
	}
	must(t, "", "quantize", "demo", "--policy", "ours.json", "-o", "out.gguf")
	c, err := store.Open("out.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if at := c.Tensors["blk.2.ffn_exps_map"].Data; len(at) != 8*8 || at[8*3] != 1 || at[8*2] != 0 {
		t.Errorf("expert 3 of layer 2, which most tokens choose, is not in the larger bank: %v", at)
	}
	if f := c.Tensors["blk.2.attn_q.weight"].Format; f == nil || f.Name != "Q4_K" {
		t.Errorf("attention is %v", f)
	}
}

func TestQuantizeAsksForSense(t *testing.T) {
	alone(t)
	if err := os.WriteFile("bad.json", []byte(`{"format":1,"bits":{"9":{"default":"Q4_0"}}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"quantize demo -o x.gguf":                                "to policy",
		"quantize demo --to Q4_0 -o bad.json":                    "name is taken",
		"quantize demo --to Q4_0":                                "output",
		"quantize demo --to W4G32 -o x.gguf":                     "W4G32",
		"quantize demo --to Q4_0 --policy bad.json -o x.gguf":    "to policy",
		"quantize demo --policy bad.json -o x.gguf":              "layer 9",
		"quantize demo --policy none.json -o x.gguf":             "none.json",
		"experts bits demo --avg 3 -o x.json":                    "at least 3.9",
		"experts bits demo --avg 0 -o x.json":                    "--avg",
		"experts bits demo --avg 5 --policy best -o x.json":      "best",
		"experts bits demo --avg 5 --policy frequency -o x.json": "--profile",
		"experts bits demo --avg 5 --formats 5 -o x.json":        "--formats",
		"experts bits demo --avg 5 --among Q4_K,Q9 -o x.json":    "Q9",
		"quantize demo --to W4G32 --as Q8_0 -o x.gguf":           "Q8_0",
		"quantize demo --to I32 --as F32 -o x.gguf":              "I32",
		"experts bits demo --avg 5 --profile bad.json -o x.json": "bad.json",
		"experts bits demo --avg 5 -o no/x.json":                 "no",
	} {
		if _, _, err := winnow(t, "", strings.Fields(line)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("winnow %s: %v, want an error about %q", line, err, want)
		}
		for _, file := range []string{"x.gguf", "x.json"} {
			if _, err := os.Stat(file); err == nil {
				t.Errorf("winnow %s left %s", line, file)
			}
		}
	}
}
