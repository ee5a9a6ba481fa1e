package model

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// sixByTwo is a pattern for the embedded model.
const sixByTwo = "0.9\t0.1\n0\t0\n0.2\t1\n0.7\t0.8\n0.3\t0\n0.1\t0.2\n"

// publish writes a pattern and the sizes beside it, "" = none, as they are published.
func publish(t *testing.T, pattern, sizes string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for name, text := range map[string]string{headsFile: pattern, headsSizes: sizes} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestReadHeads(t *testing.T) {
	folder := publish(t, sixByTwo, `{"sink_size": 128, "recent_size": 512, "lr": 0.02}`)
	h, err := ReadHeads(folder)
	if err != nil || len(h.Pattern) != 6 || h.Pattern[3][1] != 0.8 || *h.Sink != 128 || *h.Recent != 512 || h.File != filepath.Join(folder, headsFile) {
		t.Fatalf("%+v, %v", h, err)
	}
	if h, err = ReadHeads(filepath.Join(folder, headsFile)); err != nil || h.Sink != nil || h.Recent != nil || len(h.Pattern) != 6 {
		t.Fatalf("%+v, %v", h, err)
	}
	for _, c := range []struct{ pattern, sizes, want string }{
		{"0.1\t0.2\n0.3\tx\n", "", headsFile + ": attention: no pattern of heads: line 2, column 2"},
		{strings.Repeat("1", 1<<20+1), "", headsFile + ": more than 1048576 bytes"},
		{sixByTwo, `{"sink_size": -1}`, headsSizes + ": duo: sink is -1"},
		{sixByTwo, `{"recent_size": 1e9}`, headsSizes + ": duo: recent is 1e+09"},
		{sixByTwo, `{"recent_size": "all"}`, headsSizes + ": json: "},
		{sixByTwo, `{`, headsSizes + ": unexpected end"},
	} {
		if _, err := ReadHeads(publish(t, c.pattern, c.sizes)); !errors.Is(err, ErrHeads) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if _, err := ReadHeads(filepath.Join(folder, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := ReadHeads(publish(t, "", "{}")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A model reads by its own pattern, with its sizes where nobody says others.
func TestHeadsOfModels(t *testing.T) {
	load := func(h *Heads, s Selection) (*Model, error) {
		c, err := store.OpenBytes("demo", demo.GGUF)
		if err != nil {
			t.Fatal(err)
		}
		lim := Limits{Rows: 64, Sequences: 1, Wanted: 1, Pages: 4, Context: 256}
		return Load(c, Placement{Device: tensor.Reference()}, Options{Limits: lim, Sparse: []Selection{s}, Heads: h})
	}
	h, err := ReadHeads(publish(t, sixByTwo, `{"sink_size": 128, "recent_size": 200}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		s            Selection
		sink, recent int
	}{
		{Selection{Name: "duo"}, 2, 4}, {Selection{Name: "duo", Knobs: []float32{64}, Params: map[string]float64{"sink": 0}}, 0, 1},
	} {
		m, err := load(h, c.s)
		if err != nil {
			t.Fatal(err)
		}
		r, _ := m.Retained(&Policy{Decode: 1}, 0)
		streams := 0
		for _, k := range r.Heads {
			if k.Stride == 0 && k.Sink == c.sink && k.Recent == c.recent {
				streams++
			}
		}
		if streams != 6 { // of 12
			t.Errorf("%+v: heads keep %+v", c.s, r.Heads)
		}
		m.Close()
	}
	for want, p := range map[string]attention.HeadPattern{
		"heads.tsv: attention: duo needs a pattern of heads: one for 1 layers is given, the model has 6":                    {{1, 0}},
		"heads.tsv: attention: duo needs a pattern of heads: layer 0 has 1 heads in the pattern, the model has 2 key-value": {{1}, {1}, {1}, {1}, {1}, {1}},
	} {
		if _, err := load(&Heads{File: "heads.tsv", Pattern: p}, Selection{Name: "duo"}); !errors.Is(err, ErrHeads) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := load(nil, Selection{Name: "duo"}); !errors.Is(err, attention.ErrNoPattern) || !strings.Contains(err.Error(), "duo_heads names no file") {
		t.Error(err)
	}
}

func FuzzParseHeadSizes(f *testing.F) {
	f.Add([]byte(`{"sink_size": 128, "recent_size": 256}`))
	f.Add([]byte(`{"sink_size": null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		sink, recent, err := parseHeadSizes(raw)
		if err == nil && (sink != nil && !(*sink >= 0 && *sink <= 1<<20) || recent != nil && !(*recent >= 0 && *recent <= 1<<24)) {
			t.Fatal(*sink, *recent)
		}
	})
}
