package model

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseExperts(t *testing.T) {
	for text, want := range map[string]Experts{
		"":                                       {},
		"  ":                                     {},
		"top_k=4,mass=0.9":                       {TopK: []int{4}, Mass: 0.9},
		" min_p = 0.25 , top_k=8/8/4":            {TopK: []int{8, 8, 4}, MinP: 0.25},
		"skip_beta=1,min_p=0,mass=1,top_k=1":     {TopK: []int{1}, SkipBeta: 1, Mass: 1},
		"top_k=" + strings.Repeat("1/", 5) + "2": {TopK: []int{1, 1, 1, 1, 1, 2}},
	} {
		got, err := ParseExperts(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, c := range []struct{ text, field, why string }{
		{"4", `"4"`, "has no value"},
		{"top_k", `"top_k"`, "has no value"},
		{"top_k=2,", `""`, "has no value"},
		{"topk=2", `"topk"`, "unknown"},
		{"top_k=2,top_k=3", "top_k", "twice"},
		{"top_k=0", "top_k", "from 1 to 1024"},
		{"top_k=[2", "top_k", "from 1 to 1024"},
		{"top_k=2//1", "top_k", `has ""`},
		{"top_k=1025", "top_k", "from 1 to 1024"},
		{"top_k=" + strings.Repeat("1/", 1024) + "1", "top_k", "has 1025 numbers"},
		{"mass=0", "mass", "above 0"},
		{"mass=nan", "mass", "0 to 1"},
		{"min_p=1.01", "min_p", "0 to 1"},
		{"skip_beta=-1", "skip_beta", "0 to 1"},
		{"min_p=" + strings.Repeat("9", 99), "min_p", "0 to 1"},
	} {
		_, err := ParseExperts(c.text)
		e, ok := errors.AsType[*ExpertsError](err)
		if !ok || e.Field != c.field || !strings.Contains(e.Why, c.why) || len(err.Error()) > 200 {
			t.Errorf("%.40q: %v", c.text, err)
		}
	}
}

// What is read is written so that it reads the same, and nothing is read that a model would find out of range.
func FuzzParseExperts(f *testing.F) {
	for _, s := range []string{"top_k=4,mass=0.9", "top_k=2/2/1,min_p=0.1,skip_beta=1e-3", "mass=0x1p-2", "=,=", "top_k=1/1/1/1/1,mass=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := ParseExperts(s)
		if err != nil {
			if _, ok := errors.AsType[*ExpertsError](err); !ok || !reflect.DeepEqual(x, Experts{}) {
				t.Fatalf("%q: %v with %+v", s, err, x)
			}
			return
		}
		for _, v := range []float32{x.MinP, x.Mass, x.SkipBeta} {
			if !(v >= 0 && v <= 1) {
				t.Fatalf("%q: %+v", s, x)
			}
		}
		again, err := ParseExperts(x.String())
		if err != nil || !reflect.DeepEqual(x, again) {
			t.Fatalf("%q: %+v is written %q and read as %+v, %v", s, x, x.String(), again, err)
		}
	})
}
