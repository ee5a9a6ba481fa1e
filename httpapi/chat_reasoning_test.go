package httpapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/serve"
)

// Thoughts have a key of their own in messages and in events, which answers without thoughts lack; so has their count.
func TestReasoningOnTheWire(t *testing.T) {
	d, err := parseChat([]byte(`{"stream":true,` + hello + `}`))
	if err != nil {
		t.Fatal(err)
	}
	r := d.(*chatRequest)
	if !r.ask.Reasoning || r.ask.Think != nil {
		t.Errorf("%+v", r.ask)
	}
	line := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var events []string
	for _, d := range []serve.Delta{{Reasoning: "hm"}, {Reasoning: "!", Text: "Yes"}, {Text: "."}, {Finish: serve.FinishStop}} {
		for _, e := range r.chunks(head{}, 0, d) {
			_, delta, _ := strings.Cut(line(e), `"delta":`)
			delta, _, _ = strings.Cut(delta, `,"logprobs"`)
			events = append(events, delta)
		}
	}
	const want = `{"role":"assistant","content":""} {"reasoning_content":"hm"} {"reasoning_content":"!","content":"Yes"} {"content":"."} {}`
	if got := strings.Join(events, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	u := tally([]serve.Usage{{Prompt: 3, Completion: 5, Reasoning: 2}, {Prompt: 3, Completion: 4, Reasoning: 1}}, 2)
	got := line(r.whole(head{}, []serve.Delta{{Text: "Yes", Reasoning: "hm", Finish: "stop"}}, u))
	for _, want := range []string{`{"role":"assistant","content":"Yes","reasoning_content":"hm","refusal":null}`, `"completion_tokens":9`, `"completion_tokens_details":{"reasoning_tokens":3}`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	got = line(r.whole(head{}, []serve.Delta{{Text: "Yes", Finish: "stop"}}, tally([]serve.Usage{{Completion: 5}}, 1)))
	if strings.Contains(got, "reasoning") {
		t.Errorf("nothing was thought: %s", got)
	}
}

// Each way of asking for thoughts says the same to templates of both kinds.
func TestAskingForThoughts(t *testing.T) {
	for ask, want := range map[string]serve.Think{
		`"reasoning_effort":"none"`:                        {},
		`"reasoning_effort":"high"`:                        {On: true, Level: "high"},
		`"enable_thinking":false`:                          {},
		`"enable_thinking":true`:                           {On: true},
		`"chat_template_kwargs":{"enable_thinking":false}`: {},
		`"chat_template_kwargs":{"enable_thinking":true}`:  {On: true},
		`"enable_thinking":false,"reasoning_effort":"low"`: {},
	} {
		d, err := parseChat([]byte(`{` + ask + `,` + hello + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := d.(*chatRequest).ask.Think; got == nil || *got != want {
			t.Errorf("%s: %+v", ask, got)
		}
	}
	for _, ask := range []string{`"enable_thinking":null`, `"chat_template_kwargs":{"enable_thinking":1}`, `"chat_template_kwargs":{"x":true}`} {
		if d, err := parseChat([]byte(`{` + ask + `,` + hello + `}`)); err != nil || d.(*chatRequest).ask.Think != nil {
			t.Errorf("%s: %v", ask, err)
		}
	}
}
