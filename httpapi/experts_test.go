package httpapi

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
)

// moeAnswer is what tests look at of an answer, by either route.
type moeAnswer struct {
	Choices []struct {
		Text    string
		Message struct{ Content string }
		Experts *struct{ IDs [][][]int } `json:"moe"`
	}
	Usage struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Experts    *struct {
			PerToken float64 `json:"experts_per_token"`
			Distinct int     `json:"distinct_experts"`
			Mass     float64 `json:"mass_kept"`
			Skipped  int64
		} `json:"moe"`
	}
}

// ask sends a completion of demo-moe, greedy and without a shared beginning.
func (r *rig) ask(extra string) moeAnswer {
	r.t.Helper()
	status, body := r.post("/v1/completions", `{"model":"demo-moe","prompt":"Tell me of the sea","max_tokens":6,"temperature":0`+extra+`}`)
	if status != 200 {
		r.t.Fatalf("%s: %d %s", extra, status, body)
	}
	return parse[moeAnswer](r.t, body)
}

func TestExpertsOfRequests(t *testing.T) {
	r := start(t, Options{})
	plain := r.ask("")
	if plain.Usage.Experts != nil || plain.Choices[0].Experts != nil {
		t.Errorf("nobody asked: %+v", plain)
	}
	own := r.ask(`,"moe":{}`)
	u := own.Usage.Experts
	if u == nil || own.Choices[0].Text != plain.Choices[0].Text || u.Mass != 1 || u.Skipped != 0 || u.PerToken < 2 {
		t.Fatalf("the model's own: %+v", own)
	}
	k := int(u.PerToken)
	if same := r.ask(fmt.Sprintf(`,"moe":{"top_k":%d}`, k)); same.Choices[0].Text != plain.Choices[0].Text {
		t.Errorf("top_k %d is the model's own, and answers %q instead of %q", k, same.Choices[0].Text, plain.Choices[0].Text)
	}
	one := r.ask(`,"moe":{"top_k":1,"return_ids":true}`)
	if u := one.Usage.Experts; u.PerToken != 1 || u.Skipped == 0 || u.Mass >= 1 || u.Mass <= 0 || u.Distinct < 1 {
		t.Errorf("one expert a token: %+v", u)
	}
	ids := one.Choices[0].Experts.IDs
	if tokens := one.Usage.Prompt + one.Usage.Completion; len(ids) < tokens-1 || len(ids) > tokens {
		t.Errorf("ids of %d tokens of %d", len(ids), tokens)
	}
	for _, token := range ids {
		for _, layer := range token {
			if len(layer) != 1 {
				t.Fatalf("%v", token)
			}
		}
	}
	each := strings.TrimSuffix(strings.Repeat("1,", len(ids[0])), ",")
	if got := r.ask(`,"moe":{"top_k":[` + each + `]}`); got.Choices[0].Text != one.Choices[0].Text || got.Usage.Experts.PerToken != 1 {
		t.Errorf("one for each layer: %+v", got)
	}
	if u := r.ask(`,"moe":{"mass":0.5}`).Usage.Experts; u.Mass < 0.5 || u.Mass >= 1 {
		t.Errorf("half of the mass: %+v", u)
	}
	status, body := r.post("/v1/chat/completions",
		`{"model":"demo-moe","max_tokens":3,"n":2,"stream":true,"stream_options":{"include_usage":true},"moe":{"min_p":0.5,"return_ids":true},`+hello+`}`)
	all := events(t, body)
	if last := parse[moeAnswer](t, all[len(all)-2]); status != 200 || last.Usage.Experts == nil || last.Usage.Experts.Skipped == 0 {
		t.Errorf("stream: %d %s", status, body)
	}
	if n := strings.Count(body, `"moe":{"ids":[`); n != 2 {
		t.Errorf("%d choices have ids", n)
	}
}

// ollama's routes take the same wishes among their options, and their last line says what experts did.
func TestExpertsOfOllama(t *testing.T) {
	r := start(t, Options{})
	type line struct {
		Message  struct{ Content string }
		Response string
		Done     bool
		Count    int `json:"prompt_eval_count"`
		Experts  *struct {
			PerToken float64 `json:"experts_per_token"`
			Distinct int     `json:"distinct_experts"`
			Mass     float64 `json:"mass_kept"`
			Skipped  int64
			IDs      [][][]int
		} `json:"moe"`
	}
	ask := func(moe string) line {
		status, body := r.post("/api/generate", `{"model":"demo-moe","stream":false,"prompt":"Tell me of the sea","options":{"num_predict":6,"temperature":0`+moe+`}}`)
		if status != 200 {
			t.Fatalf("%s: %d %s", moe, status, body)
		}
		return parse[line](t, body)
	}
	plain, own, one := ask(""), ask(`,"moe":{}`), ask(`,"moe":{"top_k":1,"return_ids":true}`)
	if plain.Experts != nil || own.Response != plain.Response || own.Experts == nil || own.Experts.Mass != 1 || own.Experts.IDs != nil {
		t.Errorf("%+v, and told of experts %+v", plain, own)
	}
	if x := one.Experts; x == nil || x.PerToken != 1 || x.Skipped == 0 || x.Distinct < 1 || len(x.IDs) < one.Count {
		t.Errorf("one expert a token: %+v", one)
	}
	_, body := r.post("/api/chat", `{"model":"demo-moe",`+hello+`,"options":{"num_predict":3,"moe":{"mass":0.5}}}`)
	told := 0
	for l := range strings.Lines(body) {
		if one := parse[line](t, l); (one.Experts != nil) != one.Done {
			t.Errorf("%s", l)
		} else if one.Done {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d lines say what experts did: %s", told, body)
	}
	if status, body := r.post("/api/generate", `{"model":"stories/260k","prompt":"a","options":{"moe":{}}}`); status != 400 || !strings.Contains(body, "options.moe: this model has no experts") {
		t.Errorf("%d %s", status, body)
	}
}

func TestExpertsRefused(t *testing.T) {
	r := start(t, Options{})
	for _, c := range []struct{ model, extra, param, says string }{
		{"demo-moe", `"moe":{"top_k":0}`, "moe.top_k", "from 1"},
		{"demo-moe", `"moe":{"top_k":1000}`, "moe.top_k", "which takes 1 to"},
		{"demo-moe", `"moe":{"top_k":[1]}`, "", ""}, // as good as 1
		{"demo-moe", `"moe":{"top_k":[1,1]}`, "moe.top_k", "has 2 numbers"},
		{"demo-moe", `"moe":{"top_k":[]}`, "moe.top_k", "one for each layer"},
		{"demo-moe", `"moe":{"top_k":[1,"x"]}`, "moe.top_k[1]", "from 1"},
		{"demo-moe", `"moe":{"min_p":1.5}`, "moe.min_p", "from 0 to 1"},
		{"demo-moe", `"moe":{"mass":0}`, "moe.mass", "above 0"},
		{"demo-moe", `"moe":{"skip_beta":-1}`, "moe.skip_beta", "from 0 to 1"},
		{"demo-moe", `"moe":{"topk":1}`, `moe."topk"`, "unknown"},
		{"demo-moe", `"moe":1`, "moe", "object"},
		{"demo-moe", `"moe":{"top_k":1},"prompt_logprobs":1`, "", ""},
		{"demo-moe", `"moe":{"top_k":1000},"prompt_logprobs":1`, "moe.top_k", "which takes"},
		{"demo-moe", `"moe":{"top_k":1},"echo":true,"logprobs":1`, "", ""},
		{"demo-moe", `"moe":{"top_k":1000},"echo":true,"max_tokens":0`, "moe.top_k", "which takes"},
		{plainModel, `"moe":{"top_k":1}`, "moe", "no experts"},
		{plainModel, `"moe":{}`, "moe", "no experts"},
	} {
		status, body := r.post("/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"a","max_tokens":1,%s}`, c.model, c.extra))
		if c.param == "" {
			if status != 200 {
				t.Errorf("%s: %d %s", c.extra, status, body)
			}
			continue
		}
		e := parse[struct {
			Error struct{ Message, Param string }
		}](t, body).Error
		if status != 400 || e.Param != c.param || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %d %s", c.extra, status, body)
		}
	}
	r.healthy()
}

// Metrics and the heat map count what ran, and no label is an expert.
func TestExpertsCounted(t *testing.T) {
	r := start(t, Options{})
	u := r.ask("").Usage
	rows := int64(u.Prompt + u.Completion - 1) // the last token goes through no layer
	var heat struct {
		Models []struct {
			Model  string
			Layers []struct {
				Layer   int
				Tokens  int64
				CV      float64 `json:"load_cv"`
				Experts []int64
				Drift   float64 // from a profile that saw all alike
				Recent  int64   `json:"recent_tokens"`

				Resident struct{ Slots, Hits, Misses int64 }
			}
		}
	}
	counted := func() bool { // a look at an engine at work finds the tokens of some of its steps, and of a chunk in some of its layers
		layers := 0
		for _, m := range heat.Models {
			for _, l := range m.Layers {
				if l.Tokens >= rows {
					layers++
				}
			}
		}
		return layers == 6
	}
	for range 500 { // until the engine has fallen idle
		_, body := r.call("GET", "/debug/moe", "")
		if err := json.Unmarshal([]byte(body), &heat); err != nil {
			t.Fatal(err)
		}
		if counted() {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(heat.Models) != 1 || heat.Models[0].Model != "demo-moe" || !counted() {
		t.Fatalf("%d tokens: %+v", rows, heat)
	}
	for _, l := range heat.Models[0].Layers {
		var sum int64
		for _, n := range l.Experts {
			sum += n
		}
		apart := 0.0
		for _, n := range l.Experts {
			apart += math.Abs(float64(n)/float64(sum)-1./8) / 2
		}
		if math.Abs(l.Drift-apart) > 0.01 || l.Recent > l.Tokens || l.Recent < l.Tokens-1 {
			t.Errorf("layer %d is %v from even by %d recent tokens, want %v by %d", l.Layer, l.Drift, l.Recent, apart, l.Tokens)
		}
		if x := l.Resident; x.Slots < 2 || x.Slots > 8 || x.Misses < 2 || x.Hits == 0 {
			t.Errorf("layer %d: %+v", l.Layer, x)
		}
		if l.Tokens != rows || sum < 2*l.Tokens || sum%l.Tokens != 0 || !(l.CV > 0) {
			t.Errorf("%+v", l)
		}
	}
	_, page := r.call("GET", "/metrics", "")
	for _, want := range []string{
		`winnow_moe_tokens_total\{layer="0",model="demo-moe"\} [1-9]`, `winnow_moe_expert_load_cv\{layer="0",model="demo-moe"\} 0\.`,
		`winnow_moe_unique_experts_per_step\{layer="5",model="demo-moe"\} [2-8]`, `winnow_moe_crowd\{model="demo-moe"\} 0`,
		`winnow_moe_slots\{layer="3",model="demo-moe"\} [2-8]`, `winnow_moe_cache_misses_total\{layer="3",model="demo-moe"\} [1-9]`,
		`winnow_moe_read_bytes_total\{layer="3",model="demo-moe"\} [1-9]`,
		`winnow_moe_drift_ratio\{model="demo-moe"\} 0\.`, `winnow_moe_router_nan_total\{model="demo-moe"\} 0`,
	} {
		if !regexp.MustCompile(`(?m)^` + want).MatchString(page) {
			t.Errorf("no %s", want)
		}
	}
	if regexp.MustCompile(`winnow_moe[^\n]*expert=`).MatchString(page) {
		t.Error("an expert is a label")
	}
}
