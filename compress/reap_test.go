package compress

import (
	"reflect"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/moe"
)

// seen is a layer of which only usage and saliency are known.
func seen(usage []int64, saliency []float64) LayerProfile {
	l := blank(len(usage), 1)
	l.Usage, l.Saliency = usage, saliency
	return l
}

func TestREAPDividesBySeenTokens(t *testing.T) {
	spec := modelOf(topK(4, 1))
	p := &Profile{Layers: []LayerProfile{seen([]int64{1000, 4000, 2000, 0}, []float64{10, 20, 30, 0})}} // means 0.01, 0.005, 0.015, none
	for keep, want := range map[float64][]int{0.75: {3}, 0.5: {1, 3}, 0.25: {0, 1, 3}} {
		plan, err := REAP(In{Spec: spec, Profile: p, Keep: keep})
		if err != nil || !slices.Equal(plan.Overlay.Layers[0].Drop, want) {
			t.Errorf("keep %v: %v, want %v (%v)", keep, plan.Overlay.Layers, want, err)
		}
	}
}

func TestREAPOfEqualsKeepsTheLower(t *testing.T) {
	spec := modelOf(topK(4, 1))
	p := &Profile{Layers: []LayerProfile{seen([]int64{900, 900, 900, 900}, []float64{9, 9, 9, 9})}}
	plan, err := REAP(In{Spec: spec, Profile: p, Keep: 0.5})
	if err != nil || !slices.Equal(plan.Overlay.Layers[0].Drop, []int{2, 3}) {
		t.Error(plan, err)
	}
}

func TestRaggedRanksAllLayersTogether(t *testing.T) {
	spec := modelOf(topK(4, 1), topK(4, 1))
	usage := []int64{1000, 1000, 1000, 1000}
	p := &Profile{Layers: []LayerProfile{seen(usage, []float64{1, 2, 3, 4}), seen(usage, []float64{5, 6, 7, 8})}}
	for ragged, want := range map[bool]map[int]moe.OverlayLayer{
		false: {0: {Drop: []int{0, 1}}, 1: {Drop: []int{0, 1}}},
		true:  {0: {Drop: []int{0, 1, 2}}, 1: {Drop: []int{0}}}, // the first layer is down to what a token takes
	} {
		plan, err := REAP(In{Spec: spec, Profile: p, Keep: 0.5, Ragged: ragged})
		if err != nil || !reflect.DeepEqual(plan.Overlay.Layers, want) {
			t.Errorf("ragged %v: %v, want %v (%v)", ragged, plan.Overlay.Layers, want, err)
		}
	}
}

func TestSuperExpertsStay(t *testing.T) {
	spec := modelOf(topK(4, 1), topK(4, 1), topK(4, 1), topK(4, 1))
	usage, worth := []int64{1000, 1000, 1000, 1000}, []float64{1, 2, 3, 4}
	p := &Profile{}
	for range 4 {
		p.Layers = append(p.Layers, seen(usage, worth))
	}
	p.Layers[1].Largest[0] = 100 // least worth, but super
	p.Layers[3].Largest[0] = 500 // in the last quarter, where the last norm bears large outputs
	plan, err := REAP(In{Spec: spec, Profile: p, Keep: 0.75})
	want := map[int]moe.OverlayLayer{0: {Drop: []int{0}}, 1: {Drop: []int{1}}, 2: {Drop: []int{0}}, 3: {Drop: []int{0}}}
	if err != nil || !reflect.DeepEqual(plan.Overlay.Layers, want) {
		t.Error(plan.Overlay.Layers, err)
	}
	if plan, err = Frequency(In{Spec: spec, Profile: p, Keep: 0.25}); err != nil || !slices.Equal(plan.Overlay.Layers[1].Drop, []int{1, 2, 3}) {
		t.Error(plan.Overlay.Layers, err) // of equal use the lowest stays
	}
}

// Above the percentile is not enough: a super expert's largest output is at least a tenth of the largest of all.
func TestSuperExpertsStandOut(t *testing.T) {
	p := &Profile{Layers: []LayerProfile{blank(100, 1), blank(100, 1), blank(100, 1), blank(100, 1)}}
	p.Layers[0].Largest[7], p.Layers[1].Largest[8], p.Layers[2].Largest[9] = 1000, 99, 40
	super := p.super()
	for l := range 3 {
		for e, is := range super[l] {
			if is != (l == 0 && e == 7) {
				t.Errorf("layer %d, expert %d: %v", l, e, is)
			}
		}
	}
	p.Layers[1].Largest[8] = 101
	if super = p.super(); !super[1][8] || super[3] != nil {
		t.Error("over a tenth and over the percentile is not super")
	}
}

func TestPercentile(t *testing.T) {
	for share, want := range map[float64]float64{0: 1, 0.5: 2.5, 1: 4, 0.9: 3.7} {
		if got := percentile([]float64{1, 2, 3, 4}, share); got < want-1e-12 || got > want+1e-12 {
			t.Errorf("%v: %v, want %v", share, got, want)
		}
	}
}

func TestRandomGoesBySeed(t *testing.T) {
	spec := modelOf(topK(64, 4), topK(64, 4))
	plan := func(seed uint64) Plan {
		p, err := Random(In{Spec: spec, Keep: 0.5, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a, b, c := plan(1), plan(1), plan(2)
	if !reflect.DeepEqual(a, b) || reflect.DeepEqual(a, c) {
		t.Error("a plan is not its seed's")
	}
	if slices.Equal(a.Overlay.Layers[0].Drop, a.Overlay.Layers[1].Drop) {
		t.Error("layers draw the same lot")
	}
}
