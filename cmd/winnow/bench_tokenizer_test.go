package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBenchTokenizer(t *testing.T) {
	fixture, err := filepath.Abs("../../text/testdata/tiny.json")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(fixture)
	if err != nil {
		t.Fatal(err)
	}
	dir := alone(t)
	folder := filepath.Join(dir, "tokenizer.json")
	words := filepath.Join(dir, "words.txt")
	for path, b := range map[string][]byte{folder: raw, words: []byte(strings.Repeat("the cat sat on the mat\n", 300))} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args  []string
		tests string
		bytes int // of the text; 0 = of the command's own
	}{
		{[]string{"demo"}, "encode, encode by 2 KiB, decode, render 20 messages", 0},
		{[]string{folder, "--text", words}, "encode, encode by 2 KiB, decode", 6900},
	} {
		out := must(t, "", append([]string{"bench", "--tokenizer", "-r", "2", "--json", "--log", "warn"}, c.args...)...)
		var rows []textResult
		if err := json.Unmarshal([]byte(out), &rows); err != nil {
			t.Fatal(err)
		}
		var tests []string
		for _, r := range rows {
			tests = append(tests, r.Test)
			if r.Bytes == 0 || r.Tokens == 0 || r.Tokens > r.Bytes || r.Seconds <= 0 || len(r.SamplesS) != 2 || r.MBs <= 0 || r.NsPerTok <= 0 {
				t.Errorf("%+v", r)
			}
		}
		if got := strings.Join(tests, ", "); got != c.tests {
			t.Errorf("tests %s", got)
		}
		if c.bytes != 0 && rows[0].Bytes != c.bytes {
			t.Errorf("%d bytes of a file of %d", rows[0].Bytes, c.bytes)
		}
	}
	if out := must(t, "", "bench", "--tokenizer", folder, "--text", words, "-r", "1", "--log", "warn"); !strings.Contains(out, "ns/token") {
		t.Error(out)
	}
	for _, args := range [][]string{{folder, "--text", filepath.Join(dir, "none")}, {filepath.Join(dir, "x", "tokenizer.json")}} {
		if _, _, err := winnow(t, "", append([]string{"bench", "--tokenizer"}, args...)...); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
