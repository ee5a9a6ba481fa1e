package httpapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/serve"
)

// A prediction is read as OpenAI's clients send it, and the number of drafts as llama.cpp's do; what was drafted is said by OpenAI's names.
func TestDraftsOnTheWire(t *testing.T) {
	for sent, want := range map[string]string{
		`"prediction":{"type":"content","content":"a b"}`:                                                    "a b",
		`"prediction":{"type":"content","content":[{"type":"text","text":"a "},{"type":"text","text":"b"}]}`: "a b",
		`"prediction":null`:                     "",
		`"prediction":{"type":"content"}`:       "",
		`"speculative.n_max":0,"prediction":{}`: "",
	} {
		d, err := parseChat([]byte(`{` + sent + `,` + hello + `}`))
		if err != nil {
			t.Errorf("%s: %v", sent, err)
			continue
		}
		r := d.(*chatRequest)
		if r.Expected != want || len(r.Warnings) > 0 {
			t.Errorf("%s: %q, %v", sent, r.Expected, r.Warnings)
		}
		if off := r.Drafts != nil && *r.Drafts == 0; off != strings.Contains(sent, "n_max") {
			t.Errorf("%s: %v drafts", sent, r.Drafts)
		}
	}
	for sent, param := range map[string]string{
		`"prediction":"a"`: "prediction", `"prediction":{"type":"x"}`: "prediction.type", `"prediction":{"content":7}`: "prediction.content",
		`"prediction":{"content":[{"type":"image_url"}]}`: "prediction.content", `"speculative.n_max":-1`: "speculative.n_max",
		`"speculative.n_max":"3"`: "speculative.n_max", `"prediction":{"content":["a"]}`: "prediction.content",
	} {
		_, err := parseChat([]byte(`{` + sent + `,` + hello + `}`))
		if f, ok := err.(*fault); !ok || f.Param != param {
			t.Errorf("%s: %v", sent, err)
		}
	}
	b, err := json.Marshal(tally([]serve.Usage{{Completion: 9, Accepted: 4, Rejected: 1}, {Completion: 3, Accepted: 1}}, 1))
	if want := `"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":5,"rejected_prediction_tokens":1}`; err != nil || !strings.Contains(string(b), want) {
		t.Errorf("no %s in %s", want, b)
	}
	one := serve.Usage{Completion: 9, Accepted: 4, Rejected: 2, ByHead: serve.Foretold{Accepted: 3, Rejected: 1}}
	b, err = json.Marshal(tally([]serve.Usage{one, one}, 1))
	if want := `"rejected_prediction_tokens":4,"mtp_accepted_tokens":6,"mtp_rejected_tokens":2}`; err != nil || !strings.Contains(string(b), want) {
		t.Errorf("no %s in %s", want, b)
	}
	one = serve.Usage{Completion: 9, Accepted: 4, Rejected: 2, ByModel: serve.Foretold{Accepted: 3, Rejected: 1}}
	b, err = json.Marshal(tally([]serve.Usage{one, one}, 1))
	if want := `"rejected_prediction_tokens":4,"draft_model_accepted_tokens":6,"draft_model_rejected_tokens":2}`; err != nil || !strings.Contains(string(b), want) {
		t.Errorf("no %s in %s", want, b)
	}
}
