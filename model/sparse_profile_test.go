package model

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// profiled is a profile of a model of four layers, of which the second has a window.
func profiled() *SparseProfile {
	three := func(a, b, c float32) []float32 { return []float32{a, b, c} }
	setting := func(selector, phase string, recall, ms float32, knob string, knobs []float32) SparseSetting {
		return SparseSetting{
			Selector: selector, Phase: phase, Recall: recall, Knob: knob, Knobs: knobs, Recalls: three(recall, recall, recall), Densities: three(0.25, 0.5, 1),
			Ms: ms, MsDense: 10,
		}
	}
	return &SparseProfile{
		Format: sparseProfileFormat, Model: strings.Repeat("ab", 32), Name: "m", Text: "t", Device: "d", Context: 8192, Layers: 4, Full: []int{0, 2, 3},
		Settings: []SparseSetting{
			setting("streaming", "prefill", 0.98, 4, "recent", three(640, 704, 768)),
			setting("streaming", "prefill", 0.9, 1, "recent", three(64, 128, 192)),
			setting("xattention", "prefill", 0.98, 3, "gamma", three(0.9, 0.8, 0.7)),
			setting("quest", "decode", 0.9, 2, "budget", three(512, 600, 256)),
			setting("quest", "decode", 0.98, 5, "budget", three(1024, 2048, 256)),
		},
	}
}

func TestSparseProfileFile(t *testing.T) {
	path, want := filepath.Join(t.TempDir(), "p.json"), profiled()
	for range 2 { // the second replaces the first
		if err := WriteSparseProfile(path, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadSparseProfile(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || strings.Count(string(raw), "\n") != 1+len(want.Settings) {
		t.Errorf("%s, %v", raw, err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(raw), `"layers":4`, `"layers":NaN`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = ReadSparseProfile(path)
	if e, ok := errors.AsType[*SparseProfileError](err); !ok || e.File != path || !errors.Is(err, ErrSparseProfile) {
		t.Error(err)
	}
}

func TestSparseProfileThatIsNone(t *testing.T) {
	nan := float32(0)
	nan /= nan
	for _, c := range []struct {
		field, why string
		change     func(p *SparseProfile)
	}{
		{"format", "is 1, want 2: calibrate again", func(p *SparseProfile) { p.Format = 1 }},
		{"model", "64 hex digits", func(p *SparseProfile) { p.Model = "abc" }},
		{"layers", "is 0", func(p *SparseProfile) { p.Layers = 0 }},
		{"context", "is -1", func(p *SparseProfile) { p.Context = -1 }},
		{"full", "has layer 4", func(p *SparseProfile) { p.Full[2] = 4 }},
		{"full", "has layer 0", func(p *SparseProfile) { p.Full[1] = 0 }},
		{"settings", "are 0", func(p *SparseProfile) { p.Settings = nil }},
		{"settings[1]", "a second time", func(p *SparseProfile) { p.Settings[1].Recall = 0.98 }},
		{"settings[2].selector", `is "fastest"`, func(p *SparseProfile) { p.Settings[2].Selector = "fastest" }},
		{"settings[3].phase", `is "prefill", which quest does not serve`, func(p *SparseProfile) { p.Settings[3].Phase = "prefill" }},
		{"settings[0].knob", `is "sink", streaming has "recent"`, func(p *SparseProfile) { p.Settings[0].Knob = "sink" }},
		{"settings[0].recall", "is NaN", func(p *SparseProfile) { p.Settings[0].Recall = nan }},
		{"settings[0].knobs", "has 2 numbers for 3 layers", func(p *SparseProfile) { p.Settings[0].Knobs = p.Settings[0].Knobs[:2] }},
		{"settings[4].knobs", "budget is NaN", func(p *SparseProfile) { p.Settings[4].Knobs[1] = nan }},
		{"settings[2].knobs", "gamma is 1.5", func(p *SparseProfile) { p.Settings[2].Knobs[0] = 1.5 }},
		{"settings[0].densities", "has 0 numbers", func(p *SparseProfile) { p.Settings[0].Densities = nil }},
		{"settings[0].recalls", "has 2, want", func(p *SparseProfile) { p.Settings[0].Recalls[0] = 2 }},
		{"settings[0].ms", "is -1", func(p *SparseProfile) { p.Settings[0].MsDense = -1 }},
	} {
		p := profiled()
		c.change(p)
		e, ok := errors.AsType[*SparseProfileError](p.Check())
		if !ok || e.Field != c.field || !strings.Contains(e.Why, c.why) {
			t.Errorf("%v, want %s %s", e, c.field, c.why)
		}
	}
	if _, err := ParseSparseProfile(make([]byte, mostSparseProfile+1)); !errors.Is(err, ErrSparseProfile) || len(err.Error()) > 200 {
		t.Error(err)
	}
	if _, err := ParseSparseProfile([]byte(`{"format":2,"layers":"four"}`)); err == nil || !strings.HasPrefix(err.Error(), "layers is no JSON") {
		t.Error(err)
	}
}

// A request gets the knobs of the recall that it asks for, or of the next above, and of the highest where it asks for none.
func TestSparseProfileTurnsKnobs(t *testing.T) {
	x := Sparsity{Prefill: "streaming", Decode: "quest", Profile: profiled()}
	all := x.Selections()
	var said []string
	for _, s := range all {
		said = append(said, s.Name)
		if s.Name == "quest" && s.Recall == 0.9 && !slices.Equal(s.Knobs, []float32{512, 512, 600, 256}) {
			t.Errorf("%+v", s)
		}
	}
	if got := strings.Join(said, " "); got != "streaming streaming streaming quest quest" { // two recalls of prompts, and its own numbers for what is generated
		t.Error(got)
	}
	m := &Model{opt: Options{Sparse: all}, sparse: &sparse{}}
	knob := float32(64)
	for _, c := range []struct {
		a      asked
		recall float32
		want   float32 // recall of what is found
	}{
		{asked{name: "quest", phase: 2}, 0.5, 0.9}, {asked{name: "quest", phase: 2}, 0.9, 0.9}, {asked{name: "quest", phase: 2}, 0.91, 0.98},
		{asked{name: "quest", phase: 2}, 0, 0.98}, {asked{name: "quest", phase: 2, knob: &knob}, 0.999, 0.98}, {asked{name: "streaming", phase: 1}, 0.9, 0.9},
		{asked{name: "streaming", phase: 2}, 0.999, 0},
	} {
		i, err := m.variant(c.a, c.recall)
		if err != nil || i == 0 || all[i-1].Name != c.a.name || all[i-1].Recall != c.want || all[i-1].Phases != 0 && all[i-1].Phases&c.a.phase == 0 {
			t.Errorf("%+v at %v: %d, %v", c.a, c.recall, i, err)
		}
	}
	_, err := m.variant(asked{name: "quest", phase: 2}, 0.99)
	if e, ok := errors.AsType[*ReadingError](err); !ok || e.Field != "recall" || !strings.Contains(e.Why, "calibrated for [0.9 0.98]") {
		t.Error(err)
	}
	for recall, from := range map[float32]int{0: 4096, 0.9: 1200, 0.95: 4096} { // twice the most that a layer keeps
		x.Recall = recall
		if r, err := x.Reading(9); err != nil || r.DecodeFrom != from {
			t.Errorf("recall %v: %+v, %v", recall, r, err)
		}
	}
}

// Where nobody says more, the fastest selectors at the highest recall read, if they are faster than reading everything.
func TestSparseProfileByItself(t *testing.T) {
	p := profiled()
	if x := p.Usual(); x.String() != "prefill=xattention,decode=quest,recall=0.98" || x.Profile != p {
		t.Error(x.String())
	}
	p.Settings[4].Ms = 10
	if x := p.Usual(); x.String() != "prefill=xattention,recall=0.98" {
		t.Error(x.String())
	}
	p.Settings[0].Ms, p.Settings[2].Ms = 11, 12
	if x := p.Usual(); !reflect.DeepEqual(x, Sparsity{}) {
		t.Error(x.String())
	}
}

// A profile is of one model, and a model that is loaded by it is another where caches are shared.
func TestSparseProfileOfAModel(t *testing.T) {
	c, err := store.Open("testdata/llama_tied")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := profiled()
	says := func(want string) {
		t.Helper()
		if err := p.Fit(c); !errors.Is(err, ErrSparseProfile) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	says("model is abababababab")
	if p.Model, err = Identity(c); err != nil {
		t.Fatal(err)
	}
	says("layers is 4, the model's are 3")
	p.Layers, p.Full = 3, []int{0, 2}
	says("full is [0 2]")
	p.Full = []int{0, 1, 2}
	if err := p.Fit(c); err != nil {
		t.Fatal(err)
	}
	x := Sparsity{Prefill: "streaming", Profile: p}
	m, err := Load(c, Placement{Device: tensor.Reference()}, Options{DType: Float32, Limits: Limits{Rows: 64, Sequences: 1, Wanted: 1, Context: 256, Pages: 4}, Sparse: x.Selections()})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	prints := map[string]bool{}
	for _, recall := range []float32{0.8, 0.9, 0.95} {
		policy, err := m.Policy(&Reading{Prefill: "streaming", Recall: recall})
		if err != nil {
			t.Fatal(err)
		}
		prints[policy.Cached] = true
	}
	if len(prints) != 2 || slices.ContainsFunc(m.Reads(), func(n string) bool { return n != "full" && n != "streaming" }) || len(m.Reads()) != 2 {
		t.Errorf("%v, %v", prints, m.Reads())
	}
}

func FuzzParseSparseProfile(f *testing.F) {
	raw, err := json.Marshal(profiled())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"format":2,"settings":[{}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := ParseSparseProfile(raw)
		if err != nil {
			if !errors.Is(err, ErrSparseProfile) {
				t.Fatal(err)
			}
			return
		}
		x := p.Usual()
		for _, s := range p.Settings {
			x.Also = append(x.Also, s.Selector)
		}
		if x.Profile = p; len(x.Selections()) == 0 {
			t.Fatalf("%s has settings, and there are no selections", raw)
		}
		for _, s := range x.Selections() {
			if _, err := s.check(p.Layers); err != nil {
				t.Fatalf("%s: %v", raw, err)
			}
		}
		if _, err := x.Reading(1 << 20); err != nil {
			t.Fatal(err)
		}
	})
}
