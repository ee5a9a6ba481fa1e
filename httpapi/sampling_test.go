package httpapi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestSamplingFields sees that what a client asks for about the choice of tokens reaches the model, by what it does to an answer.
func TestSamplingFields(t *testing.T) {
	r := start(t, Options{})
	type answer struct {
		Choices []struct {
			Text     string
			Finish   string `json:"finish_reason"`
			Logprobs struct{ Tokens []string }
		}
		Usage usage
	}
	ask := func(fields string) answer {
		t.Helper()
		status, body := r.post("/v1/completions",
			`{"model":"demo-moe","temperature":0,"max_tokens":40,"logprobs":0,"prompt":"Once upon a time",`+fields+`}`)
		if status != 200 || strings.Contains(body, `"warnings"`) {
			t.Fatalf("%s: %d %s", fields, status, body)
		}
		return parse[answer](t, body)
	}
	plain := ask(`"seed":1`)
	first := plain.Choices[0].Logprobs.Tokens[0]
	distinct := func(a answer) int {
		tokens := slices.Clone(a.Choices[0].Logprobs.Tokens)
		slices.Sort(tokens)
		return len(slices.Compact(tokens))
	}
	for _, fields := range []string{`"presence_penalty":2`, `"frequency_penalty":2`, `"repetition_penalty":10`, `"repeat_penalty":10`} {
		if a := ask(fields); distinct(a) <= distinct(plain) {
			t.Errorf("%s: %d distinct tokens of 40, %d without", fields, distinct(a), distinct(plain))
		}
	}
	for _, fields := range []string{
		fmt.Sprintf(`"logit_bias":{%q:-100}`, first), fmt.Sprintf(`"logit_bias":[[%q,false]]`, first), `"typical_p":0.01,"temperature":1,"seed":3`,
	} {
		if a := ask(fields); a.Choices[0].Text == plain.Choices[0].Text {
			t.Errorf("%s: changes nothing", fields)
		}
	}
	// A text as bias ends the answer at once when it is a stop, and not before min_tokens.
	stop := fmt.Sprintf(`"stop_token_ids":[%d]`, idOf(t, r, first))
	if a := ask(stop); a.Usage.Completion != 1 || a.Choices[0].Finish != "stop" {
		t.Errorf("stop id: %+v", a)
	}
	if a := ask(stop + `,"min_tokens":9`); a.Usage.Completion < 10 {
		t.Errorf("min_tokens: %+v", a.Usage)
	}
	if status, body := r.post("/v1/completions", `{"model":"demo-moe","logit_bias":{"1000000":1}}`); status != 400 || !strings.Contains(body, "logit_bias") {
		t.Errorf("unknown id: %d %s", status, body)
	}
	r.healthy()
}

// idOf finds a token's id through the log-probabilities of a prompt that it is.
func idOf(t *testing.T, r *rig, token string) int {
	t.Helper()
	_, body := r.post("/v1/completions", fmt.Sprintf(`{"model":"demo-moe","max_tokens":0,"prompt_logprobs":0,"prompt":%q}`, "Once upon a time"+token))
	a := parse[struct {
		Choices []struct {
			Prompt []map[string]promptToken `json:"prompt_logprobs"`
		}
	}](t, body)
	all := a.Choices[0].Prompt
	for id, p := range all[len(all)-1] {
		if p.Text == token && p.Rank == 1 && p.Logprob <= 0 {
			var n int
			fmt.Sscan(id, &n)
			return n
		}
	}
	t.Fatalf("%q is not the last token of %s", token, body)
	return 0
}

func TestPromptLogprobs(t *testing.T) {
	r := start(t, Options{})
	for _, fields := range []string{`"prompt_logprobs":2`, `"prompt_logprobs":2,"n":3`, `"prompt_logprobs":2,"logprobs":2,"echo":true`} {
		status, body := r.post("/v1/completions", `{"model":"demo-moe","max_tokens":3,"prompt":"Once upon a time",`+fields+`}`)
		a := parse[struct {
			Choices []struct {
				Prompt []map[string]promptToken `json:"prompt_logprobs"`
			}
		}](t, body)
		if status != 200 || len(a.Choices) == 0 {
			t.Fatalf("%s: %d %s", fields, status, body)
		}
		for _, c := range a.Choices {
			if len(c.Prompt) < 3 || c.Prompt[0] != nil {
				t.Fatalf("%s: %s", fields, body)
			}
			for _, at := range c.Prompt[1:] {
				if len(at) < 2 || len(at) > 3 {
					t.Errorf("%s: %v", fields, at)
				}
			}
		}
	}
	status, body := r.post("/v1/chat/completions", `{"model":"demo-moe","max_tokens":3,"prompt_logprobs":0,`+hello+`}`)
	if status != 200 || !strings.Contains(body, `"prompt_logprobs":[null,{`) {
		t.Errorf("%d %s", status, body)
	}
	if _, body := r.post("/v1/chat/completions", `{"model":"demo-moe","max_tokens":3,`+hello+`}`); strings.Contains(body, "prompt_logprobs") {
		t.Errorf("not asked for: %s", body)
	}
}
