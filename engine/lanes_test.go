package engine_test

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
)

// laned are selectors whose heads are known to read few pages, in the ways that they leave tiles behind: one page in four of each head, in all
// layers and in every other one; those of query heads; pages that nobody reads; and all of that for a part of the heads.
var laned = map[string]model.Selection{
	"heads of keys":    {Name: "s2", Knobs: []float32{2}, Params: map[string]float64{"stride": 4, "dense_every": 0, "kv": 1}},
	"every other":      {Name: "s2", Knobs: []float32{2}, Params: map[string]float64{"stride": 4, "dense_every": 2, "kv": 1}},
	"heads of queries": {Name: "s2", Knobs: []float32{1}, Params: map[string]float64{"stride": 8, "dense_every": 3}},
	"one dense head":   {Name: "s2", Knobs: []float32{1, 2, 1, 3, 2, 1}, Params: map[string]float64{"stride": 3, "dense_every": 0, "kv": 1, "dense_heads": 1}},
	"streaming":        {Name: "streaming", Knobs: []float32{64}, Params: map[string]float64{"sink": 64}},
	"streaming heads":  {Name: "duo", Knobs: []float32{64}, Params: map[string]float64{"sink": 64, "sparsity": 0.7}},
}

// heads is a pattern for the embedded model in which every layer has heads of its own that read everything.
func heads(t *testing.T) *model.Heads {
	t.Helper()
	p, err := attention.ParseHeadPattern("0.9\t0.1\n0\t0\n0.2\t1\n0.7\t0.8\n0.3\t0\n0.1\t0.2\n")
	if err != nil {
		t.Fatal(err)
	}
	return &model.Heads{File: "heads.tsv", Pattern: p}
}

// reading are the ways to read by a selector of laned, all pages kept or not.
func reading(name string, whole bool) []model.Reading {
	knob := float32(3)
	return []model.Reading{
		{Prefill: name, Decode: name, Whole: whole},
		{Decode: name, Whole: whole},
		{Decode: name, DecodeFrom: 700, Whole: whole},
		{Prefill: name, Decode: name, DecodeKnob: &knob, Whole: whole},
	}
}

// Who gives pages back gets the bits of who keeps them: alone, in chunks, among others, after a hit and after preemptions. What is freed
// is NaN here, and whoever plans to read it fails.
func TestLanesChangeNothing(t *testing.T) {
	for name := range laned {
		t.Run(name, func(t *testing.T) { lanesChangeNothing(t, name, "f16") })
	}
	for _, name := range []string{"every other", "heads of queries", "streaming heads"} {
		t.Run("pruned, "+name, func(t *testing.T) { lanesChangeNothing(t, name, "mustafar-70") })
	}
}

func lanesChangeNothing(t *testing.T, name, kv string) {
	s := laned[name]
	ask := func(i int, whole bool) engine.Request {
		r := reading(s.Name, whole)[i%4]
		return engine.Request{Prompt: long(600 + i), MaxTokens: 150, Alternatives: 3, Reads: &r}
	}
	sel := []model.Selection{s}
	open := func(lim model.Limits) *engine.Engine {
		return startAs(t, model.Options{Limits: lim, Sparse: sel, Heads: heads(t)})
	}
	ample := open(model.Limits{Rows: 1024, Sequences: 1, Wanted: 1, Pages: 16, Context: 1024})
	want := make([][]engine.Token, 4)
	var err error
	for i := range want {
		if want[i], err = answer(ample, ask(i, true)); err != nil {
			t.Fatal(err)
		}
	}
	if u := ample.Usage(); u.PagesFreed > 0 {
		t.Fatalf("%d pages were freed of who keeps all", u.PagesFreed)
	}
	few := open(model.Limits{Rows: 100, Sequences: 4, Wanted: 4, Pages: 16, Context: 1024})
	check := func(how string, e *engine.Engine, i int) {
		if got, err := answer(e, ask(i, false)); err != nil || !reflect.DeepEqual(got, want[i]) {
			t.Errorf("%s, reading %d: %v, %d tokens, other than with all pages", how, i, err, len(got))
		}
	}
	for i := range want {
		check("after a hit", ample, i)
		check("in chunks", few, i)
	}
	for round := 0; round < 2 || round < 10 && few.Usage().Preempted == 0 && name != "streaming"; round++ {
		var wait sync.WaitGroup
		for i := range want {
			wait.Go(func() { check(fmt.Sprint("among others, round ", round), few, i) })
			wait.Go(func() { check(fmt.Sprint("beside itself, round ", round), few, i) })
		}
		wait.Wait()
	}
	if u := few.Usage(); u.PagesFreed == 0 || u.Preempted == 0 && name != "streaming" || u.Cached == 0 {
		t.Errorf("%d pages were freed, %d preempted, %d tokens found", u.PagesFreed, u.Preempted, u.Cached)
	}
}

// A prompt that is longer than all pages together is served where its heads read few of them, and its pages stay few while it grows.
func TestLanesServeWhatPagesDoNotHold(t *testing.T) {
	s := []model.Selection{{Name: "s2", Knobs: []float32{2}, Params: map[string]float64{"stride": 4, "dense_every": 0, "kv": 1}}}
	ask := func(whole bool) engine.Request {
		return engine.Request{Prompt: long(3000), MaxTokens: 300, Alternatives: 3, Reads: &model.Reading{Prefill: "s2", Decode: "s2", Whole: whole}}
	}
	lim := model.Limits{Rows: 256, Sequences: 2, Wanted: 2, Pages: 64, Context: 4096}
	want, err := answer(startAs(t, model.Options{Limits: lim, Sparse: s}), ask(true))
	if err != nil {
		t.Fatal(err)
	}
	lim.Pages = 25
	e := startAs(t, model.Options{Limits: lim, Sparse: s})
	if _, err := answer(e, ask(true)); !errors.Is(err, engine.ErrContext) {
		t.Errorf("3000 tokens in 25 pages of 64: %v", err)
	}
	for _, how := range []string{"alone", "after a hit"} {
		if got, err := answer(e, ask(false)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %d tokens, other than with all pages", how, err, len(got))
		}
	}
	most := 0
	for tok, err := range e.Generate(t.Context(), ask(false)) {
		if err != nil {
			t.Fatal(err)
		}
		if s := tok.Stats; s != nil && s.Sparse != nil {
			if most = max(most, s.Sparse.Held); tok.Finish != "" {
				t.Logf("%d tokens: %d pages, %d freed", s.Prompt+s.Generated, s.Sparse.Held, s.Sparse.Freed)
			}
		}
	}
	if u := e.Usage(); most > 17 || u.Cached == 0 || u.PagesUsed != 0 {
		t.Errorf("%d pages were held, %d tokens found, %d pages are left", most, u.Cached, u.PagesUsed)
	}
}

// Where no head streams duo reads everything, and where all do it reads as streaming does, to the bit; between them it does neither.
func TestDuoIsBetweenItsEnds(t *testing.T) {
	lim := model.Limits{Rows: 128, Sequences: 1, Wanted: 1, Pages: 16, Context: 1024}
	ask := func(name string, params map[string]float64) string {
		if name == "duo" {
			params["sink"] = 64
		}
		s := []model.Selection{{Name: name, Knobs: []float32{64}, Params: params}}
		if name == "full" {
			s = nil
		}
		e := startAs(t, model.Options{Limits: lim, Sparse: s, Heads: heads(t)})
		got, err := answer(e, engine.Request{Prompt: long(500), MaxTokens: 40, Alternatives: 3, Reads: &model.Reading{Prefill: name, Decode: name}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			got[i].Stats = nil
		}
		return fmt.Sprint(got)
	}
	all, stream := ask("full", nil), ask("streaming", map[string]float64{"sink": 64})
	for _, c := range []struct {
		name   string
		params map[string]float64
		want   string
	}{
		{"none streams", map[string]float64{"sparsity": 0}, all}, {"all stream", map[string]float64{"sparsity": 1}, stream},
		{"none is below", map[string]float64{"threshold": 1e-9}, ""}, {"half", map[string]float64{}, ""}, {"by threshold", map[string]float64{"threshold": 0.75}, ""},
	} {
		got := ask("duo", c.params)
		if c.want != "" && got != c.want || c.want == "" && (got == all || got == stream) {
			t.Errorf("%s: other tokens or log-probabilities", c.name)
		}
	}
}

// What a sequence gave back stays in the prefix tree, whole, for others: also for those that read everything.
func TestLanesLeavePrefixesWhole(t *testing.T) {
	s := []model.Selection{laned["every other"]}
	ask := func(r *model.Reading) engine.Request {
		return engine.Request{Prompt: long(1000), MaxTokens: 80, Alternatives: 3, Reads: r}
	}
	lim := model.Limits{Rows: 256, Sequences: 2, Wanted: 2, Pages: 40, Context: 2048}
	want, err := answer(startAs(t, model.Options{Limits: lim, Sparse: s}), ask(nil))
	if err != nil {
		t.Fatal(err)
	}
	e := startAs(t, model.Options{Limits: lim, Sparse: s})
	if _, err := answer(e, ask(&model.Reading{Decode: "s2"})); err != nil || e.Usage().PagesFreed == 0 {
		t.Fatal(err, e.Usage().PagesFreed)
	}
	got, err := answer(e, ask(nil))
	if u := e.Usage(); err != nil || !reflect.DeepEqual(got, want) || u.Cached != 960 {
		t.Errorf("%v, %d tokens, %d of the prompt found", err, len(got), u.Cached)
	}
}
