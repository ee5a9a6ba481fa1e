package engine

import (
	"math"

	"github.com/winnow-llm/winnow/model"
)

// unique bounds how many sequences generate at once by the different experts that a step then runs, for models whose experts do not all lie in
// fast memory: each that is missing has to be brought. Tokens that chose their experts evenly and by themselves would be expected to touch
// n(1-(1-k/n)^B) of a layer's n with B rows of k each; how steps lately differ from that is measured. It is of the loop's goroutine.
type unique struct {
	most   int // experts of a layer that a step may touch; 0 = any number
	layers []touched
}

// touched is what steps touch of a layer.
type touched struct {
	experts, k float64
	seen       int64   // experts that steps chose, as counts had them last
	expected   float64 // experts that steps since then would be expected to choose
	// Found and foreseen are how many steps lately chose and were expected to choose: what lies further back counts half at each look.
	found, foreseen float64
}

func newUnique(most int, s *model.Spec) unique {
	u := unique{most: most}
	for _, l := range s.Layers {
		if l.Router == nil {
			continue
		}
		there := 0
		for _, id := range l.Map.Phys {
			if id >= 0 {
				there++
			}
		}
		u.layers = append(u.layers, touched{experts: float64(there), k: float64(l.Router.K)})
	}
	return u
}

// expect is how many experts a step of so many rows would touch if tokens chose evenly and by themselves.
func (t *touched) expect(rows int) float64 {
	return t.experts * (1 - math.Pow(1-min(1, t.k/t.experts), float64(rows)))
}

// ran notes that every layer took a step of so many rows.
func (u *unique) ran(rows int) {
	if u.most == 0 {
		return
	}
	for i := range u.layers {
		u.layers[i].expected += u.layers[i].expect(rows)
	}
}

// look learns from counts, which are of all steps that ran.
func (u *unique) look(counts []model.ExpertCounts) {
	if u.most == 0 {
		return
	}
	for i := range u.layers {
		t := &u.layers[i]
		t.found = t.found/2 + float64(counts[i].Distinct-t.seen)
		t.foreseen = t.foreseen/2 + t.expected
		t.seen, t.expected = counts[i].Distinct, 0
	}
}

// crowd is how many sequences may generate at once, of no more than sequences: 0 = as many as there are. One always may.
func (u *unique) crowd(sequences int) int {
	if u.most == 0 {
		return 0
	}
	for n := 2; n <= sequences; n++ {
		for i := range u.layers {
			t := &u.layers[i]
			ratio := 1.0
			if t.foreseen > 0 {
				ratio = t.found / t.foreseen
			}
			if min(t.experts, ratio*t.expect(n)) > float64(u.most) {
				return n - 1
			}
		}
	}
	return 0
}
