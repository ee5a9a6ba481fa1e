package attention

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
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
		"0.5\n-Inf":           "line 2, column 1",
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
	s := Setting{Heads: HeadPattern{{0.1, 0.9}, {0.4, 0.2}}, Params: map[string]float64{"threshold": 0.5}}
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
	other, err := k.New(k, e, Setting{Heads: s.Heads, Params: map[string]float64{"sparsity": 0.4}})
	if err != nil || other.Caps.Fingerprint == sel.Caps.Fingerprint {
		t.Errorf("two patterns, one fingerprint %q, %v", sel.Caps.Fingerprint, err)
	}
	for want, p := range map[string]HeadPattern{
		"0 layers": nil, "1 layers is given, the model has 2": {{0, 1}}, "layer 1 has 3 heads in the pattern, the model has 2": {{0, 1}, {0, 1, 0}},
	} {
		if _, err := k.New(k, e, Setting{Heads: p}); !errors.Is(err, ErrNoPattern) || !strings.Contains(err.Error(), want) {
			t.Errorf("a pattern %v: %v, want %q", p, err, want)
		}
	}
}

// What rows get is softmax attention under the pattern's mask, whatever else is cached.
func TestDuoIsMaskedAttention(t *testing.T) {
	const heads, kv, dim, pages = 4, 2, 8, 8
	r, n := rand.New(rand.NewPCG(9, 9)), pages*PageTokens
	e := pagesStep{heads, kv, 1, 0, pages}.env(t)
	caches, err := NewCaches(tensor.Reference(), pages, []Shape{{Heads: kv, Dim: dim, Format: quant.F32}})
	if err != nil {
		t.Fatal(err)
	}
	draw := func(cols int) tensor.Mat {
		v := make([]float32, n*cols)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return tensor.FromF32(n, cols, v)
	}
	e.Caches, e.Q = caches, draw(heads*dim)
	e.Layout.Pages = []tensor.Mat{tensor.FromI32(1, pages, []int32{3, 1, 0, 7, 6, 2, 5, 4})}
	k, v, y := draw(kv*dim), draw(kv*dim), tensor.FromF32(n, heads*dim, make([]float32, n*heads*dim))
	s := Setting{Heads: HeadPattern{{0.2, 0.7}}, Knobs: []float32{100}, Params: map[string]float64{"sink": 3}}
	sel := prepare(t, e, "duo", s)
	(&Append{K: k, V: v, Cache: caches[0], Layout: e.Layout}).Reference()
	for _, o := range sel.At(0).Select {
		o.Reference()
	}
	(&Attend{Q: e.Q, Y: y, Cache: caches[0], Plan: e.Plan, Layout: e.Layout, Heads: heads, Scale: 0.5}).Reference()
	for row := 0; row < n; row += 37 {
		for h := range heads {
			var sum float64
			want := make([]float64, dim)
			for key := range row + 1 {
				if streams := h < 2; streams && key >= PageTokens && key/PageTokens < row/PageTokens-2 {
					continue
				}
				score := 0.0
				for d := range dim {
					score += 0.5 * float64(e.Q.F32()[(row*heads+h)*dim+d]) * float64(k.F32()[(key*kv+h/2)*dim+d])
				}
				sum += math.Exp(score)
				for d := range dim {
					want[d] += math.Exp(score) * float64(v.F32()[(key*kv+h/2)*dim+d])
				}
			}
			for d, w := range want {
				if got := float64(y.F32()[(row*heads+h)*dim+d]); math.Abs(got-w/sum) > 1e-5 {
					t.Fatalf("row %d head %d: %v, want %v", row, h, got, w/sum)
				}
			}
		}
	}
}
