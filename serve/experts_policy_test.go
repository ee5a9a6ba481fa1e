package serve

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/moe"
)

// twoOf is a model with two layers of experts, which take two and four of eight, around one without.
func twoOf() *model.Spec {
	two, four := moe.RouterSpec{Experts: 8, K: 2}, moe.RouterSpec{Experts: 8, K: 4}
	return &model.Spec{Layers: []model.LayerSpec{{Router: &two}, {}, {Router: &four}}}
}

func TestExpertPolicyAllows(t *testing.T) {
	limited := func(text string) ExpertPolicy {
		x, err := model.ParseExperts(text)
		if err != nil {
			t.Fatal(err)
		}
		return ExpertPolicy{Limit: &x}
	}
	for _, c := range []struct {
		policy    ExpertPolicy
		ask       Experts
		field, of string // of the error; "" = it is allowed
	}{
		{ExpertPolicy{}, Experts{TopK: []int{1}, MinP: 1, Mass: 0.1, SkipBeta: 1, ReturnIDs: true}, "", ""},
		{ExpertPolicy{Closed: true}, Experts{}, "", "no request"},
		{ExpertPolicy{Secret: true}, Experts{TopK: []int{1}}, "", ""},
		{ExpertPolicy{Secret: true}, Experts{ReturnIDs: true}, "return_ids", "does not tell"},
		{limited("top_k=3"), Experts{TopK: []int{2}}, "top_k", "is 2 for layer 2, this server allows no less than 3"},
		{limited("top_k=3"), Experts{TopK: []int{2, 3}}, "", ""}, // two are all that the first takes
		{limited("top_k=3"), Experts{TopK: []int{1, 3}}, "top_k", "for layer 0, this server allows no less than 2"},
		{limited("top_k=3"), Experts{TopK: []int{0, 0}}, "", ""},
		{limited("mass=0.8"), Experts{TopK: []int{2, 4}, Mass: 0.8}, "", ""},
		{limited("mass=0.8"), Experts{TopK: []int{2, 3}}, "top_k", "no less than 4"},
		{limited("mass=0.8"), Experts{Mass: 0.79}, "mass", "is 0.79, this server allows no less than 0.8"},
		{limited("top_k=1"), Experts{Mass: 0.99}, "mass", "no less than 1"},
		{limited("top_k=1"), Experts{Mass: 1}, "", ""},
		{limited("min_p=0.1"), Experts{MinP: 0.2}, "min_p", "is 0.2, this server allows no more than 0.1"},
		{limited("min_p=0.1"), Experts{SkipBeta: 0.05}, "skip_beta", "no more than 0"},
		{limited("skip_beta=0.5,min_p=0.5"), Experts{MinP: 0.5, SkipBeta: 0.5}, "", ""},
	} {
		err := c.policy.allows(&c.ask, twoOf())
		if c.field+c.of == "" {
			if err != nil {
				t.Errorf("%+v: %v", c.ask, err)
			}
			continue
		}
		if e, ok := errors.AsType[*model.ExpertsError](err); !ok || e.Field != c.field || !strings.Contains(e.Why, c.of) {
			t.Errorf("%+v: %v, want %s %s", c.ask, err, c.field, c.of)
		}
	}
}

func TestExpertPolicyUsual(t *testing.T) {
	for _, c := range []struct {
		text string
		want *model.Experts
		says string
	}{
		{"", nil, ""},
		{"top_k=9", nil, ""},
		{"top_k=3", &model.Experts{TopK: []int{2, 3}}, ""},
		{"top_k=1,mass=0.5", &model.Experts{TopK: []int{1, 1}, Mass: 0.5}, ""},
		{"top_k=2/2", &model.Experts{TopK: []int{2, 2}}, ""},
		{"top_k=2/2/2", nil, "has 3 numbers, the model has 2 layers"},
		{"top_k=3/4", nil, "is 3 for layer 0"},
	} {
		x, err := model.ParseExperts(c.text)
		if err != nil {
			t.Fatal(err)
		}
		p := ExpertPolicy{Default: x}
		got, err := p.usual(twoOf())
		if !reflect.DeepEqual(got, c.want) || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %+v, %v", c.text, got, err)
		}
		if got, err := p.usual(&model.Spec{Layers: make([]model.LayerSpec, 2)}); got != nil || err != nil {
			t.Errorf("%q without experts: %+v, %v", c.text, got, err)
		}
	}
}

// A default is what a request that does not say gets, and nothing is told of it; one that says gets what it says, in scores of prompts too.
func TestExpertDefaults(t *testing.T) {
	opt := small()
	opt.Experts = ExpertPolicy{Default: model.Experts{TopK: []int{1}}, Limit: &model.Experts{TopK: []int{2}}}
	usual, plain := open(t, demo.Name, opt), open(t, demo.Name, small())
	ask := func(m *Model, x *Experts) (all Delta) {
		g := greedy(12)
		g.Experts, g.PromptLogprobs = x, new(0)
		for d, err := range m.Complete(t.Context(), CompletionRequest{Prompt: "Once upon a time", Generation: g}) {
			if err != nil {
				t.Fatal(err)
			}
			all.add(d)
		}
		return all
	}
	own, one := ask(plain, nil), ask(plain, &Experts{TopK: []int{1}})
	if own.Prompt[2].Logprob == one.Prompt[2].Logprob || one.Usage.Experts.Chosen != one.Usage.Experts.Rows {
		t.Fatalf("one expert a token changes nothing: %+v", one)
	}
	if got := ask(usual, nil); got.Text != one.Text || got.Usage.Experts != nil || !reflect.DeepEqual(got.Prompt, one.Prompt) {
		t.Errorf("by default %q, want %q", got.Text, one.Text)
	}
	if got := ask(usual, &Experts{}); got.Text != own.Text || got.Usage.Experts.Skipped != 0 || !reflect.DeepEqual(got.Prompt, own.Prompt) {
		t.Errorf("a request for all experts is answered %q, want %q", got.Text, own.Text)
	}
	g := greedy(1)
	g.Experts = &Experts{TopK: []int{1}}
	err := failure(usual.Complete(t.Context(), CompletionRequest{Prompt: "a", Generation: g}))
	if e, ok := errors.AsType[*RequestError](err); !ok || e.Param != "moe.top_k" || !strings.Contains(e.Why, "no less than 2") {
		t.Errorf("beyond the limit: %v", err)
	}
}
