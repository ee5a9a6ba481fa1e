package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestCompress makes the demo sparse by each method. A profile gives what the text gives that it was made of, to the byte.
func TestCompress(t *testing.T) {
	t.Setenv("TMPDIR", alone(t))
	if err := os.WriteFile("text.txt", []byte(strings.Repeat(story, 10)), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "", "experts", "profile", "demo", "--text", "text.txt", "--length", "64", "--columns", "-o", "p.json", "--log", "warn")
	for _, c := range []struct{ args, says string }{
		{"--profile p.json -o a.gguf", "a.gguf: 1880064 of 4718592 weights in experts are zero, 39.84 %, by wanda\n"},
		{"--calib text.txt --length 64 -o b.gguf", "5      40.00 %  -\n"},
		{"--method owl --repair dsnot --lambda 0.2 --profile p.json -o c.gguf", ", by owl and dsnot\n"},
		{"--method owl --repair dsnot --lambda 0.2 --calib text.txt --length 64 -o d.gguf", ", by owl and dsnot\n"},
		{"--method sparsegpt --calib text.txt --length 64 --tokens 120 --hessians 6MiB -o e.gguf", "18 tensors were rounded to Q8_0 anew"},
	} {
		args := append([]string{"compress", "demo", "--sparsity", "0.4", "--log", "warn"}, strings.Fields(c.args)...)
		out, notes, err := winnow(t, "", args...)
		if err != nil || !strings.Contains(out, c.says) {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
		if passes := strings.Count(notes, "second moments, pass "); passes > 0 != strings.Contains(c.args, "sparsegpt") || passes > 0 && !strings.Contains(notes, "pass 3 of 3") {
			t.Errorf("%s: %s", c.args, notes)
		}
	}
	files := map[string][]byte{}
	for _, name := range []string{"a", "b", "c", "d"} {
		raw, err := os.ReadFile(name + ".gguf")
		if err != nil {
			t.Fatal(err)
		}
		files[name] = raw
	}
	if !bytes.Equal(files["a"], files["b"]) || !bytes.Equal(files["c"], files["d"]) || bytes.Equal(files["a"], files["c"]) {
		t.Error("a profile gives another model than its text")
	}
	if out := must(t, "", "inspect", "e.gguf"); !strings.Contains(out, "8, 2 used for a token, in 6 layers") {
		t.Errorf("%s", out)
	}
}

// Experts that no token chose are named, and stay.
func TestCompressNamesDeadExperts(t *testing.T) {
	alone(t)
	out := must(t, "One day", "compress", "demo", "--sparsity", "0.5", "--calib", "-", "-o", "x.gguf", "--log", "warn")
	if !strings.Contains(out, "whole, for no token chose them\n0      50.00 %  ") || strings.Contains(out, "50.00 %  -") {
		t.Errorf("%s", out)
	}
}

func TestCompressRefusals(t *testing.T) {
	alone(t)
	if err := os.WriteFile("taken.gguf", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"--sparsity 0.4 --calib -", "--output names"},
		{"--calib - -o x.gguf", "--sparsity is 0, want more than 0 and at most 0.99"},
		{"--sparsity NaN --calib - -o x.gguf", "--sparsity is NaN"},
		{"--sparsity 0.4 -o x.gguf", "one of --calib, a text, and --profile"},
		{"--sparsity 0.4 --calib - --profile p.json -o x.gguf", "one of --calib, a text, and --profile"},
		{"--sparsity 0.4 --profile nowhere.json -o x.gguf", "nowhere.json"},
		{"--sparsity 0.4 --profile p.json --method sparsegpt -o x.gguf", "sparsegpt takes --calib"},
		{"--sparsity 0.4 --calib - --method magnitude -o x.gguf", `--method "magnitude", want wanda, owl or sparsegpt`},
		{"--sparsity 0.4 --calib - --repair lora -o x.gguf", `--repair "lora", want dsnot`},
		{"--sparsity 0.4 --calib - --lambda 0.1 -o x.gguf", "--method owl does"},
		{"--sparsity 0.4 --calib - --method owl --lambda -1 -o x.gguf", "lambda -1"},
		{"--sparsity 0.4 --calib - --hessians many -o x.gguf", "--hessians"},
		{"--sparsity 0.4 --calib - --method sparsegpt --hessians 1KiB -o x.gguf", "more than the 1024 that are allowed"},
		{"--sparsity 0.4 --calib - --length 1 -o x.gguf", "--length is at least 2"},
		{"--sparsity 0.4 --calib - --tokens -1 -o x.gguf", "--tokens is -1"},
		{"--sparsity 0.4 --calib - -o taken.gguf", "taken.gguf: "},
		{"--sparsity 0.4 --calib - -o nowhere/x.gguf", "nowhere"},
	} {
		_, _, err := winnow(t, story, append([]string{"compress", "demo"}, strings.Fields(c.args)...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "compress: ") > 2 {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
	if _, err := os.Stat("x.gguf"); err == nil {
		t.Error("a refused command left a file")
	}
}
