package httpapi

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/winnow-llm/winnow/serve"
)

// wireLine is a line of an answer of ollama's API as its clients read it.
type wireLine struct {
	Model   string
	Created time.Time `json:"created_at"`
	Message *struct{ Role, Content, Thinking string }

	Response   *string
	Done       bool
	DoneReason string  `json:"done_reason"`
	Context    []int32 `json:"context"`
	Total      int64   `json:"total_duration"`
	Load       int64   `json:"load_duration"`
	Prompt     int     `json:"prompt_eval_count"`
	PromptTime int64   `json:"prompt_eval_duration"`
	Count      int     `json:"eval_count"`
	Time       int64   `json:"eval_duration"`
	Logprobs   []struct {
		Token   string
		Logprob float32
		Top     []struct {
			Token   string
			Logprob float32
		} `json:"top_logprobs"`
	}
	Warnings []string
	Error    string
}

// lines splits a stream of lines and checks its frame: whole runes, one model, done on the last line only.
func lines(t *testing.T, body string) (out []wireLine) {
	t.Helper()
	for l := range strings.Lines(body) {
		if !strings.HasSuffix(l, "\n") || !utf8.ValidString(l) {
			t.Fatalf("line %q", l)
		}
		out = append(out, parse[wireLine](t, l))
	}
	for i, l := range out {
		if l.Done != (i == len(out)-1) || l.Model == "" || l.Created.IsZero() || l.Done == (l.DoneReason == "") {
			t.Errorf("line %d of %d: %+v", i, len(out), l)
		}
	}
	return out
}

// said is the text of all lines.
func said(all []wireLine) (s string) {
	for _, l := range all {
		if l.Message != nil {
			s += l.Message.Content
		}
		if l.Response != nil {
			s += *l.Response
		}
	}
	return s
}

const chatBody = `"model":"demo-moe","messages":[{"role":"user","content":"Tell me a story about a cat."}]`

func TestOllamaAnswers(t *testing.T) {
	r := start(t, Options{})
	for name, c := range map[string]struct{ path, body string }{
		"chat":     {"/api/chat", chatBody},
		"generate": {"/api/generate", `"model":"demo-moe","prompt":"Tell me a story about a cat."`},
		"raw":      {"/api/generate", `"model":"demo-moe","raw":true,"prompt":"Once upon a time"`},
		"base":     {"/api/generate", `"model":"stories/260k","prompt":"Once upon a time"`},
	} {
		for _, temperature := range []string{"0", "1.9"} {
			body := c.body + `,"logprobs":true,"top_logprobs":2,"options":{"seed":7,"num_predict":24,"temperature":` + temperature + `}`
			status, one := r.post(c.path, `{"stream":false,`+body+`}`)
			resp, many := r.call("POST", c.path, `{`+body+`}`)
			if status != 200 || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
				t.Fatalf("%s: %d %s; %d %s %s", name, status, one, resp.StatusCode, resp.Header.Get("Content-Type"), many)
			}
			whole, streamed := lines(t, one), lines(t, many)
			last := streamed[len(streamed)-1]
			if len(whole) != 1 || len(streamed) < 3 || said(whole) != said(streamed) || said(whole) == "" {
				t.Errorf("%s: %q at once, %q in %d lines", name, said(whole), said(streamed), len(streamed))
			}
			if (whole[0].Message != nil) != (name == "chat") || (whole[0].Response == nil) != (name == "chat") {
				t.Errorf("%s: %s", name, one)
			}
			for _, l := range []wireLine{whole[0], last} {
				if l.DoneReason == "length" && l.Count != 24 || l.Count > 24 || l.Prompt < 3 || l.Total <= 0 || l.Load <= 0 || l.PromptTime <= 0 || l.Time <= 0 {
					t.Errorf("%s: counts of %+v", name, l)
				}
			}
			joined := ""
			for _, l := range streamed[:len(streamed)-1] {
				if said([]wireLine{l}) == "" || len(l.Logprobs) == 0 {
					t.Errorf("%s: line %+v", name, l)
				}
				for _, p := range l.Logprobs {
					joined += p.Token
					if len(p.Top) != 2 || p.Logprob > 0 || p.Top[0].Logprob < p.Top[1].Logprob {
						t.Errorf("%s: %+v", name, p)
					}
				}
			}
			if !strings.Contains(joined, "\ufffd") && joined != said(whole) {
				t.Errorf("%s: tokens %q, text %q", name, joined, said(whole))
			}
		}
	}
	r.healthy()
}

// What an answer gives as its context is what the next prompt goes on from.
func TestOllamaContext(t *testing.T) {
	r := start(t, Options{})
	_, body := r.post("/api/generate", `{"model":"demo-moe","stream":false,"prompt":"Tell me a story.","options":{"num_predict":6,"temperature":0}}`)
	one := lines(t, body)[0]
	if len(one.Context) == 0 || len(one.Context) != one.Prompt+one.Count {
		t.Errorf("%d ids, %d and %d tokens", len(one.Context), one.Prompt, one.Count)
	}
	ids := strings.Join(strings.Fields(fmt.Sprint(one.Context)), ",")
	_, body = r.post("/api/generate", `{"model":"demo-moe","stream":false,"prompt":"And then?","context":`+ids+`,"options":{"num_predict":2}}`)
	if two := lines(t, body)[0]; two.Prompt <= len(one.Context) || len(two.Context) != two.Prompt+two.Count {
		t.Errorf("%+v after %+v", two, one)
	}
	status, body := r.post("/api/generate", `{"model":"demo-moe","prompt":"x","context":[2000000000]}`)
	if status != 400 || !strings.Contains(body, "context: id 2000000000") {
		t.Errorf("%d %s", status, body)
	}
}

func TestOllamaMetrics(t *testing.T) {
	r := start(t, Options{})
	r.post("/api/chat", `{`+chatBody+`,"options":{"num_predict":3}}`)
	r.post("/api/generate", `{"model":"none","prompt":"x"}`)
	r.post("/api/embed", `{"model":"demo-moe","input":"x"}`)
	_, page := r.call("GET", "/metrics", "")
	for _, want := range []string{
		`winnow_requests_total{model="demo-moe",operation="chat",status="ok"} 1`, `winnow_tokens_total{kind="completion",model="demo-moe"} 3`,
		`winnow_requests_total{model="",operation="text_completion",status="model_not_found"} 1`,
		`winnow_requests_total{model="demo-moe",operation="embeddings",status="ok"} 1`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestOllamaIdle(t *testing.T) {
	r := start(t, Options{})
	for _, c := range []struct{ path, body, reason string }{
		{"/api/chat", `{"model":"demo-moe"}`, "load"},
		{"/api/chat", `{"model":"demo-moe","messages":[],"keep_alive":"1h"}`, "load"},
		{"/api/chat", `{"model":"Demo-MoE:latest","messages":null,"keep_alive":0}`, "unload"},
		{"/api/generate", `{"model":"demo-moe"}`, "load"},
		{"/api/generate", `{"model":"demo-moe","prompt":"","keep_alive":-1}`, "load"},
		{"/api/generate", `{"model":"demo-moe","prompt":"","keep_alive":"0s"}`, "unload"},
	} {
		status, body := r.post(c.path, c.body)
		if l := lines(t, body); status != 200 || len(l) != 1 || l[0].DoneReason != c.reason || said(l) != "" || (l[0].Load > 0) != (c.reason == "load") {
			t.Errorf("%s %s: %d %s", c.path, c.body, status, body)
		}
	}
	for _, path := range []string{"/api/chat", "/api/generate"} {
		for _, keep := range []string{"", `,"keep_alive":0`} {
			if status, body := r.post(path, `{"model":"none"`+keep+`}`); status != 404 || body != "{\"error\":\"model 'none' not found\"}\n" {
				t.Errorf("%s%s: %d %s", path, keep, status, body)
			}
		}
	}
}

func TestOllamaWarnings(t *testing.T) {
	r := start(t, Options{})
	for options, want := range map[string]string{
		`{"num_batch":8}`: "options.num_batch", `{"use_mmap":true}`: "options.use_mmap", `{"num_ctx":100000}`: "512", `{"foo":1}`: `"foo"`,
		`{},"shift":true`: "shift", `{},"bar":{}`: `"bar"`, `{},"top_logprobs":1`: "top_logprobs",
		`{"num_batch":null},"shift":false,"truncate":true,"format":"","logprobs":null,"keep_alive":null`: "", `{},"format":null,"tools":[],"think":null`: "",
	} {
		_, body := r.post("/api/chat", `{`+chatBody+`,"options":`+options+`}`)
		all := lines(t, body)
		got := strings.Join(all[len(all)-1].Warnings, "\n")
		if (want == "") != (got == "") || !strings.Contains(got, want) || len(all[0].Warnings) > 0 {
			t.Errorf("%s: %q", options, got)
		}
	}
}

func TestOllamaOptions(t *testing.T) {
	r := start(t, Options{})
	ask := func(options string) wireLine {
		t.Helper()
		status, body := r.post("/api/chat", `{"stream":false,`+chatBody+`,"options":`+options+`}`)
		if status != 200 {
			t.Fatalf("%s: %d %s", options, status, body)
		}
		return lines(t, body)[0]
	}
	greedy := ask(`{"temperature":0,"num_predict":16}`)
	for _, same := range []string{`{"top_k":1,"num_predict":16}`, `{"top_p":0,"num_predict":16,"seed":1}`, `{"temperature":0,"num_predict":16.0,"num_ctx":512,"seed":-1}`} {
		if a := ask(same); a.Message.Content != greedy.Message.Content || a.Count != 16 {
			t.Errorf("%s: %+v", same, a)
		}
	}
	if a := ask(`{"num_predict":0,"temperature":0}`); a.Message.Content != "" || a.Count != 0 || a.DoneReason != "length" || a.Prompt == 0 {
		t.Errorf("no tokens: %+v", a)
	}
	word := strings.Fields(greedy.Message.Content)[2]
	if a := ask(`{"temperature":0,"num_predict":16,"stop":["` + word + `"]}`); strings.Contains(a.Message.Content, word) || a.DoneReason != "stop" {
		t.Errorf("stop at %q: %+v", word, a)
	}
	if a := ask(fmt.Sprintf(`{"temperature":0,"num_ctx":%d,"num_predict":-1}`, greedy.Prompt+5)); a.Count != 5 || a.DoneReason != "length" {
		t.Errorf("at the context's end: %+v", a)
	}
}

func TestOllamaTruncation(t *testing.T) {
	r := start(t, Options{})
	turns := `{"role":"system","content":"Be brief."}`
	for i := range 20 {
		turns += fmt.Sprintf(`,{"role":"user","content":"Question %d about cats and dogs?"},{"role":"assistant","content":"Answer %d."}`, i, i)
	}
	turns += `,{"role":"user","content":"Tell me a story."}`
	ask := func(rest string) (int, wireLine) {
		t.Helper()
		status, body := r.post("/api/chat", `{"model":"demo-moe","stream":false,"messages":[`+turns+`],"options":{"num_ctx":100,"num_predict":4}`+rest+`}`)
		return status, parse[wireLine](t, body)
	}
	status, l := ask("")
	if status != 200 || l.Prompt >= 100 || l.Prompt < 50 || len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "messages") {
		t.Errorf("%d %+v", status, l)
	}
	if status, l := ask(`,"truncate":false`); status != 400 || !strings.Contains(l.Error, "exceed the context of 100 tokens") {
		t.Errorf("%d %+v", status, l)
	}
	long := strings.Repeat("a cat and a dog ", 60)
	for path, body := range map[string]string{
		"/api/chat":     `{"model":"demo-moe","messages":[{"role":"user","content":"hello"},{"role":"user","content":"` + long + `"}],"options":{"num_ctx":100}}`,
		"/api/generate": `{"model":"demo-moe","prompt":"` + long + `","options":{"num_ctx":100}}`,
	} {
		if status, body := r.post(path, body); status != 400 || !strings.Contains(body, "exceed the context of 100 tokens") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

func TestOllamaConversation(t *testing.T) {
	r := start(t, Options{})
	status, body := r.post("/api/chat", `{"model":"demo-moe","stream":false,"options":{"num_predict":2},"messages":[
		{"role":"developer","content":"Use tools."},{"role":"User","content":"Weather?","images":[]},
		{"role":"assistant","content":null,"thinking":"hm","tool_calls":[{"id":"a","function":{"index":0,"name":"weather","arguments":{"city":"Oslo","days":2}}}]},
		{"role":"tool","tool_name":"weather","content":"Rain."},{"role":"assistant"}]}`)
	if l := parse[wireLine](t, body); status != 200 || len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "not continued") {
		t.Errorf("%d %s", status, body)
	}
}

func TestOllamaHostile(t *testing.T) {
	r := start(t, Options{})
	chat := func(rest string) [2]string { return [2]string{"/api/chat", `{` + chatBody + `,` + rest + `}`} }
	option := func(o string) [2]string { return chat(`"options":{` + o + `}`) }
	message := func(m string) [2]string { return [2]string{"/api/chat", `{"model":"demo-moe","messages":[` + m + `]}`} }
	generate := func(rest string) [2]string {
		return [2]string{"/api/generate", `{"model":"demo-moe","prompt":"a",` + rest + `}`}
	}
	for want, all := range map[string][][2]string{
		"model":               {{"/api/chat", `{}`}, {"/api/generate", `{"prompt":"x"}`}, {"/api/chat", `{"model":7}`}, {"/api/show", `{}`}, {"/api/embed", `{"input":"x"}`}},
		"JSON object":         {{"/api/chat", ``}, {"/api/chat", `[]`}, {"/api/generate", `null`}, {"/api/show", `"x"`}, {"/api/embed", `1`}},
		"nests":               {{"/api/chat", strings.Repeat(`{"a":`, 100_000)}},
		"messages:":           {chat(`"messages":"x"`), chat(`"messages":{}`)},
		"messages[0]: ":       {message(`123`), message(`null`), message(`"x"`)},
		"messages[0].role":    {message(`{}`), message(`{"role":"narrator","content":"x"}`), message(`{"role":1}`)},
		"messages[0].content": {message(`{"role":"user","content":123}`), message(`{"role":"user","content":[{"type":"text"}]}`)},
		"messages[0].images":  {message(`{"role":"user","content":"x","images":["aGk="]}`), message(`{"role":"user","images":1}`)},
		"messages[0].tool_calls": {message(`{"role":"user","tool_calls":[{}]}`), message(`{"role":"assistant","tool_calls":[{"function":{"name":"x","arguments":"{}"}}]}`),
			message(`{"role":"assistant","tool_calls":[1]}`), message(`{"role":"assistant","tool_calls":[{"function":{"arguments":{}}}]}`)},
		"tools":                     {chat(`"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]`), chat(`"tools":1`)},
		"images":                    {generate(`"images":["aGk="]`)},
		"format":                    {chat(`"format":"json"`), generate(`"format":{"type":"object"}`), chat(`"format":1`)},
		"think":                     {chat(`"think":"banana"`), chat(`"think":1`), generate(`"think":""`)},
		"stream":                    {chat(`"stream":"yes"`)},
		"raw":                       {generate(`"raw":true,"system":"x"`), generate(`"raw":true,"template":"x"`), generate(`"raw":true,"context":[1]`), generate(`"raw":true,"suffix":"x"`)},
		"context[1]":                {generate(`"context":[1,-1]`), generate(`"context":[1,"x"]`), generate(`"context":[1,1e30]`)},
		"keep_alive":                {chat(`"keep_alive":"banana"`), chat(`"keep_alive":true`), chat(`"keep_alive":[]`), chat(`"keep_alive":1e999`)},
		"top_logprobs":              {chat(`"logprobs":true,"top_logprobs":21`), chat(`"top_logprobs":-1`)},
		"options:":                  {chat(`"options":[]`), chat(`"options":"x"`)},
		"options.temperature":       {option(`"temperature":-1`), option(`"temperature":"hot"`), option(`"temperature":1e999`)},
		"options.top_p":             {option(`"top_p":2`), option(`"top_p":true`)},
		"options.top_k":             {option(`"top_k":1.5`), option(`"top_k":"x"`), option(`"top_k":1e30`)},
		"options.min_p":             {option(`"min_p":-0.1`)},
		"options.typical_p":         {option(`"typical_p":3`)},
		"options.num_ctx":           {option(`"num_ctx":-1`), option(`"num_ctx":1e18`), option(`"num_ctx":"4k"`)},
		"options.num_predict":       {option(`"num_predict":1e18`), option(`"num_predict":"x"`)},
		"options.seed":              {option(`"seed":1e30`), option(`"seed":0.5`)},
		"options.repeat_last_n":     {option(`"repeat_last_n":-2`)},
		"options.repeat_penalty":    {option(`"repeat_penalty":-1`)},
		"options.presence_penalty":  {option(`"presence_penalty":3`)},
		"options.frequency_penalty": {option(`"frequency_penalty":-3`)},
		"options.stop":              {option(`"stop":1`), option(`"stop":[1]`), option(`"stop":[""]`), option(`"stop":["` + strings.Repeat("x", 5000) + `"]`), option(`"stop":[` + strings.Repeat(`"a",`, 64) + `"a"]`)},
		"options.moe:":              {option(`"moe":1`)},
		"options.moe.top_k":         {option(`"moe":{"top_k":0}`), option(`"moe":{"top_k":1000}`), option(`"moe":{"top_k":[]}`)},
		"options.moe.mass":          {option(`"moe":{"mass":2}`)},
		"options.moe.\"topk\"":      {option(`"moe":{"topk":2}`)},
		"options.num_gpu":           {option(`"num_gpu":"all"`)},
		"input":                     {{"/api/embed", `{"model":"demo-moe","input":1}`}, {"/api/embed", `{"model":"demo-moe","input":["a",1]}`}, {"/api/embed", `{"model":"demo-moe","input":["a",""]}`}},
		"dimensions":                {{"/api/embed", `{"model":"demo-moe","input":"x","dimensions":-1}`}, {"/api/embed", `{"model":"demo-moe","input":"x","dimensions":100000}`}},
	} {
		for _, c := range all {
			status, body := r.post(c[0], c[1])
			if e := parse[struct{ Error string }](t, body).Error; status != 400 || !strings.Contains(e, want) || len(body) > 1000 {
				t.Errorf("%s: %s %.200s: %d %.300s", want, c[0], c[1], status, body)
			}
		}
	}
	r.healthy()
}

// What every route does before its own code runs is told in ollama's words too.
func TestOllamaRefusals(t *testing.T) {
	_, line := made(t, "ann")
	keys, _ := keysOf(t, line)
	r := start(t, Options{Keys: keys})
	for _, c := range []struct {
		method, path string
		header       []string
		status       int
	}{
		{"GET", "/api/tags", nil, 401}, {"GET", "/api/version", nil, 401}, {"GET", "/", nil, 401}, {"POST", "/api/chat", nil, 401},
		{"HEAD", "/api/blobs/sha256:x", nil, 401}, {"DELETE", "/api/delete", nil, 401}, {"GET", "/api/ps", []string{"Host", "evil.example"}, 403},
		{"POST", "/api/pull", []string{"Origin", "https://evil.example"}, 403},
	} {
		resp, body := r.call(c.method, c.path, "", c.header...)
		if resp.StatusCode != c.status || c.method != "HEAD" && c.path != "/" && !strings.HasPrefix(body, `{"error":"`) {
			t.Errorf("%s %s: %d %s", c.method, c.path, resp.StatusCode, body)
		}
	}
}

func TestOllamaRoot(t *testing.T) {
	r := start(t, Options{Version: "1.2.3"})
	if resp, body := r.call("GET", "/", ""); resp.StatusCode != 200 || body != "Ollama is running" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := r.call("GET", "/api/version", ""); resp.StatusCode != 200 || body != "{\"version\":\"1.2.3\"}\n" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := r.call("GET", "/api/none", ""); resp.StatusCode != 404 || body != "{\"error\":\"no such route\"}\n" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	// curl says of any body that it is a form.
	resp, body := r.call("POST", "/api/generate", `{"model":"demo-moe"}`, "Content-Type", "application/x-www-form-urlencoded")
	if resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, _ := r.call("POST", "/api/generate", `{"model":"demo-moe"}`, "Content-Type", "text/plain"); resp.StatusCode != 415 {
		t.Errorf("%d", resp.StatusCode)
	}
}

// A prompt for a model whose template cannot be used goes on as it is, and the answer says so; one without any says nothing.
func TestOllamaTemplateThatCannotBeUsed(t *testing.T) {
	all := sources(t)
	spoilt := all[0]
	spoilt.Name, spoilt.Weights, spoilt.Modelfile = "spoilt", spoilt.Name, serve.Modelfile{Template: "{{ range 10 }}{{ end }}{{ .Prompt }}"}
	r := startPool(t, Options{}, serve.PoolOptions{Models: serve.Sources(append(all, spoilt))})
	for name, warned := range map[string]bool{"spoilt": true, plainModel: false} {
		status, body := r.post("/api/generate", `{"model":"`+name+`","prompt":"Once","stream":false,"options":{"num_predict":1}}`)
		if status != 200 || strings.Contains(body, "a loop over a number: the prompt goes on as it is") != warned || strings.Contains(body, "warnings") != warned {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}
