package engine

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/model"
)

// most is the K of the first layer of experts, and how many such layers there are.
func most(t *testing.T, e *Engine) (k, layers int) {
	t.Helper()
	for _, l := range e.model.Spec().Layers {
		if l.Router != nil {
			k = l.Router.K
			layers++
		}
	}
	if k < 2 || layers < 2 {
		t.Fatalf("%d layers of %d experts are too few for this test", layers, k)
	}
	return k, layers
}

// wishers are requests that make do with fewer experts in all ways, and some that do not.
func wishers(k, layers int) []Request {
	all := requests(8)
	each := make([]int, layers)
	for i := range each {
		each[i] = 1 + i%k
	}
	for i, x := range []*model.Experts{
		{TopK: []int{1}}, nil, {MinP: 0.8}, {Mass: 0.5}, {SkipBeta: 0.9}, {TopK: each}, {}, {TopK: []int{k}, Mass: 1},
	} {
		all[i].Experts = x
	}
	return all
}

// Requests that make do with fewer experts get the same bits in one batch as alone, and neither they nor others change what others get.
func TestExpertsAreIndependent(t *testing.T) {
	e, _ := open(t, model.Limits{Rows: 24, Sequences: 6, Wanted: 6, Pages: 16, Context: 256}) // in chunks, with waits and preemptions
	k, layers := most(t, e)
	all := wishers(k, layers)
	want := alone(t, all)
	for round := range 2 {
		for i, got := range together(t, e, all) {
			if err := same(got, want[i]); err != nil {
				t.Errorf("round %d, request %d: %v", round, i, err)
			}
		}
	}
	plain, changed := requests(8), 0
	for i, want := range alone(t, plain) {
		differs := same(want, alone(t, all[i:i+1])[0]) != nil
		if own := i == 1 || i >= 6; own && differs {
			t.Errorf("request %d asks for nothing and gets something else", i)
		} else if differs {
			changed++
		}
	}
	if changed == 0 {
		t.Error("no wish changes anything")
	}
}

// What was computed with fewer experts is no beginning of what is computed with all, nor with other wishes.
func TestExpertsShareNoPrefix(t *testing.T) {
	e, _ := open(t, ample)
	k, _ := most(t, e)
	prompt := make([]int32, 130)
	for i := range prompt {
		prompt[i] = int32(i * 3 % 320)
	}
	for i, c := range []struct {
		experts *model.Experts
		cached  int
	}{
		{nil, 0}, {&model.Experts{TopK: []int{1}}, 0}, {&model.Experts{MinP: 0.9}, 0}, {nil, 128}, {&model.Experts{TopK: []int{1}}, 128},
		{&model.Experts{TopK: []int{k}}, 128}, {&model.Experts{}, 128}, {&model.Experts{MinP: 0.9}, 128}, {&model.Experts{MinP: 0.91}, 0},
	} {
		r := Request{Prompt: prompt, MaxTokens: 2, Experts: c.experts, Alternatives: 3}
		got, err := collect(e.Generate(t.Context(), r))
		if err != nil {
			t.Fatal(err)
		}
		if s := got[len(got)-1].Stats; s.Cached != c.cached {
			t.Errorf("%d: %d tokens were found, want %d", i, s.Cached, c.cached)
		}
		if err := same(got, alone(t, []Request{r})[0]); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// What is said of experts adds up.
func TestExpertStats(t *testing.T) {
	e, _ := open(t, model.Limits{Rows: 16, Sequences: 4, Wanted: 4, Pages: 16, Context: 256})
	k, layers := most(t, e)
	prompt := make([]int32, 70)
	for i := range prompt {
		prompt[i] = int32(i*i) % 320
	}
	before := -1.0
	for top := 1; top <= k; top++ {
		r := Request{Prompt: prompt, MaxTokens: 5, Experts: &model.Experts{TopK: []int{top}}, Counted: true, Routes: true, Alternatives: -1}
		got, err := collect(e.Generate(t.Context(), r))
		if err != nil {
			t.Fatal(err)
		}
		s := got[len(got)-1].Stats.Experts
		rows := int64((len(prompt) + 4) * layers) // the last token is not computed
		mass := s.Mass / float64(s.Rows)
		if s.Rows != rows || s.Chosen != rows*int64(top) || s.Skipped != rows*int64(k-top) || s.Distinct < top*layers {
			t.Errorf("%d experts: %+v, want %d rows", top, s, rows)
		}
		if mass <= before || mass > 1 || top == k && mass != 1 {
			t.Errorf("%d experts hold a share of %v, fewer hold %v", top, mass, before)
		}
		before = mass
		if len(s.IDs) != int(rows)*k {
			t.Fatalf("%d ids, want %d", len(s.IDs), int(rows)*k)
		}
		for i, id := range s.IDs {
			if (id != NoExpert) != (i%k < top) {
				t.Fatalf("%d experts: place %d has id %d", top, i, id)
			}
		}
	}
}

// Counts of experts are those of all rows, once the engine is idle.
func TestExpertCounts(t *testing.T) {
	e, _ := open(t, ample)
	k, layers := most(t, e)
	rows := int64(0)
	for _, tokens := range together(t, e, requests(5)) {
		rows += int64(len(tokens) - 1)
	}
	for _, r := range requests(5) {
		rows += int64(len(r.Prompt))
	}
	var counts []model.ExpertCounts
	for range 1000 {
		if counts = e.Experts(); len(counts) == layers && counts[0].Rows == rows-e.Usage().Cached {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(counts) != layers {
		t.Fatalf("%d layers, want %d", len(counts), layers)
	}
	for _, c := range counts {
		sum := int64(0)
		for _, n := range c.Chosen {
			sum += n
		}
		if want := rows - e.Usage().Cached; c.Rows != want || sum != want*int64(k) || c.NaN != 0 {
			t.Errorf("layer %d: %d rows with %d choices and %d NaN, want %d rows", c.Layer, c.Rows, sum, c.NaN, want)
		}
	}
}

// A text is scored with the experts that the score asks for: as answers are generated with them, and whatever else was scored before.
func TestExpertsOfScores(t *testing.T) {
	e, _ := open(t, ample)
	vocab, ids := e.model.Spec().Vocab, requests(7)[5].Prompt
	scored := func(x *model.Experts) (all []float32) {
		if err := e.Score(t.Context(), Scoring{IDs: ids, Experts: x}, func(_ int, logits []float32) { all = append(all, logits...) }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	own, one := scored(nil), scored(&model.Experts{TopK: []int{1}})
	if slices.Equal(own, one) || !slices.Equal(own, scored(&model.Experts{})) || !slices.Equal(one, scored(&model.Experts{TopK: []int{1}})) {
		t.Error("scores with one expert a token are those with all, or change from time to time")
	}
	for _, n := range []int{1, len(ids) / 2, len(ids)} {
		got, err := collect(e.Generate(t.Context(), Request{Prompt: ids[:n], MaxTokens: 1, Experts: &model.Experts{TopK: []int{1}}, Alternatives: -1}))
		if err != nil {
			t.Fatal(err)
		}
		if row := one[(n-1)*vocab:][:vocab]; row[got[0].ID] != slices.Max(row) {
			t.Errorf("after %d tokens %d is generated, which is not what scores best", n, got[0].ID)
		}
	}
}

func TestExpertsRefused(t *testing.T) {
	e, _ := open(t, ample)
	k, layers := most(t, e)
	for name, x := range map[string]model.Experts{
		"more than K":   {TopK: []int{k + 1}},
		"below 0":       {TopK: []int{-1}},
		"wrong length":  {TopK: make([]int, layers+1)},
		"one too large": {TopK: append(slices.Repeat([]int{1}, layers-1), k+1)},
		"min-p":         {MinP: 1.5},
		"mass":          {Mass: -1},
		"skip":          {SkipBeta: 2},
	} {
		_, err := collect(e.Generate(t.Context(), Request{Prompt: []int32{1}, Experts: &x}))
		if _, ok := errors.AsType[*model.ExpertsError](err); !ok || !errors.Is(err, ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
		if scored := e.Score(t.Context(), Scoring{IDs: []int32{1}, Experts: &x}, nil); scored == nil || scored.Error() != err.Error() {
			t.Errorf("%s: %v for a score", name, scored)
		}
	}
}
