package compress

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/moe"
)

// sample is a profile of a dense layer and one of three experts.
func sample() Profile {
	return Profile{
		Model: strings.Repeat("0a", 32), Arch: "qwen3moe", Calibration: moe.Calibration{Tokens: 5, SHA256: strings.Repeat("f1", 32)},
		Layers: []LayerProfile{{Importance: 0.25}, {
			Tokens: 5, K: 2, Usage: []int64{5, 3, 2}, Weight: []float64{3.1, 1.0 / 3, 1e-300}, Weight2: []float64{2, 1, 0.5}, Saliency: []float64{7, 8, 9},
			Largest: []float64{1, 2, 3}, Together: [][]int64{{5, 3, 2}, {3, 3, 0}, {2, 0, 2}}, Skips: [64]int64{3: 4, 63: 1}, Importance: 0.125,
			Inputs: [][]float64{{1, 2}, {3, 4}, {5, 6}}, Hidden: [][]float64{{1}, {2}, {math.Pi}},
			InputSums: [][]float64{{-1, 2}, {0, 4}, {5, -1e-9}}, HiddenSums: [][]float64{{-1}, {0}, {3}},
		}},
	}
}

func TestProfileRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profile.json")
	if err := WriteProfile(path, sample()); err != nil {
		t.Fatal(err)
	}
	got, err := ReadProfile(path)
	if err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("%+v %v", got, err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`"usage": [5,3,2],`, `[3,3,0],`, `"importance": 0.125,`, `{"tokens":5`} {
		if found := strings.Contains(string(raw), "\n"+line+"\n"); found != (line[0] != '{') {
			t.Errorf("line %s is there: %v\n%s", line, found, raw)
		}
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left %v %v", left, err)
	}
}

func TestHostileProfiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "profile.json")
	if err := WriteProfile(path, sample()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"format": 1`, `"format": 2`, "format 2"},
		{`"format": 1`, `"format": 1, "more": 1`, "no such field"},
		{`"tokens": 5,` + "\n" + `"k"`, `"tokens": 4,` + "\n" + `"k"`, "5 of 4 tokens"},
		{`"k": 2`, `"k": 0`, "0 of 3 experts"},
		{`"k": 2`, `"k": 4`, "4 of 3 experts"},
		{`"k": 2`, `"k": 1`, "10 choices"},
		{`"usage": [5,3,2]`, `"usage": [5,3]`, "weight of 3 experts"},
		{`"usage": [5,3,2]`, `"usage": [5,3,-2]`, "by -2 of 5"},
		{`"usage": [5,3,2]`, `"usage": [5,3,9223372036854775808]`, "usage"},
		{`"saliency": [7,8,9]`, `"saliency": [7,8,-9]`, "saliency of expert 2 is -9"},
		{`"saliency": [7,8,9]`, `"saliency": [7,8,NaN]`, "invalid character"},
		{`"saliency": [7,8,9]`, `"saliency": [7,8,1e999]`, "1e999"},
		{`"saliency": [7,8,9]`, `"saliency": [7,8,9,10]`, "saliency of 4 experts"},
		{`"saliency": [7,8,9]`, `"salience": [7,8,9]`, "salience"},
		{`"importance": 0.25`, `"importance": -1`, "importance is -1"},
		{`[3,3,0]`, `[3,3]`, "a row of 2"},
		{"\n[-1,2],", "\n[-1],", "input_sums of expert 0 has 1 columns"},
		{"\n[-1],\n[0],", "\n[0],", "hidden_sums of 2 experts"},
		{`[3,3,0]`, `[3,3,1]`, "experts 1 and 2"},
		{`[3,3,0]`, `[3,2,0]`, "experts 1 and 1"},
		{`[3,3,0],`, ``, "together has 2 rows"},
		{`[3,4]`, `[3,4,5]`, "inputs of expert 1 has 3 columns"},
		{`[3,4]`, `[]`, "inputs of expert 1 has 0 columns"},
		{`0a0a0a`, `0A0A0A`, "64 hex digits"},
		{`f1f1`, `f1f1f1`, "64 hex digits"},
		{`"layers": [`, `"partial": {"sequences":1,"ids":"x","cosines":[]}, "layers": [`, "partial of 1 sequences"},
		{`"layers": [`, `"layers": {`, `"{" where "[" should be`},
		{`{`, `[`, `"[" where "{" should be`},
	} {
		if strings.Count(string(raw), c.old) == 0 {
			t.Fatalf("%s is not in\n%s", c.old, raw)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(raw), c.old, c.new, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadProfile(path); !errors.Is(err, ErrProfile) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", c.new, err, c.want)
		}
	}
	for _, whole := range []string{"", "{}", "null", string(raw) + "{}", string(raw[:len(raw)/2]), `{"format":1,"layers":[` + strings.Repeat("{},", 2000) + `{}]}`} {
		if _, err := parseProfile(strings.NewReader(whole)); !errors.Is(err, ErrProfile) {
			t.Errorf("%.40q: %v", whole, err)
		}
	}
	if _, err := ReadProfile(dir); !errors.Is(err, ErrProfile) {
		t.Errorf("a folder: %v", err)
	}
	bad := sample()
	bad.Layers[1].Largest[0] = math.NaN()
	if err := WriteProfile(filepath.Join(dir, "bad.json"), bad); !errors.Is(err, ErrProfile) {
		t.Errorf("NaN was written: %v", err)
	}
}

// A value without end is given up at the allowance of a layer, not at the end of memory.
func TestALayerHasAnAllowance(t *testing.T) {
	_, err := parseProfile(&endless{head: []byte(`{"arch":"`)})
	if !errors.Is(err, ErrProfile) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
}

type endless struct{ head []byte }

func (e *endless) Read(b []byte) (int, error) {
	if len(e.head) > 0 {
		n := copy(b, e.head)
		e.head = e.head[n:]
		return n, nil
	}
	return copy(b, bytes.Repeat([]byte("x"), len(b))), nil
}

func FuzzProfile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "profile.json")
	if err := WriteProfile(path, sample()); err != nil {
		f.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"format":1,"layers":[{}],"partial":{"sequences":1}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		in, err := parseProfile(bytes.NewReader(raw))
		if err != nil {
			if !errors.Is(err, ErrProfile) {
				t.Fatal(err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "again.json")
		if err := writeProfile(path, in); err != nil {
			t.Fatalf("%v, read from %q", err, raw)
		}
		if again, err := readProfile(path); err != nil || again.Check() != nil || len(again.Layers) != len(in.Layers) {
			t.Fatalf("%v, written from %q", err, raw)
		}
	})
}

func TestCoverage(t *testing.T) {
	p := sample()
	c := p.Coverage(3)
	if c.Experts != 3 || c.Few() != 1 || c.String() != "1 of 3 experts saw fewer than 3 tokens\nlayer 1: experts 2" {
		t.Errorf("%+v: %s", c, c)
	}
	if c := p.Coverage(2); c.Few() != 0 || len(c.Thin) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestDrift(t *testing.T) {
	a, b := sample(), sample()
	b.Layers[1].Usage = []int64{0, 0, 4}
	for _, c := range []struct {
		a, b Profile
		want float64
	}{{a, a, 0}, {a, b, 0.8}, {b, a, 0.8}} {
		got, err := Drift(c.a, c.b)
		if err != nil || len(got) != 2 || got[0] != 0 || math.Abs(got[1]-c.want) > 1e-12 {
			t.Errorf("%v %v, want %v", got, err, c.want)
		}
	}
	b.Layers[1].Usage = []int64{0, 0, 0}
	if got, err := Drift(a, b); err != nil || got[1] != 1 {
		t.Errorf("from something to nothing: %v %v", got, err)
	}
	b.Layers[1].Usage = []int64{1}
	if _, err := Drift(a, b); !errors.Is(err, ErrProfile) {
		t.Errorf("%v", err)
	}
}
