package attention

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestHeadPattern(t *testing.T) {
	p, err := ParseHeadPattern("# a model of two layers\n0.25\t1.5\t-3e-1\n\n0.75\t 0.5\t0.5\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := (HeadPattern{{0.25, 1, 0}, {0.75, 0.5, 0.5}}); !reflect.DeepEqual(p, want) {
		t.Fatalf("%v, want %v", p, want)
	}
	// In order: 0, 0.25, 0.5, 0.5, 0.75, 1. The quantile 0.2 is 0.25, which is whole; 0.5 is 0.5, of which one streams to leave half.
	for sparsity, want := range map[float64][][]int{
		0: {{0, 1, 2}, {0, 1, 2}}, 0.2: {{0, 1}, {0, 1, 2}}, 0.3: {{1}, {0, 1, 2}}, 0.5: {{1}, {0, 2}}, 1: {nil, nil},
	} {
		if have := p.Whole(sparsity); !reflect.DeepEqual(have, want) {
			t.Errorf("sparsity %v: %v, want %v", sparsity, have, want)
		}
	}
}

func TestHeadPatternErrors(t *testing.T) {
	for text, where := range map[string]string{
		"":                    "no line",
		"0.5\t0.5\n0.5\tx":    "line 2, column 2",
		"0.5\t0.5\n\n0.5":     "line 3: 1 columns, the lines before have 2",
		"0.5\tNaN":            "line 1, column 2",
		"0.5 0.5":             "line 1, column 1",
		"0.5\t\t0.5":          "line 1, column 2",
		"0.5\n# nothing\n1,0": "line 3, column 1",
	} {
		if _, err := ParseHeadPattern(text); !errors.Is(err, ErrPattern) || !strings.Contains(err.Error(), where) {
			t.Errorf("%q: %v, want %q", text, err, where)
		}
	}
}

func FuzzHeadPattern(f *testing.F) {
	f.Add("0.25\t1.5\n0.75\t0.5\n", 0.5)
	f.Add("# none\n", 2.0)
	f.Fuzz(func(t *testing.T, text string, sparsity float64) {
		p, err := ParseHeadPattern(text)
		if err != nil {
			if !errors.Is(err, ErrPattern) {
				t.Fatal(err)
			}
			return
		}
		if sparsity != sparsity {
			return
		}
		var least, most float64 = 1, 0 // of those that are whole, of those that stream
		for l, heads := range p.Whole(sparsity) {
			whole := map[int]bool{}
			for _, h := range heads {
				whole[h] = true
			}
			for h, v := range p[l] {
				if !(v >= 0 && v <= 1) {
					t.Fatalf("layer %d head %d: %v", l, h, v)
				}
				if whole[h] {
					least = min(least, v)
				} else {
					most = max(most, v)
				}
			}
		}
		if most > least {
			t.Fatalf("sparsity %v: a head of %v streams, one of %v does not", sparsity, most, least)
		}
	})
}

func TestDuo(t *testing.T) {
	e := pagesStep{4, 2, 2, 9, 10}.env(t)
	s := Setting{Whole: [][]int{{1}, nil}}
	sel := prepare(t, e, "duo", s)
	all, ends := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, []int{0, 5, 6, 7, 8, 9} // 64 and 256 keys
	for layer, want := range [][][]int{{ends, ends, all, all}, {ends, ends, ends, ends}} {
		for h, have := range planned(t, e, sel, layer) {
			if !reflect.DeepEqual(have[0], want[h]) {
				t.Errorf("layer %d head %d reads %v, want %v", layer, h, have[0], want[h])
			}
		}
	}
	k := KindOf("duo")
	other, err := k.New(k, e, Setting{Whole: [][]int{{0}, nil}})
	if err != nil || other.Caps.Fingerprint == sel.Caps.Fingerprint {
		t.Errorf("two patterns, one fingerprint %q, %v", sel.Caps.Fingerprint, err)
	}
	for _, whole := range [][][]int{nil, {{0}}, {{0}, {2}}} {
		if _, err := k.New(k, e, Setting{Whole: whole}); !errors.Is(err, ErrNoPattern) {
			t.Errorf("a pattern %v: %v", whole, err)
		}
	}
}
