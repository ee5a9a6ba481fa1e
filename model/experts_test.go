package model_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// tiny is the mixture of experts of testdata.
func tiny(t *testing.T) *model.Model {
	t.Helper()
	c, err := store.Open("testdata/qwen3_moe")
	if err != nil {
		t.Fatal(err)
	}
	lim := model.Limits{Rows: 16, Sequences: 2, Wanted: 2, Pages: 2, Context: 64}
	m, err := model.Load(c, model.Placement{Device: tensor.Reference()}, model.Options{DType: model.Float32, Limits: lim})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// logits of two sequences of n tokens, each under a wish.
func logits(m *model.Model, n int, wishes [][]float32) []float32 {
	s := &model.Step{}
	s.Reset()
	for i := range 2 {
		for j := range n {
			s.IDs = append(s.IDs, int32(3+7*i+11*j))
		}
		s.Past, s.Pages = append(s.Past, 0), append(s.Pages, []int32{int32(i)})
		s.Start, s.Want = append(s.Start, int32(len(s.IDs))), append(s.Want, int32(len(s.IDs)-1))
	}
	s.Wishes = wishes
	m.Batch().Fill(m.Queue(), s)
	m.Forward(m.Batch())
	out := make([]float32, 2*m.Spec().Vocab)
	model.ReadF32(m.Queue(), m.Batch().Logits, out)
	return out
}

// Wishes hold for their own rows and their own step.
func TestWishesDoNotStay(t *testing.T) {
	m := tiny(t)
	one, err := m.Spec().Wish(&model.Experts{TopK: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	vocab := m.Spec().Vocab
	own, short := logits(m, 8, nil), logits(m, 2, nil)
	both := logits(m, 8, [][]float32{one, one})
	if slices.Equal(own[:vocab], both[:vocab]) || slices.Equal(own[vocab:], both[vocab:]) {
		t.Fatal("one expert answers as all do")
	}
	second := logits(m, 8, [][]float32{nil, one})
	if !slices.Equal(second[:vocab], own[:vocab]) || !slices.Equal(second[vocab:], both[vocab:]) {
		t.Error("a wish of the second sequence does not hold for it alone")
	}
	logits(m, 8, [][]float32{one, one})
	logits(m, 2, [][]float32{one, nil}) // fewer rows than before: the others' lines are still there
	if !slices.Equal(logits(m, 8, nil), own) || !slices.Equal(logits(m, 2, nil), short) {
		t.Error("a wish holds for a later step")
	}
}

// Counts are those of all steps.
func TestExpertCounts(t *testing.T) {
	m := tiny(t)
	logits(m, 4, nil)
	first := m.ExpertCounts()
	if len(first) != m.Spec().ExpertLayers() || first[0].Rows != 8 {
		t.Fatalf("%+v", first)
	}
	logits(m, 4, nil)
	for i, c := range m.ExpertCounts() {
		for e := range c.Chosen {
			if c.Chosen[e] != 2*first[i].Chosen[e] {
				t.Errorf("layer %d: %v after %v", c.Layer, c.Chosen, first[i].Chosen)
			}
		}
	}
}

// What is recent fades by the tokens that came after, and is never more than all.
func TestRecentExperts(t *testing.T) {
	m := tiny(t)
	logits(m, 4, nil)
	first := m.ExpertCounts()[0]
	if first.RecentRows != 8 {
		t.Fatalf("%+v", first)
	}
	logits(m, 4, nil)
	now, fade := m.ExpertCounts()[0], math.Exp(-8./model.RecentTokens)
	if want := 8*fade + 8; math.Abs(now.RecentRows-want) > 1e-9 {
		t.Errorf("%v tokens are recent, want %v", now.RecentRows, want)
	}
	for e, v := range now.Recent {
		if want := first.Recent[e]*fade + first.Recent[e]; math.Abs(v-want) > 1e-9 || first.Recent[e] != float64(first.Chosen[e]) {
			t.Errorf("expert %d: %v is recent, want %v", e, v, want)
		}
	}
}

func TestDrift(t *testing.T) {
	all := moe.EveryExpert(3)
	for _, c := range []struct {
		of     moe.ExpertMap
		recent []float64
		usage  []int64
		want   float64
	}{
		{all, []float64{1, 2, 1}, []int64{100, 200, 100}, 0},
		{all, []float64{4, 0, 0}, []int64{0, 1, 1}, 1},
		{all, []float64{3, 1, 0}, []int64{2, 2, 0}, 0.25},
		{moe.ExpertMap{Phys: []int32{0, -1, 1}}, []float64{1, 0, 1}, []int64{2, 90, 2}, 0}, // the one that is gone chose nobody
		{all, []float64{0, 0, 0}, []int64{1, 1, 1}, math.NaN()},
		{all, []float64{1, 0, 0}, []int64{0, 0, 0}, math.NaN()},
	} {
		x := model.ExpertCounts{Map: c.of, Recent: c.recent}
		if got := x.Drift(c.usage); math.Abs(got-c.want) > 1e-12 || math.IsNaN(got) != math.IsNaN(c.want) {
			t.Errorf("%v beside %v: %v, want %v", c.recent, c.usage, got, c.want)
		}
	}
}

func TestVariation(t *testing.T) {
	for want, c := range map[float64]model.ExpertCounts{
		0:   {Map: moe.EveryExpert(3), Chosen: []int64{5, 5, 5}},
		1:   {Map: moe.EveryExpert(2), Chosen: []int64{0, 8}},
		0.5: {Map: moe.ExpertMap{Phys: []int32{0, -1, 1}}, Chosen: []int64{1, 0, 3}},
	} {
		if got := c.Variation(); math.Abs(got-want) > 1e-12 {
			t.Errorf("%v: %v, want %v", c.Chosen, got, want)
		}
	}
	if got := (&model.ExpertCounts{Map: moe.EveryExpert(2), Chosen: make([]int64, 2)}).Variation(); got != 0 {
		t.Errorf("nothing chosen: %v", got)
	}
}

func TestWishRefusesDense(t *testing.T) {
	s := model.Spec{Layers: make([]model.LayerSpec, 2)}
	if _, err := s.Wish(&model.Experts{}); err == nil {
		t.Error("a model without experts takes wishes")
	} else if _, ok := errors.AsType[*model.ExpertsError](err); !ok {
		t.Error(err)
	}
}
