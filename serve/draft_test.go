package serve

import (
	"reflect"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model/demo"
)

// An answer and its usage are what they are without drafts, whatever ends it: its length, a stop string in the middle of what was drafted, an id.
// What was drafted is said beside.
func TestDrafts(t *testing.T) {
	plain := open(t, demo.Name, small())
	opt := small()
	opt.Draft = engine.Always
	drafting := open(t, demo.Name, opt)
	if l := drafting.net.Limits(); l.Wanted != 4+engine.MostDraft {
		t.Errorf("%+v", l)
	}
	story := []Turn{{Role: "user", Content: "Tell me a story about a cat."}}
	whole := joined(t, plain.Chat(t.Context(), ChatRequest{Messages: story, Generation: greedy(60)})).Text
	all := Usage{}
	ask := func(g Generation) {
		t.Helper()
		g.Logprobs, g.ReturnIDs = new(2), true
		want := joined(t, plain.Chat(t.Context(), ChatRequest{Messages: story, Generation: g}))
		g.Expected = whole
		got := joined(t, drafting.Chat(t.Context(), ChatRequest{Messages: story, Generation: g}))
		all.Accepted, all.Rejected = all.Accepted+got.Usage.Accepted, all.Rejected+got.Usage.Rejected
		if got.Usage.Completion != want.Usage.Completion || got.Usage.Prompt != want.Usage.Prompt || got.Usage.Reasoning != want.Usage.Reasoning {
			t.Errorf("usage %+v, want %+v", got.Usage, want.Usage)
		}
		if want.Usage.Accepted+want.Usage.Rejected > 0 {
			t.Errorf("drafted where nothing is: %+v", want.Usage)
		}
		if got.Usage, want.Usage = nil, nil; !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	for n := 1; n < 25; n += 3 {
		ask(greedy(n))
	}
	words := strings.Fields(whole)
	for i := range min(7, len(words)) {
		g := greedy(60)
		g.Stop = []string{words[i]}
		ask(g)
	}
	for seed := range int64(2) {
		ask(Generation{MaxTokens: 40, Seed: &seed, Temperature: new(float32(0.8)), Repetition: new(float32(1.2)), MinP: new(float32(0.05))})
	}
	if all.Accepted < 60 || all.Rejected < 10 {
		t.Errorf("%+v", all)
	}
	before := drafting.Usage().Drafted
	g := greedy(20)
	g.Drafts, g.Expected = new(0), whole
	if got := joined(t, drafting.Chat(t.Context(), ChatRequest{Messages: story, Generation: g})); drafting.Usage().Drafted != before {
		t.Errorf("drafted though none were to be: %+v", got.Usage)
	}
}
