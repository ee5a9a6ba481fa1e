package compress

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
)

// notes is the layer of the design notes' check: four experts whose router rows fall into two pairs.
func notes() (model.Spec, *madeUp) {
	spec := modelOf(topK(4, 1))
	spec.Dim = 2
	return spec, &madeUp{router: [][]float32{{0, 0, 0, 1, 3, 0, 3, 0.5}}, experts: [][][]float32{{{0, 0}, {0, 1}, {3, 0}, {3, 0.5}}}}
}

func TestSTUNOfTheNotes(t *testing.T) {
	spec, w := notes()
	w.experts = nil // of pairs, which never differ, no weights are read
	for keep, want := range map[float64][]int{1: nil, 0.75: {3}, 0.5: {1, 3}} {
		p, err := STUN(In{Spec: spec, Weights: w.of(spec), Keep: keep, Kappa: 1})
		if err != nil || !slices.Equal(p.Overlay.Layers[0].Drop, want) || len(p.Average) > 0 {
			t.Errorf("keep %v: %+v, want %v (%v)", keep, p, want, err)
		}
	}
}

func TestSTUNAveragesLayersOfFewClusters(t *testing.T) {
	spec, w := notes()
	for _, c := range []struct {
		keep  float64
		kappa int
		want  map[int][][]int
	}{
		{0.75, 0, map[int][][]int{}}, {0.5, 0, map[int][][]int{0: {{0, 1}, {2, 3}}}}, {0.5, 2, map[int][][]int{}}, {0.75, 4, map[int][][]int{0: {{2, 3}}}},
	} {
		p, err := STUN(In{Spec: spec, Weights: w.of(spec), Keep: c.keep, Kappa: c.kappa})
		if err != nil || !reflect.DeepEqual(p.Average, c.want) {
			t.Errorf("keep %v, kappa %d: %v, want %v (%v)", c.keep, c.kappa, p.Average, c.want, err)
		}
	}
}

func TestMergedTakesClustersBackAmongTheLiving(t *testing.T) {
	spec, w := notes()
	p, err := STUN(In{Spec: spec, Weights: w.of(spec), Keep: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Merged().Layers, map[int]moe.OverlayLayer{0: {Merge: [][]int{{0, 1}, {2, 3}}}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := p.Overlay.Layers[0]; !slices.Equal(got.Drop, []int{1, 3}) || got.Merge != nil {
		t.Errorf("the plan's own overlay becomes %v", got)
	}
	if o := p.Merged(); o.Check(0, *spec.Layers[0].Router, spec.Layers[0].Map) != nil {
		t.Error("the model refuses it")
	}
}

// The survivor of three is the one in the middle by all weights, wherever its router row is.
func TestSTUNKeepsTheExpertClosestToTheMean(t *testing.T) {
	spec := modelOf(topK(4, 1))
	w := &madeUp{router: [][]float32{{0, 0.1, 0.3, 9}}, experts: [][][]float32{{{0, 0}, {10, 0}, {4, 0}, {0, 0}}}}
	spec.Dim = 1
	p, err := STUN(In{Spec: spec, Weights: w.of(spec), Keep: 0.5, Kappa: 1})
	if err != nil || !slices.Equal(p.Overlay.Layers[0].Drop, []int{0, 1}) {
		t.Error(p, err)
	}
}

// An expert that is another's copy goes before all others, and the layer gives each token what it gave before: the router's two rows score
// alike, so that whoever would have taken both takes one.
func TestSTUNMergesCopiesFirst(t *testing.T) {
	spec := modelOf(topK(8, 1), topK(8, 1))
	w := drawn(spec, 3)
	copy(w.router[1][5*4:6*4], w.router[1][3*4:4*4])
	w.experts[1][5] = w.experts[1][3]
	p, err := STUN(In{Spec: spec, Weights: w.of(spec), Keep: 15.0 / 16})
	if want := map[int]moe.OverlayLayer{1: {Drop: []int{5}}}; err != nil || !reflect.DeepEqual(p.Overlay.Layers, want) {
		t.Fatal(p, err)
	}
	logits := []float32{0, 0, 0, 2, 0, 2, 1, -1}
	choose := func(phys []int32) moe.Choice {
		c := moe.Choice{IDs: make([]int32, 1), Weights: make([]float32, 1)}
		spec.Layers[1].Router.Choose(logits, nil, phys, c)
		return c
	}
	whole, cut := moe.EveryExpert(8).Phys, moe.EveryExpert(8).Phys
	cut[5] = -1
	if a, b := choose(whole), choose(cut); !reflect.DeepEqual(a, b) {
		t.Errorf("%v before, %v after", a, b)
	}
}

func TestSTUNJoinsWhoIsChosenTogether(t *testing.T) {
	spec, w := notes()
	l := blank(4, 1)
	l.Usage = []int64{90, 10, 10, 90}
	l.Together = [][]int64{{90, 0, 0, 90}, {0, 10, 10, 0}, {0, 10, 10, 0}, {90, 0, 0, 90}}
	p := &Profile{Layers: []LayerProfile{l}}
	for lambda, want := range map[[2]float64][][]int{
		{0, 1}: {{0, 3}, {1, 2}},
		{}:     {{0, 1}, {2, 3}}, // a profile does not change what is alike unless asked to
	} {
		plan, err := STUN(In{Spec: spec, Weights: w.of(spec), Profile: p, Keep: 0.5, Lambda: lambda, Kappa: 3})
		if err != nil || !reflect.DeepEqual(plan.Average, map[int][][]int{0: want}) {
			t.Errorf("%v: %v, want %v (%v)", lambda, plan.Average, want, err)
		}
	}
}

func TestSTUNRefusesBrokenRouters(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1)} {
		spec, w := notes()
		w.router[0][5] = float32(v)
		if _, err := STUN(In{Spec: spec, Weights: w.of(spec), Keep: 0.5}); !errors.Is(err, ErrPlan) || !strings.Contains(err.Error(), "layer 0: the router row of expert 2") {
			t.Error(err)
		}
	}
}

func TestHybridKeepsTheMostSalientOfACluster(t *testing.T) {
	spec, w := notes()
	p := &Profile{Layers: []LayerProfile{seen([]int64{1000, 1000, 1000, 0}, []float64{1, 2, 0.5, 0})}}
	plan, err := Hybrid(In{Spec: spec, Weights: w.of(spec), Profile: p, Keep: 0.5, Lambda: [2]float64{1, 0}})
	if err != nil || !slices.Equal(plan.Overlay.Layers[0].Drop, []int{0, 3}) || plan.Average != nil {
		t.Error(plan, err)
	}
}

func TestStepsOfGroupsAreAsHighAsTheHighest(t *testing.T) {
	got := climbs(3, [][]merge{{{0, 1, 1}, {0, 2, 5}}, {{3, 4, 2}, {3, 5, 4}}})
	if want := (ladder{layer: 3, heights: []float64{2, 5}, size: 2}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestTheStrongestOfEqualsIsTheLowest(t *testing.T) {
	merges := []merge{{0, 3, 1}, {1, 2, 2}, {0, 1, 3}}
	for _, c := range []struct {
		worth []float64
		want  []int
	}{{[]float64{1, 5, 2, 5}, []int{3, 1, 1}}, {[]float64{5, 5, 5, 5}, []int{0, 1, 0}}, {[]float64{1, 2, 3, 4}, []int{3, 2, 3}}} {
		if got := strongest(c.worth, merges); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.worth, got, c.want)
		}
	}
}
