package engine

import (
	"math"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
)

// ofExperts is a model with a layer of so many experts, of which each token takes k.
func ofExperts(n, k int) *model.Spec {
	return &model.Spec{Layers: []model.LayerSpec{{}, {Router: &moe.RouterSpec{Experts: n, K: k}, Map: moe.EveryExpert(n)}}}
}

func TestExpectedExperts(t *testing.T) {
	for _, c := range []struct{ n, k, rows, want int }{
		{128, 8, 1, 8}, {128, 8, 8, 52}, {128, 8, 32, 112}, {96, 1, 32, 27}, {8, 8, 3, 8}, {8, 2, 0, 0}, // as the literature has them
	} {
		u := newUnique(1, ofExperts(c.n, c.k))
		if got := u.layers[0].expect(c.rows); math.Abs(got-float64(c.want)) > 0.6 {
			t.Errorf("%d rows of %d of %d experts touch %v, want about %d", c.rows, c.k, c.n, got, c.want)
		}
	}
}

// How many may generate follows the formula at first, then what was seen, and forgets that again.
func TestCrowd(t *testing.T) {
	u := newUnique(60, ofExperts(128, 8))
	first := u.crowd(64)
	if e := &u.layers[0]; e.expect(first) > 60 || e.expect(first+1) <= 60 {
		t.Fatalf("%d may generate at first", first)
	}
	counts := []model.ExpertCounts{{}}
	see := func(steps, rows int, share float64) int {
		for range steps {
			u.ran(rows)
			counts[0].Distinct += int64(share * u.layers[0].expect(rows))
		}
		u.look(counts)
		return u.crowd(64)
	}
	half := see(100, 8, 0.5)
	if half < 2*first {
		t.Errorf("where half as many experts run as expected, %d may generate instead of %d", half, first)
	}
	for range 12 {
		half = see(100, 8, 1)
	}
	if half < first-1 || half > first+1 {
		t.Errorf("after many steps that run as many as expected, %d may generate, want %d", half, first)
	}
	if more := see(1000, 8, 1.5); more >= first {
		t.Errorf("where more experts run than expected, %d may generate, not less than %d", more, first)
	}
}

func TestCrowdBounds(t *testing.T) {
	for _, c := range []struct{ most, want int }{{0, 0}, {1, 1}, {7, 1}, {15, 1}, {16, 2}, {127, 0}, {128, 0}, {1000, 0}} {
		if got := new(newUnique(c.most, ofExperts(128, 8))).crowd(16); got != c.want {
			t.Errorf("%d experts: %d may generate, want %d", c.most, got, c.want)
		}
	}
	if got := new(newUnique(1, &model.Spec{Layers: make([]model.LayerSpec, 3)})).crowd(16); got != 0 {
		t.Errorf("%d may generate with a model that has no experts", got)
	}
}

// An engine whose crowd is one answers all of many requests, with the same bits as without.
func TestCrowdOfAnEngine(t *testing.T) {
	m, l := load(t, ample, tensor.Reference()), NewLoop()
	t.Cleanup(l.Close)
	e := l.Open(m, Options{Check: true, Queue: 16, MaxUnique: 1})
	if u := e.Usage(); u.Crowd != 1 {
		t.Fatalf("%+v", u)
	}
	all := requests(8)
	want := alone(t, all)
	for i, got := range together(t, e, all) {
		if err := same(got, want[i]); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if u := e.Usage(); u.Crowd != 1 || u.Running+u.Waiting != 0 {
		t.Errorf("%+v", u)
	}
	if counts := e.Experts(); len(counts) > 0 && slices.ContainsFunc(counts, func(c model.ExpertCounts) bool {
		return c.Distinct < c.Steps*int64(e.model.Spec().Layers[c.Layer].Router.K) || c.Distinct > c.Steps*int64(len(c.Chosen)) || c.Steps == 0
	}) {
		t.Errorf("%+v", counts)
	}
}
