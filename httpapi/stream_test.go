package httpapi

import (
	"encoding/json"
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

var update = flag.Bool("update", false, "rewrite golden files")

// The bytes of two streams, one in each dialect, with everything that can stand in one.
func TestStreamGolden(t *testing.T) {
	h := head{ID: "id-1", Created: 1_700_000_000, Model: "m", Warnings: []string{"w"}}
	lead := []byte("\xe2\x82")
	deltas := []serve.Delta{
		{Text: "<b> \"é\"\n\u2028", Tokens: []serve.TokenLogprob{{Bytes: []byte("<b>"), Logprob: -1, Top: []serve.TokenLogprob{{Bytes: lead, Logprob: -0.5}}}}},
		{Text: "€", Finish: serve.FinishStop, Usage: &serve.Usage{Prompt: 3, Cached: 1, Completion: 2}},
	}
	for name, d := range map[string]dialect{
		"chat": &chatRequest{plan: plan{N: 1, Stream: true, Usage: true, Generation: serve.Generation{Logprobs: new(1)}}, opened: make([]bool, 1)},
		"text": &completionRequest{plan: plan{N: 1, Stream: true, Usage: true, Generation: serve.Generation{Logprobs: new(1)}}, offset: make([]int, 1), begun: make([]bool, 1)},
	} {
		w := httptest.NewRecorder()
		s := newStream(w, time.Second)
		send := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		send(s.ping())
		h.Object = d.object()
		for _, delta := range deltas {
			for _, e := range d.chunks(h, 0, delta) {
				send(s.event(e))
			}
		}
		raw, err := json.Marshal(tally([]serve.Usage{*deltas[1].Usage}, 1))
		send(err)
		send(s.event(d.last(h, raw)))
		send(s.event(badValue("messages", "<refused>").body()))
		send(s.done())
		file := filepath.Join("testdata", name+"_stream.golden")
		if *update {
			send(os.WriteFile(file, w.Body.Bytes(), 0o644))
		}
		want, err := os.ReadFile(file)
		send(err)
		if w.Body.String() != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, w.Body, want)
		}
		if got := w.Header().Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("%s: content type %q", name, got)
		}
		events(t, w.Body.String())
	}
}

type wireChunk struct {
	ID, Object string
	Created    int64
	Choices    []struct {
		Index    int
		Delta    map[string]*string
		Logprobs json.RawMessage
		Finish   *string `json:"finish_reason"`
	}
	Usage json.RawMessage
	Error *struct{ Code string }
}

// A stream says what the whole answer says, piece by piece and in order.
func TestStreamedChat(t *testing.T) {
	r := start(t, Options{})
	ask := `"model":"demo-moe","seed":5,"n":2,"temperature":1.5,"max_tokens":9,` + hello
	_, body := r.post("/v1/chat/completions", `{`+ask+`}`)
	want := parse[wireChat](t, body)
	resp, body := r.call("POST", "/chat/completions", `{"stream":true,"stream_options":{"include_usage":true},`+ask+`}`)
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	all := events(t, body)
	if all[len(all)-1] != "[DONE]" {
		t.Fatalf("ends with %s", all[len(all)-1])
	}
	first := parse[wireChunk](t, all[0])
	content, finished := []string{"", ""}, []string{"", ""}
	for i, e := range all[:len(all)-1] {
		c := parse[wireChunk](t, e)
		if c.ID != first.ID || c.Created != first.Created || c.Object != "chat.completion.chunk" {
			t.Errorf("head of %s", e)
		}
		if i == len(all)-2 {
			if u := parse[usage](t, string(c.Usage)); len(c.Choices) != 0 || u != want.Usage {
				t.Errorf("last is %s, want %+v", e, want.Usage)
			}
			continue
		}
		if string(c.Usage) != "null" || string(c.Choices[0].Logprobs) != "null" {
			t.Errorf("usage or logprobs of %s", e)
		}
		p := c.Choices[0]
		if role := p.Delta["role"]; (role != nil) != (content[p.Index] == "" && p.Finish == nil && *p.Delta["content"] == "") {
			t.Errorf("role in %s", e)
		}
		if p.Finish != nil {
			if finished[p.Index] != "" || len(p.Delta) != 0 {
				t.Errorf("finish in %s", e)
			}
			finished[p.Index] = *p.Finish
		} else {
			content[p.Index] += *p.Delta["content"]
		}
	}
	for i, c := range want.Choices {
		if content[i] != c.Message.Content || finished[i] != c.Finish {
			t.Errorf("choice %d: streamed %q (%s), whole %q (%s)", i, content[i], finished[i], c.Message.Content, c.Finish)
		}
	}
	if content[0] == content[1] {
		t.Errorf("both choices are %q", content[0])
	}
}

type wireText struct {
	ID, Object string
	Choices    []struct {
		Text     string
		Index    int
		Logprobs *textLogprobs
		Finish   *string `json:"finish_reason"`
	}
	Usage *usage
}

// Every combination of echo, log-probabilities, n and stream agrees with the others.
func TestCompletions(t *testing.T) {
	r := start(t, Options{})
	const prompt = "Once upon a time"
	var plain string
	for _, prompts := range []string{`"Once upon a time"`, `["Once upon a time","Once upon a time"]`, `[1,403,407,261,378]`, `[[1,403,407,261,378]]`} {
		for _, fields := range []string{``, `,"echo":true`, `,"logprobs":2`, `,"echo":true,"logprobs":2`, `,"n":2`, `,"echo":true,"logprobs":0,"n":2`} {
			ask := `{"temperature":0,"max_tokens":6,"prompt":` + prompts + fields
			_, body := r.post("/v1/completions", ask+`}`)
			a := parse[wireText](t, body)
			n := 1
			if strings.Contains(fields, `"n"`) {
				n = 2
			}
			if strings.HasPrefix(prompts, `["`) {
				n *= 2
			}
			if len(a.Choices) != n || a.Object != "text_completion" || !strings.HasPrefix(a.ID, "cmpl-") {
				t.Fatalf("%s: %s", ask, body)
			}
			streamed := streamedTexts(t, r, ask, n)
			for i, c := range a.Choices {
				text := c.Text
				if strings.Contains(fields, "echo") {
					text = strings.TrimPrefix(text, prompt)
					if text == c.Text {
						t.Errorf("%s: no echo in %q", ask, c.Text)
					}
				}
				if plain == "" {
					plain = text
				}
				if text != plain || *c.Finish != "length" || c.Index != i || streamed[i] != c.Text {
					t.Errorf("%s: choice %d is %q (%s), streamed %q, want %q", ask, i, text, *c.Finish, streamed[i], plain)
				}
				checkTextLogprobs(t, ask, c.Text, c.Logprobs)
			}
		}
	}
}

func streamedTexts(t *testing.T, r *rig, ask string, n int) []string {
	out := make([]string, n)
	_, body := r.post("/v1/completions", ask+`,"stream":true}`)
	for _, e := range events(t, body) {
		if e == "[DONE]" {
			continue
		}
		for _, c := range parse[wireText](t, e).Choices {
			out[c.Index] += c.Text
		}
	}
	return out
}

func checkTextLogprobs(t *testing.T, ask, text string, l *textLogprobs) {
	if (l != nil) != strings.Contains(ask, "logprobs") {
		t.Errorf("%s: logprobs %v", ask, l)
	}
	if l == nil {
		return
	}
	if got := strings.Join(l.Tokens, ""); got != text {
		t.Errorf("%s: tokens %q, text %q", ask, got, text)
	}
	for i, lp := range l.Logprobs {
		if echoed := strings.Contains(ask, "echo") && i == 0; (lp == nil) != echoed || (l.Top[i] == nil) != echoed {
			t.Errorf("%s: token %d has %v, %v", ask, i, lp, l.Top[i])
		}
	}
	if !slices.IsSorted(l.Offset) || len(l.Offset) != len(l.Tokens) {
		t.Errorf("%s: offsets %v", ask, l.Offset)
	}
}

// What lm-evaluation-harness sends: ids, echoed and scored, without a new token.
func TestScoredPrompt(t *testing.T) {
	r := start(t, Options{})
	_, body := r.post("/v1/completions", `{"prompt":[[1,403,407,261,378],[1,403]],"max_tokens":0,"echo":true,"logprobs":1,"temperature":0}`)
	a := parse[wireText](t, body)
	if len(a.Choices) != 2 || a.Usage.Prompt != 7 || a.Usage.Completion != 0 {
		t.Fatal(body)
	}
	for i, n := range []int{5, 2} {
		if l := a.Choices[i].Logprobs; len(l.Tokens) != n || l.Logprobs[0] != nil || *l.Logprobs[n-1] > 0 {
			t.Errorf("choice %d: %+v", i, l)
		}
	}
}
