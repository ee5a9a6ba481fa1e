package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/configs"
)

// reads is a prompt of some pages, and what a server of the demo says to it: the answer's text, or the body of a refusal.
func reads(t *testing.T, url, sparse string) (int, string) {
	t.Helper()
	body := `{"model":"demo","prompt":"` + strings.Repeat("Tell me of the sea and of the ships. ", 20) + `","max_tokens":12,"temperature":0` + sparse + `}`
	resp, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Choices []struct{ Text string } }
	if err := json.Unmarshal(raw, &answer); err != nil || len(answer.Choices) != 1 {
		return resp.StatusCode, string(raw)
	}
	return resp.StatusCode, answer.Choices[0].Text
}

func TestServeSparse(t *testing.T) {
	alone(t)
	url, stop := serving(t, "--sparse", "prefill=streaming,decode=streaming,threshold=0,streaming.sink=0", "demo")
	_, plain := reads(t, url, "") // the prompt is shorter than sparse prompts are
	for body, c := range map[string]struct {
		status int
		says   string
	}{
		`{"prefill":"full","decode":"full"}`: {200, plain},
		`{"prefill":"anchor"}`:               {400, `"param":"sparse.prefill"`},
		`{"decode":"none"}`:                  {400, `this model is served with [\"full\" \"streaming\"]`},
		`{"budget":0}`:                       {400, "sparse.budget"},
		`{"budget":64}`:                      {400, "needs a decode that has one"},
		`{"recall":1.5}`:                     {400, "sparse.recall"},
		`{"threshold":-5}`:                   {400, "sparse.threshold"},
		`{"keys":1}`:                         {400, "there are prefill, decode"},
	} {
		if status, text := reads(t, url, `,"sparse":`+body); status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %q, want %d %q", body, status, text, c.status, c.says)
		}
	}
	if status, text := reads(t, url, `,"sparse":{"prefill":"streaming"}`); status != 200 || text == plain {
		t.Errorf("a page of keys: %d %q, as with all", status, text)
	}
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if raw, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(raw), `winnow_sparse_keys_read_total{`) {
		t.Errorf("no metric of keys: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ flags, body, param string }{
		{"--sparse-requests=false", `{"prefill":"full"}`, `"param":"sparse"`},
		{"--sparse-limit=budget=128,recall=0.9", `{"recall":0.5}`, `"param":"sparse.recall"`},
	} {
		url, stop := serving(t, c.flags, "demo")
		if status, text := reads(t, url, `,"sparse":`+c.body); status != 400 || !strings.Contains(text, c.param) {
			t.Errorf("%s: %d %s", c.flags, status, text)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestSparsePolicy(t *testing.T) {
	for _, c := range []struct{ def, limit, says string }{
		{"", "", ""},
		{"prefill=streaming", "budget=64,recall=0.5", ""},
		{"prefill=x", "", `sparse: prefill is "x"`},
		{"", "threshold=1", `sparse_limit: "threshold" is unknown`},
	} {
		p, err := sparsePolicy(&configs.Config{Sparse: c.def, SparseLimit: c.limit})
		if c.says == "" && (err != nil || !p.Closed || (p.Limit != nil) != (c.limit != "")) {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
		if c.says != "" && (!errors.Is(err, configs.ErrConfig) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Verbs that run a model by itself read as --sparse says.
func TestSparseOfVerbs(t *testing.T) {
	alone(t)
	const narrow = "prefill=streaming,threshold=0,streaming.sink=0,prefill_from=0"
	if err := os.WriteFile("text", []byte(strings.Repeat("The sea was calm, and the ships lay in the harbour. ", 60)), 0o600); err != nil {
		t.Fatal(err)
	}
	measured := func(flags ...string) (p perplexity) {
		out := must(t, "", append([]string{"eval", "demo", "--perplexity", "text", "--ctx", "256", "--json", "--log", "warn"}, flags...)...)
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		return p
	}
	all, few := measured(), measured("--sparse", narrow)
	if few.Sparse != narrow || !(few.Nats > all.Nats) {
		t.Errorf("%v nats with all keys, %v with a page of them", all.Nats, few.Nats)
	}
	if own := measured("--sparse", "prefill=streaming,prefill_from=0,threshold=256"); own.Nats != all.Nats {
		t.Errorf("%v nats with all keys, %v with a window that has all", all.Nats, own.Nats)
	}
	var tests []benchResult
	out := must(t, "", "bench", "demo", "-p", "300", "-n", "0", "-r", "1", "--json", "--sparse", narrow, "--log", "warn")
	if err := json.Unmarshal([]byte(out), &tests); err != nil || len(tests) != 1 || tests[0].Sparse != narrow {
		t.Errorf("%s: %v", out, err)
	}
}
