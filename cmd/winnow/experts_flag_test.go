package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model"
)

// Every verb that runs a model takes --moe, says the same of what it cannot mean, and does what it asks.
func TestMoeFlag(t *testing.T) {
	alone(t)
	const story = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. "
	if err := os.WriteFile("text.txt", []byte(strings.Repeat(story, 4)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, verb := range [][]string{
		{"run", "demo", "x"}, {"eval", "demo", "--perplexity", "text.txt", "--ctx", "64"}, {"bench", "demo", "-p", "16", "-n", "0", "-r", "1"},
	} {
		for asked, want := range map[string]string{"top_k=0": "top_k has", "topk=1": `"topk" is unknown`, "mass=2": "mass is"} {
			_, _, err := winnow(t, "", append(verb, "--moe", asked)...)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s --moe %s: %v", verb[0], asked, err)
			}
		}
		_, _, err := winnow(t, "", append(verb, "--moe", "top_k=3")...)
		if err == nil || !strings.Contains(err.Error(), "top_k") || !strings.Contains(err.Error(), "which takes 1 to 2") {
			t.Errorf("%s: %v", verb[0], err)
		}
	}
	measure := func(args ...string) (p perplexity) {
		out := must(t, "", append([]string{"eval", "demo", "--perplexity", "text.txt", "--ctx", "64", "--chunks", "1", "--json", "--log", "warn"}, args...)...)
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	own, same, one := measure(), measure("--moe", "top_k=2"), measure("--moe", "top_k=1/1/1/1/1/1")
	if own.Experts != "" || same.Nats != own.Nats || one.Experts != "top_k=1/1/1/1/1/1" || !(one.Nats > own.Nats) {
		t.Errorf("%+v, with all that the model takes %+v, with one %+v", own, same, one)
	}
	plain := must(t, "Tell me of the sea", "run", "demo", "--max-tokens", "12", "--temperature", "0")
	if got := must(t, "Tell me of the sea", "run", "demo", "--max-tokens", "12", "--temperature", "0", "--moe", "top_k=1"); got == plain {
		t.Errorf("with one expert a token as with all: %q", got)
	}
	var tests []benchResult
	out := must(t, "", "bench", "demo", "-p", "16", "-n", "0", "-r", "1", "--json", "--moe", "top_k=1", "--log", "warn")
	if err := json.Unmarshal([]byte(out), &tests); err != nil || len(tests) != 1 || tests[0].Experts != "top_k=1" {
		t.Errorf("%s: %v", out, err)
	}
}

func TestExpertPolicy(t *testing.T) {
	for _, c := range []struct{ def, limit, says string }{
		{"", "", ""},
		{" ", " ", ""},
		{"top_k=1/2,mass=0.5", "top_k=1,mass=0.5", ""},
		{"top_k=x", "", `moe: top_k has "x"`},
		{"", "mass=7", "moe_limit: mass is"},
		{"", "top_k=1/2", "moe_limit: top_k has 2 numbers"},
	} {
		cfg := configs.Config{Moe: c.def, MoeLimit: c.limit, MoeRequests: true}
		p, err := expertPolicy(&cfg)
		if c.says == "" && (err != nil || p.Closed || !p.Secret || (p.Limit != nil) != (c.limit > " ") || p.Default.String() != strings.TrimSpace(c.def)) {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
		if c.says != "" && (!errors.Is(err, configs.ErrConfig) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%+v: %v", c, err)
		}
		if _, ok := errors.AsType[*model.ExpertsError](err); err != nil && !ok && c.limit != "top_k=1/2" {
			t.Errorf("%+v: %T", c, err)
		}
	}
}

// A server holds requests to what its operator allows, on every route, and says which field and how far.
func TestServeExpertPolicy(t *testing.T) {
	alone(t)
	post := func(url, path, body string) (int, string) {
		resp, err := http.Post(url+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(raw)
	}
	for _, c := range []struct {
		flags      []string
		moe, param string // of the refusal; "" = it is answered
		says       string
	}{
		{[]string{"--moe-limit", "top_k=2,mass=0.5"}, `{"mass":0.5}`, "", ""},
		{[]string{"--moe-limit", "top_k=2,mass=0.5"}, `{"top_k":1}`, "moe.top_k", "no less than 2"},
		{[]string{"--moe-return-ids=false"}, `{"return_ids":true}`, "moe.return_ids", "does not tell"},
		{[]string{"--moe-requests=false", "--moe", "top_k=1"}, `{}`, "moe", "no request"},
	} {
		url, stop := serving(t, append(c.flags, "demo")...)
		status, body := post(url, "/v1/completions", `{"model":"demo","prompt":"a","max_tokens":1,"moe":`+c.moe+`}`)
		if c.param == "" && status != 200 || c.param != "" && (status != 400 || !strings.Contains(body, `"param":"`+c.param+`"`) || !strings.Contains(body, c.says)) {
			t.Errorf("%v: %d %s", c.flags, status, body)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	url, stop := serving(t, "demo", "--moe-max-unique", "4") // two requests touch 3.5 of 8, three 4.6
	if status, body := ask(t, url, "demo"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !regexp.MustCompile(`(?m)^winnow_moe_crowd\{model="demo"\} [1-9]`).Match(page) {
		t.Errorf("no crowd: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
