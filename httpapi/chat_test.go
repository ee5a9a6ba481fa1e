package httpapi

import (
	"strings"
	"testing"
)

const hello = `"messages":[{"role":"user","content":"Tell me a story about a cat."}]`

type wireChat struct {
	ID, Object, Model string
	Created           int64
	Choices           []struct {
		Index   int
		Message struct {
			Role, Content string
			Refusal       *string
		}
		Logprobs *struct{ Content []tokenLogprob }
		Finish   string `json:"finish_reason"`
	}
	Usage    usage
	Warnings []string
}

func TestChat(t *testing.T) {
	r := start(t, Options{})
	status, body := r.post("/v1/chat/completions", `{"model":"demo-moe","temperature":0,"max_tokens":12,"logprobs":true,"top_logprobs":3,"foo":1,`+hello+`}`)
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	for _, key := range []string{`"refusal":null`, `"cached_tokens":`, `"logprobs":{"content":[`} {
		if !strings.Contains(body, key) {
			t.Errorf("no %s in %s", key, body)
		}
	}
	a := parse[wireChat](t, body)
	if !strings.HasPrefix(a.ID, "chatcmpl-") || a.Object != "chat.completion" || a.Model != chatModel || a.Created == 0 {
		t.Errorf("head of %s", body)
	}
	if a.Usage.Completion != 12 || a.Usage.Prompt < 10 || a.Usage.Total != a.Usage.Prompt+12 {
		t.Errorf("usage %+v", a.Usage)
	}
	if len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "foo") {
		t.Errorf("warnings %q", a.Warnings)
	}
	c := a.Choices[0]
	if c.Message.Role != "assistant" || c.Finish != "length" || len(c.Message.Content) < 10 {
		t.Errorf("choice %+v", c)
	}
	joined := ""
	for _, tok := range c.Logprobs.Content {
		joined += tok.Token
		if len(tok.Top) != 3 || tok.Logprob > 0 || tok.Top[0].Logprob < tok.Top[1].Logprob {
			t.Errorf("token %+v", tok)
		}
		if tok.Top[0].Token != tok.Token {
			t.Errorf("greedy %q beside %q", tok.Token, tok.Top[0].Token)
		}
	}
	if joined != c.Message.Content {
		t.Errorf("tokens %q, content %q", joined, c.Message.Content)
	}
	r.healthy()
}
