package moe

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/tensor"
)

// noted are logits whose scores were computed independently, as in moetest's golden choices.
var noted = []float64{1.2, -0.3, 0.8, 2, 0.1, -1, 1.9, 0.5}

func TestScoresOfTheNotes(t *testing.T) {
	for score, want := range map[Score][]float64{
		Softmax:  {0.141383, 0.031547, 0.094772, 0.314653, 0.047062, 0.015666, 0.284710, 0.070209},
		Sigmoid:  {0.768525, 0.425557, 0.689974, 0.880797, 0.524979, 0.268941, 0.869892, 0.622459},
		Identity: noted,
	} {
		for e, v := range (RouterSpec{Score: score}).scores(noted) {
			if math.Abs(v-want[e]) > 1e-6 {
				t.Errorf("%s of expert %d is %v, want %v", score, e, v, want[e])
			}
		}
	}
}

// Groups of two are kept by the sums of their biased scores, 1.494082, 1.070772, 0.893921 and 1.692351: groups 3 and 0.
func TestGroupsOfTheNotes(t *testing.T) {
	u := (RouterSpec{Score: Sigmoid}).scores(noted)
	for e, b := range []float64{0, 0.3, 0, -0.5, 0.1, 0, 0, 0.2} {
		u[e] += b
	}
	kept := slices.Clone(u)
	(RouterSpec{Groups: 4, GroupsKept: 2, GroupScore: GroupTop2Sum}).keepGroups(kept)
	for g, want := range []float64{1.494082, 1.070772, 0.893921, 1.692351} {
		if sum := u[2*g] + u[2*g+1]; math.Abs(sum-want) > 1e-6 {
			t.Errorf("group %d has %v, want %v", g, sum, want)
		}
		if gone := math.IsInf(kept[2*g], -1) && math.IsInf(kept[2*g+1], -1); gone != (g == 1 || g == 2) {
			t.Errorf("group %d is %v", g, kept[2*g:2*g+2])
		}
	}
}

// The masses of moetest's golden trees: the second tree sends all to its last leaf, and its second node is not looked at.
func TestMassesOfTheNotes(t *testing.T) {
	spec := TreeSpec{Experts: 3, Trees: 2, Gamma: 1, Cut: TreeCut}
	at, err := spec.Places(spec.EveryLeaf(), ScorerByLeaf)
	if err != nil {
		t.Fatal(err)
	}
	o := &RouteTree{
		Nodes:    tensor.FromF32(4, 2, []float32{1, 0, 0, 1, -1, 1, 0.5, float32(math.NaN())}),
		NodeBias: tensor.FromF32(1, 4, []float32{0, 0.1, 0, 0}), Places: tensor.FromI32(len(at)/2, 2, at), Spec: spec,
	}
	w := visit{x: []float32{0.4, -0.2}}
	for tree, want := range [][]pair{{{0.342144, 0, 0}, {0.629856, 0, 1}, {0.028, 0, 2}}, {{1, 0, 2}}} {
		w.pairs = nil
		o.walk(&w, tree)
		if len(w.pairs) != len(want) || w.bad > 0 {
			t.Fatalf("tree %d reaches %v, %d logits are no numbers", tree, w.pairs, w.bad)
		}
		for i, p := range w.pairs {
			if math.Abs(p.mass-want[i].mass) > 1e-6 || p.expert != want[i].expert {
				t.Errorf("tree %d: leaf %d is %+v, want %+v", tree, i, p, want[i])
			}
		}
	}
}

// A plan has a row for each choice that leads somewhere, and no other: from choices to rows and back is the same, rows of an expert keep the order
// of the batch, and nothing is too little or too much.
func TestPlansInvert(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 4))
	for _, c := range []struct {
		rows, k, experts int
		choose           func() int32
	}{
		{0, 2, 8, nil}, {9, 1, 1, func() int32 { return 0 }}, {20, 1, 6, func() int32 { return 5 }}, {7, 3, 4, func() int32 { return -1 }},
		{50, 4, 16, func() int32 { return int32(r.IntN(17)) - 1 }},
	} {
		ids := make([]int32, c.rows*c.k)
		for i := range ids {
			ids[i] = c.choose()
		}
		o := dispatched(t, ids, c.rows, c.k, EveryExpert(c.experts))
		offset, token, place := o.Plan.Offset.I32(), o.Plan.Token.I32(), o.Plan.Place.I32()
		used := int(offset[c.experts])
		seen := make([]bool, used)
		for i, id := range ids {
			again := slices.Contains(ids[i-i%c.k:i], id)
			if (place[i] >= 0) != (id >= 0 && !again) {
				t.Fatalf("choice %d of %v is row %d", i, ids, place[i])
			}
			if at := place[i]; at >= 0 {
				if seen[at] || at < offset[id] || at >= offset[id+1] || int(token[at]) != i/c.k {
					t.Errorf("choice %d of expert %d is row %d of %v, which is of token %d", i, id, at, offset, token[at])
				}
				seen[at] = true
			}
		}
		if slices.Contains(seen, false) {
			t.Errorf("%d rows, of which nobody chose some: %v", used, seen)
		}
		for e := range c.experts {
			if !slices.IsSorted(token[offset[e]:offset[e+1]]) {
				t.Errorf("expert %d has tokens %v", e, token[offset[e]:offset[e+1]])
			}
		}
	}
}

func dispatched(t *testing.T, ids []int32, rows, k int, m ExpertMap) *Dispatch {
	t.Helper()
	plan, err := NewDispatchPlan(tensor.Reference(), Extent{Rows: max(rows, 1), K: k, Experts: m.Physical()})
	if err != nil {
		t.Fatal(err)
	}
	o := &Dispatch{
		IDs: tensor.FromI32(rows, k, ids), Weights: tensor.FromF32(rows, k, make([]float32, len(ids))), Phys: tensor.FromI32(1, len(m.Phys), m.Phys),
		Plan: plan, N: tensor.FromI32(1, 1, []int32{int32(rows)}), Experts: m.Physical(),
	}
	o.Reference()
	return o
}

// Whatever an overlay drops and merges, each expert that is left has a row that leads to it, and none leads beyond.
func TestOverlaysLeaveNoExpertOut(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		n := 2 + r.IntN(20)
		perm := r.Perm(n)
		drop, pairs := perm[:r.IntN(n)], [][]int(nil)
		for rest := perm[len(drop):]; len(rest) > 2 && r.IntN(3) > 0; rest = rest[2:] {
			pairs = append(pairs, []int{rest[0], rest[1]})
		}
		m, _ := (&Overlay{Layers: map[int]OverlayLayer{0: {Drop: drop, Merge: pairs}}}).Apply(EveryExpert(n), 0, 1)
		found := make([]bool, m.Physical())
		for e, p := range m.Phys {
			if gone := slices.Contains(drop, e); (p < 0) != gone {
				t.Fatalf("expert %d of %d is at %d; dropped: %v", e, n, p, gone)
			}
			if p >= 0 {
				found[p] = true
			}
		}
		if slices.Contains(found, false) || m.Physical() != n-len(drop)-len(pairs) {
			t.Errorf("%d experts without %v and with %v merged are %v", n, drop, pairs, m.Phys)
		}
	}
}

// Experts in one bank give the bits that they give in three.
func TestBanksDoNotShow(t *testing.T) {
	const experts, dim, width, rows, k = 7, 6, 5, 9, 3
	r := rand.New(rand.NewPCG(6, 1))
	draw := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	gate, up, down, x, weights := draw(experts*width*dim), draw(experts*width*dim), draw(experts*dim*width), draw(rows*dim), draw(rows*k)
	ids := make([]int32, 0, rows*k)
	for range rows {
		for _, e := range r.Perm(experts)[:k] {
			ids = append(ids, int32(e))
		}
	}
	run := func(of func(e int) int, banks int) []float32 {
		list := make([]Bank, banks)
		for b := range list {
			slot := slices.Repeat([]int32{-1}, experts)
			var g, u, d []float32
			count := 0
			for e := range experts {
				if of(e) == b {
					slot[e] = int32(count)
					count++
					g, u, d = append(g, gate[e*width*dim:][:width*dim]...), append(u, up[e*width*dim:][:width*dim]...), append(d, down[e*dim*width:][:dim*width]...)
				}
			}
			list[b] = Bank{Gate: tensor.FromF32(count*width, dim, g), Up: tensor.FromF32(count*width, dim, u), Down: tensor.FromF32(count*dim, width, d), Slot: slot}
		}
		o := dispatched(t, ids, rows, k, EveryExpert(experts))
		copy(o.Weights.F32(), weights)
		o.Reference()
		f := &FFN{
			X: tensor.FromF32(rows, dim, x), Y: tensor.FromF32(rows, dim, make([]float32, rows*dim)), Hidden: tensor.FromF32(rows*k, width, make([]float32, rows*k*width)),
			Out: tensor.FromF32(rows*k, dim, make([]float32, rows*k*dim)), Plan: o.Plan, Banks: list, N: o.N,
		}
		f.Reference()
		return f.Y.F32()
	}
	if one, three := run(func(int) int { return 0 }, 1), run(func(e int) int { return e % 3 }, 3); !slices.Equal(one, three) {
		t.Errorf("%v in one bank, %v in three", one, three)
	}
}
