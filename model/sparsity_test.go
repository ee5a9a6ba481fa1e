package model

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseSparsity(t *testing.T) {
	for text, want := range map[string]Sparsity{
		"":                         {},
		"prefill=streaming":        {Prefill: "streaming"},
		"prefill=full,decode=full": {Prefill: "full", Decode: "full"},
		" decode = streaming ,recall=0.98,decode_from=0": {Decode: "streaming", Recall: 0.98, DecodeFrom: new(0)},
		"prefill=streaming,threshold=128,prefill_from=9,streaming.sink=192": {
			Prefill: "streaming", Threshold: new(float32(128)), PrefillFrom: new(9), Params: map[string]map[string]float64{"streaming": {"sink": 192}},
		},
		"prefill=s2,decode=s2,pages=all": {Prefill: "s2", Decode: "s2", Pages: AllPages},
		"also=streaming/full":            {Also: []string{"streaming", "full"}},
	} {
		got, err := ParseSparsity(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, c := range []struct{ text, field, why string }{
		{"anchor", `"anchor"`, "has no value"},
		{"prefill=none", "prefill", `is "none", want one of`},
		{"decode=" + strings.Repeat("x", 999), "decode", "want one of"},
		{"also=streaming/x", "also", `is "x"`},
		{"prefill=full,prefill=full", "prefill", "twice"},
		{"budget=0", "budget", "want 1 to"},
		{"budget=x", "budget", "want 1 to"},
		{"decode=streaming,budget=64", "budget", "needs a decode that has one"},
		{"budget=64", "budget", "needs a decode"},
		{"threshold=1", "threshold", "needs prefill"},
		{"prefill=streaming,threshold=-1", "threshold", "recent is -1"},
		{"prefill=streaming,threshold=nan", "threshold", "not a number"},
		{"recall=0", "recall", "above 0 to 1"},
		{"recall=nan", "recall", "above 0 to 1"},
		{"prefill_from=-1", "prefill_from", "want 0 to"},
		{"streaming.sink=64", `"streaming"`, "no selector that is named"},
		{"prefill=streaming,streaming.sink=-1", "", "sink is -1"},
		{"prefill=streaming,streaming.sank=1", "", `no number called "sank"`},
		{"prefill=streaming,streaming.sink=nan", "", "sink is NaN"},
		{"sink=1", `"sink"`, "is unknown"},
		{"pages=none", "pages", `is "none", want "all" or "few"`},
	} {
		_, err := ParseSparsity(c.text)
		e, ok := errors.AsType[*ReadingError](err)
		if !ok || e.Field != c.field || !strings.Contains(e.Why, c.why) || len(err.Error()) > 250 {
			t.Errorf("%.40q: %v", c.text, err)
		}
	}
}

// A default serves prompts that are long enough, and what is generated from twice the budget on.
func TestSparsityBegins(t *testing.T) {
	x, err := ParseSparsity("prefill=streaming,decode=streaming,threshold=64")
	if err != nil {
		t.Fatal(err)
	}
	for prompt, want := range map[int]string{16383: "", 16384: "streaming"} {
		r, err := x.Reading(prompt)
		if err != nil || r.Prefill != want || (r.PrefillKnob != nil) != (want != "") || r.Decode != "streaming" || r.DecodeFrom != 0 {
			t.Errorf("a prompt of %d: %+v, %v", prompt, r, err)
		}
	}
	if got := x.Selections(); len(got) != 1 || got[0].Name != "streaming" {
		t.Errorf("%+v", got)
	}
}

func FuzzParseSparsity(f *testing.F) {
	for _, s := range []string{"prefill=streaming,decode=streaming,recall=0.5", "also=a/b,budget=9", "streaming.sink=1e9,prefill=streaming", "=,="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := ParseSparsity(s)
		if err != nil {
			if _, ok := errors.AsType[*ReadingError](err); !ok || !reflect.DeepEqual(x, Sparsity{}) {
				t.Fatalf("%q: %v with %+v", s, err, x)
			}
			return
		}
		if err := x.Check(); err != nil {
			t.Fatalf("%q was read as %+v: %v", s, x, err)
		}
		if _, err := x.Reading(1 << 20); err != nil {
			t.Fatalf("%q was read as %+v: %v", s, x, err)
		}
	})
}
