package moe

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/tensor"
)

// captured is a router and inputs that it has seen: those of clusters lie near the router's own rows, which come in groups of kin; others are
// noise.
func captured(experts, k, rows int, clustered float64) (Gate, tensor.Mat) {
	const dim = 24
	r := rand.New(rand.NewPCG(21, uint64(experts)))
	w, kin := make([]float32, experts*dim), make([]float64, dim)
	for e := range experts {
		for d := range dim {
			if e%4 == 0 {
				kin[d] = r.NormFloat64()
			}
			w[e*dim+d] = float32(clustered*kin[d] + r.NormFloat64())
		}
	}
	x := make([]float32, rows*dim)
	for i := range rows {
		e := r.IntN(experts)
		for d := range dim {
			x[i*dim+d] = float32(clustered*float64(w[e*dim+d]) + r.NormFloat64())
		}
	}
	s := RouterSpec{Experts: experts, K: k, Score: Softmax, Weight: FromScore, Norm: true, NormMinK: 1, Scale: 1}
	return Gate{Spec: s, W: tensor.FromF32(experts, dim, w)}, tensor.FromF32(rows, dim, x)
}

// A router whose inputs come in clusters gets a shortlist that reads fewer rows than it has experts, the same for the same seed; where both choose
// the same experts the weights are the router's.
func TestShortlist(t *testing.T) {
	g, all := captured(32, 2, 4000, 1)
	x, held := all.Slice(0, 3200), all.Slice(3200, 4000)
	ask := Fitting{Sizes: []int{8, 32}, Recall: 0.97, Seed: 1}
	l, err := g.Shortlist(x, held, ask)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", l.Figures)
	if f := l.Figures; l.Size != 8 || f.Recall < 0.97 || f.Recall > 1 || f.Read >= 32 || f.Rows != 800 || f.Overlap > 1 {
		t.Errorf("figures %+v", f)
	}
	again, err := g.Shortlist(x, held, ask)
	if err != nil || !slices.Equal(again.Nodes, l.Nodes) || !slices.Equal(again.Leaves, l.Leaves) || again.Figures != l.Figures {
		t.Errorf("the same seed gives another shortlist: %v", err)
	}
	leaves := slices.Clone(l.Leaves[31:])
	if slices.Sort(leaves); len(slices.Compact(leaves)) != 32 || leaves[0] != 0 || leaves[31] != 31 {
		t.Errorf("leaves %v", l.Leaves)
	}
	o := l.Op(g, all)
	o.Reference()
	ids, weights, err := g.choices(all)
	if err != nil {
		t.Fatal(err)
	}
	same := 0
	for i := range all.Rows {
		if !slices.Equal(o.IDs.I32()[2*i:2*i+2], ids[2*i:2*i+2]) {
			continue
		}
		same++
		for slot := 2 * i; slot < 2*i+2; slot++ {
			if math.Abs(float64(o.Weights.F32()[slot]-weights[slot])) > 1e-6 {
				t.Fatalf("row %d: weights %v, the router's are %v", i, o.Weights.F32()[2*i:2*i+2], weights[2*i:2*i+2])
			}
		}
	}
	if same < 3000 {
		t.Errorf("%d of 4000 rows have the router's experts", same)
	}
}

// Of all experts the shortlist is the router.
func TestWholeShortlistIsTheRouter(t *testing.T) {
	g, x := captured(9, 3, 220, 0)
	l, err := g.Shortlist(x.Slice(0, 180), x.Slice(180, 220), Fitting{Sizes: []int{3, 9}, Recall: 1, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if f := l.Figures; f.Recall != 1 || f.Overlap != 1 || f.Read != 17 {
		t.Errorf("figures %+v", f)
	}
}

// Inputs without clusters are refused with the figures, and routers that need all experts by name.
func TestShortlistRefuses(t *testing.T) {
	g, x := captured(64, 4, 2000, 0)
	var low *LowRecall
	ask := Fitting{Sizes: []int{4, 8}, Recall: 0.97}
	if _, err := g.Shortlist(x.Slice(0, 1600), x.Slice(1600, 2000), ask); !errors.As(err, &low) || low.Size != 8 || !(low.Recall > 0.1 && low.Recall < 0.97) || low.Rows != 400 {
		t.Errorf("a shortlist of noise: %v", err)
	}
	good, x := captured(8, 2, 200, 1)
	good32, nan := x.Slice(0, 32), slices.Clone(x.F32())
	nan[77] = float32(math.NaN())
	for name, change := range map[string]func(g *Gate, x *tensor.Mat, size *int){
		"not renormalised": func(g *Gate, _ *tensor.Mat, _ *int) { g.Spec.Norm = false },
		"groups":           func(g *Gate, _ *tensor.Mat, _ *int) { g.Spec.Groups, g.Spec.GroupsKept = 2, 1 },
		"bands":            func(g *Gate, _ *tensor.Mat, _ *int) { g.Spec.Weight = SparseMixer },
		"selection bias":   func(g *Gate, _ *tensor.Mat, _ *int) { g.Select = make([]float32, 8) },
		"size below K":     func(_ *Gate, _ *tensor.Mat, size *int) { *size = 1 },
		"size beyond":      func(_ *Gate, _ *tensor.Mat, size *int) { *size = 9 },
		"too few rows":     func(_ *Gate, x *tensor.Mat, _ *int) { *x = x.Slice(0, 100) },
		"other width":      func(_ *Gate, x *tensor.Mat, _ *int) { *x = tensor.FromF32(400, 12, x.F32()) },
		"no numbers":       func(_ *Gate, x *tensor.Mat, _ *int) { *x = tensor.FromF32(200, 24, nan) },
		"router unchecked": func(g *Gate, _ *tensor.Mat, _ *int) { g.Spec.K = 0 },
	} {
		g, x, size := good, x, 4
		change(&g, &x, &size)
		if _, err := g.Shortlist(x, good32, Fitting{Sizes: []int{size}}); !errors.Is(err, ErrConvert) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, held := range map[string]tensor.Mat{"none held out": x.Slice(0, 0), "too few held out": x.Slice(0, 31), "no numbers held out": tensor.FromF32(200, 24, nan)} {
		if _, err := good.Shortlist(x, held, Fitting{Sizes: []int{4}}); !errors.Is(err, ErrConvert) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := good.Shortlist(x, good32, Fitting{}); !errors.Is(err, ErrConvert) {
		t.Errorf("no sizes: %v", err)
	}
}
