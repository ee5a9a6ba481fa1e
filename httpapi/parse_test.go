package httpapi

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

// refusal is a body that must be refused with 400, and the field that must be named.
type refusal struct{ body, param, code string }

// chatWith is a chat body with further fields.
func chatWith(fields string) string { return `{` + hello + `,` + fields + `}` }

// messages is a chat body with these messages.
func messages(list string) string { return `{"messages":` + list + `}` }

var badChats = []refusal{
	// 20: what is no object, and numbers and text at the edges of JSON
	{``, "", codeJSON}, {`[]`, "", codeJSON}, {`1`, "", codeJSON}, {`"x"`, "", codeJSON}, {`null`, "", codeJSON}, {`{`, "", codeJSON},
	{`{"a":1}x`, "", codeJSON}, {chatWith(`"temperature":NaN`), "", codeJSON}, {"{\"messages\":\"\xff\"}", "", codeJSON},
	{strings.Repeat("[", 100_000), "", codeJSON}, {`{"a":` + strings.Repeat("[", 100_000), "", codeJSON},
	{chatWith(`"metadata":` + strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)), "", codeJSON},
	{chatWith(`"temperature":1e999`), "temperature", codeValue}, {chatWith(`"seed":1e999`), "seed", codeValue},
	{chatWith(`"logit_bias":{"1":1e999}`), "logit_bias", codeValue},
	// 21: numbers out of range
	{chatWith(`"n":0`), "n", codeValue}, {chatWith(`"n":-1`), "n", codeValue}, {chatWith(`"n":1000000000`), "n", codeValue},
	{chatWith(`"n":1.5`), "n", codeValue}, {chatWith(`"n":"1"`), "n", codeValue}, {chatWith(`"n":true`), "n", codeValue},
	{chatWith(`"max_tokens":-1`), "max_tokens", codeValue}, {chatWith(`"max_tokens":9223372036854775808`), "max_tokens", codeValue},
	{chatWith(`"max_completion_tokens":-1`), "max_completion_tokens", codeValue},
	{chatWith(`"temperature":-1`), "temperature", codeValue}, {chatWith(`"temperature":3`), "temperature", codeValue},
	{chatWith(`"temperature":"hot"`), "temperature", codeValue}, {chatWith(`"top_p":0`), "top_p", codeValue},
	{chatWith(`"top_p":2`), "top_p", codeValue}, {chatWith(`"min_p":-0.1`), "min_p", codeValue}, {chatWith(`"top_k":-5`), "top_k", codeValue},
	{chatWith(`"logprobs":true,"top_logprobs":21`), "top_logprobs", codeValue}, {chatWith(`"top_logprobs":2`), "top_logprobs", codeValue},
	{chatWith(`"logprobs":2`), "logprobs", codeValue}, {chatWith(`"seed":9223372036854775808`), "seed", codeValue},
	{chatWith(`"seed":-9223372036854775809`), "seed", codeValue}, {chatWith(`"seed":0.5`), "seed", codeValue},
	// 22: stop strings and biases
	{chatWith(`"stop":["a","b","c","d","e"]`), "stop", codeValue}, {chatWith(`"stop":""`), "stop", codeValue},
	{chatWith(`"stop":[""]`), "stop", codeValue}, {chatWith(`"stop":[1]`), "stop", codeValue}, {chatWith(`"stop":[null]`), "stop[0]", codeValue},
	{chatWith(`"stop":{}`), "stop", codeValue}, {chatWith(`"stop":"` + strings.Repeat("x", 1<<20) + `"`), "stop", codeValue},
	{chatWith(`"stop_token_ids":[-1]`), "stop_token_ids[0]", codeValue}, {chatWith(`"stop_token_ids":[4294967296]`), "stop_token_ids[0]", codeValue},
	{chatWith(`"stop_token_ids":7`), "stop_token_ids", codeValue}, {chatWith(`"logit_bias":{"x":"1"}`), "logit_bias", codeValue},
	{chatWith(`"logit_bias":{"5":101}`), "logit_bias", codeValue}, {chatWith(`"logit_bias":{"":1}`), "logit_bias", codeValue},
	{chatWith(`"logit_bias":{"5":true}`), "logit_bias", codeValue}, {chatWith(`"logit_bias":5`), "logit_bias", codeValue},
	{chatWith(`"logit_bias":[5]`), "logit_bias", codeValue}, {chatWith(`"logit_bias":[[5]]`), "logit_bias[0]", codeValue},
	{chatWith(`"logit_bias":[[5,1],[5.5,1]]`), "logit_bias[1]", codeValue}, {chatWith(`"logit_bias":[[{},1]]`), "logit_bias[0]", codeValue},
	{chatWith(`"logit_bias":[["",1]]`), "logit_bias[0]", codeValue}, {chatWith(`"logit_bias":[[5,null]]`), "logit_bias[0]", codeValue},
	{chatWith(`"frequency_penalty":2.5`), "frequency_penalty", codeValue}, {chatWith(`"presence_penalty":"1"`), "presence_penalty", codeValue},
	{chatWith(`"repetition_penalty":0`), "repetition_penalty", codeValue}, {chatWith(`"repeat_penalty":-1`), "repeat_penalty", codeValue},
	{chatWith(`"typical_p":0`), "typical_p", codeValue}, {chatWith(`"min_tokens":-1`), "min_tokens", codeValue},
	{chatWith(`"priority":1.5`), "priority", codeValue}, {chatWith(`"prompt_logprobs":21`), "prompt_logprobs", codeValue},
	{chatWith(`"prompt_logprobs":1,"stream":true`), "prompt_logprobs", codeValue},
	// 23: conversations
	{`{}`, "messages", codeValue}, {messages(`null`), "messages", codeValue}, {messages(`"hi"`), "messages", codeValue},
	{messages(`[]`), "messages", codeValue}, {messages(`[123]`), "messages[0]", codeValue}, {messages(`[null]`), "messages[0]", codeValue},
	{messages(`[{}]`), "messages[0].role", codeValue}, {messages(`[{"role":123,"content":"x"}]`), "messages[0].role", codeValue},
	{messages(`[{"role":"User","content":"x"}]`), "messages[0].role", codeValue},
	{messages(`[{"role":"function","content":"x"}]`), "messages[0].role", codeValue},
	{messages(`[{"role":"user","content":123}]`), "messages[0].content", codeValue}, {messages(`[{"role":"user"}]`), "messages[0].content", codeValue},
	{messages(`[{"role":"user","content":null}]`), "messages[0].content", codeValue},
	{messages(`[{"role":"assistant","content":null}]`), "messages[0].content", codeValue},
	{messages(`[{"role":"user","content":[1]}]`), "messages[0].content[0]", codeValue},
	{messages(`[{"role":"user","content":[{"type":"text"}]}]`), "messages[0].content[0].text", codeValue},
	{messages(`[{"role":"user","content":[{"text":"x"}]}]`), "messages[0].content[0].type", codeValue},
	{messages(`[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}]}]`), "messages[0].content[0].type", codeUnsupported},
	{messages(`[{"role":"tool","content":"x"}]`), "messages[0].tool_call_id", codeValue},
	{messages(`[{"role":"user","content":"x","tool_calls":[{}]}]`), "messages[0].tool_calls", codeValue},
	{messages(`[{"role":"assistant","content":"x","tool_calls":[{}]}]`), "messages[0].tool_calls[0].function", codeValue},
	{messages(`[{"role":"assistant","content":"x"},{"role":"assistant","content":"y"}]`), "messages", codeValue},
	{messages(`[` + strings.Repeat(`{"role":"user","content":""},`, mostMessages) + `{}]`), "messages", codeValue},
	// streams
	{chatWith(`"stream":"yes"`), "stream", codeValue}, {chatWith(`"stream_options":{"include_usage":true}`), "stream_options", codeValue},
	{chatWith(`"stream":true,"stream_options":1`), "stream_options", codeValue},
	{chatWith(`"stream":true,"stream_options":{"include_usage":1}`), "stream_options.include_usage", codeValue},
	{chatWith(`"model":1`), "model", codeValue}, {chatWith(`"reasoning_effort":"much"`), "reasoning_effort", codeValue},
	{chatWith(`"chat_template_kwargs":[]`), "chat_template_kwargs", codeValue},
	// what Winnow does not do
	{chatWith(`"tools":[{"type":"function","function":{"name":"f"}}]`), "tools", codeUnsupported},
	{chatWith(`"tool_choice":"required"`), "tool_choice", codeUnsupported}, {chatWith(`"response_format":{"type":"json_object"}`), "response_format", codeUnsupported},
	{chatWith(`"modalities":["text","audio"]`), "modalities", codeUnsupported},
	{chatWith(`"store":true`), "store", codeUnsupported},
	{chatWith(`"grammar":"root ::= [a-z]+"`), "grammar", codeUnsupported}, {chatWith(`"num_ctx":-1`), "num_ctx", codeUnsupported},
	{chatWith(`"best_of":3`), "best_of", codeUnsupported},
}

var badCompletions = []refusal{
	{`{"n":17}`, "n", codeValue}, {`{"best_of":1,"n":2}`, "best_of", codeValue}, {`{"best_of":2}`, "best_of", codeUnsupported},
	{`{"best_of":21}`, "best_of", codeValue}, {`{"logprobs":6}`, "logprobs", codeValue}, {`{"logprobs":true}`, "logprobs", codeValue},
	{`{"max_tokens":-1}`, "max_tokens", codeValue}, {`{"echo":1}`, "echo", codeValue}, {`{"suffix":"x"}`, "suffix", codeUnsupported},
	{`{"prompt":[]}`, "prompt", codeValue}, {`{"prompt":[[]]}`, "prompt[0]", codeValue}, {`{"prompt":[-1]}`, "prompt[0]", codeValue},
	{`{"prompt":[1,"a"]}`, "prompt[1]", codeValue}, {`{"prompt":["a",1]}`, "prompt[1]", codeValue}, {`{"prompt":["a",null]}`, "prompt[1]", codeValue},
	{`{"prompt":[[1],"a"]}`, "prompt[1]", codeValue}, {`{"prompt":[[1],[1.5]]}`, "prompt[1][0]", codeValue}, {`{"prompt":{}}`, "prompt", codeValue},
	{`{"prompt":[null]}`, "prompt[0]", codeValue}, {`{"prompt":[1e10]}`, "prompt[0]", codeValue}, {`{"prompt":true}`, "prompt", codeValue},
	{`{"prompt":[` + strings.Repeat(`"a",`, 128) + `"a"]}`, "prompt", codeValue},
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		parse func([]byte) (dialect, error)
		list  []refusal
	}{{parseChat, badChats}, {parseCompletion, badCompletions}} {
		for _, r := range c.list {
			_, err := c.parse([]byte(r.body))
			f, ok := errors.AsType[*fault](err)
			if !ok || f.Status != 400 || f.Param != r.param || f.Code != r.code {
				t.Errorf("%.120s: %+v, want %s at %q", r.body, err, r.code, r.param)
			}
		}
	}
}

func TestAccepted(t *testing.T) {
	for _, fields := range []string{
		`"temperature":null,"n":null,"stop":null,"tools":null,"logprobs":null,"stream_options":null`,
		`"temperature":-0,"seed":-9223372036854775808,"n":2.0,"max_tokens":1e3`, `"stop":"x"`, `"stop":["a","b","c","d"]`,
		`"user":"u","metadata":{"a":"b"},"service_tier":"auto","store":false,"parallel_tool_calls":true,"prediction":{"type":"content"}`,
		`"tools":[],"tool_choice":"auto","response_format":{"type":"text"},"modalities":["text"],"logit_bias":{},"frequency_penalty":0`,
		`"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none"`, `"top_k":-1,"min_p":0.1,"ignore_eos":true`,
		`"reasoning_effort":"low","enable_thinking":false,"chat_template_kwargs":{"a":[1,{"b":null}]}`,
		`"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}`,
		`"logit_bias":{"5":-100," a":1.5,"7":false},"frequency_penalty":-2,"presence_penalty":0.5,"repetition_penalty":1.1,"typical_p":0.9`,
		`"logit_bias":[[5,-100],["a",false],["7",1]],"repeat_penalty":0,"min_tokens":3,"priority":-5,"prompt_logprobs":0`,
		`"temperature":5,"temperature":1`, `"user":"\ud800"`,
	} {
		if d, err := parseChat([]byte(chatWith(fields))); err != nil || len(d.shared().Warnings) > 0 {
			t.Errorf("%s: %v", fields, err)
		}
	}
	for _, list := range []string{
		`[{"role":"developer","content":"x"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"n"}]`,
		`[{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},
		  {"role":"tool","tool_call_id":"c","content":"3"}]`,
		`[{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":"{"}}]}]`,
		`[{"role":"assistant","refusal":"no"}]`, `[{"role":"user","content":[]}]`,
	} {
		if _, err := parseChat([]byte(messages(list))); err != nil {
			t.Errorf("%s: %v", list, err)
		}
	}
	for _, prompt := range []string{`null`, `""`, `"a"`, `[""]`, `["a","b"]`, `[1,2]`, `[[1],[2,3]]`} {
		d, err := parseCompletion([]byte(`{"prompt":` + prompt + `}`))
		if err != nil || d.shared().MaxTokens != defaultTokens {
			t.Errorf("%s: %v", prompt, err)
		}
	}
}

func TestPlan(t *testing.T) {
	d, err := parseChat([]byte(chatWith(`"max_tokens":3,"max_completion_tokens":7,"seed":9223372036854775807,"top_k":-1,"x":1,"a":2`)))
	if err != nil {
		t.Fatal(err)
	}
	p := d.shared()
	if p.MaxTokens != 7 || *p.TopK != 0 || p.TopP != nil || p.Logprobs != nil {
		t.Errorf("%+v", p)
	}
	if got := fmt.Sprint(p.Warnings); got != `[unknown field "a" is ignored unknown field "x" is ignored]` {
		t.Errorf("warnings %s", got)
	}
	if a, b := *p.of(0).Seed, *p.of(1).Seed; a != math.MaxInt64 || b != math.MinInt64 {
		t.Errorf("seeds %d, %d", a, b)
	}
}

// FuzzChatBody: no body makes the parser panic, and what it refuses it refuses as the client's fault.
func FuzzChatBody(f *testing.F) {
	for _, r := range badChats {
		if len(r.body) < 1<<10 {
			f.Add([]byte(r.body))
		}
	}
	f.Add([]byte(chatWith(`"moe":{"top_k":[1,2],"min_p":0.5,"mass":0.5,"skip_beta":1,"return_ids":true}`)))
	f.Add([]byte(chatWith(`"stream":true,"stream_options":{"include_usage":true},"logprobs":true,"top_logprobs":2,"n":2,"stop":["a"]`)))
	f.Fuzz(func(t *testing.T, body []byte) { checkParse(t, parseChat, body) })
}

func FuzzCompletionBody(f *testing.F) {
	for _, r := range badCompletions {
		f.Add([]byte(r.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) { checkParse(t, parseCompletion, body) })
}

func checkParse(t *testing.T, parse func([]byte) (dialect, error), body []byte) {
	d, err := parse(body)
	if err != nil {
		if f, ok := errors.AsType[*fault](err); !ok || f.Status != 400 || f.Message == "" {
			t.Fatalf("%q: %v", body, err)
		}
		return
	}
	p := d.shared()
	if p.N < 1 || p.N > mostChoices || p.MaxTokens < 0 || len(p.Stop) > mostStops || len(p.Warnings) > mostWarnings ||
		p.Temperature != nil && !(*p.Temperature >= 0 && *p.Temperature <= 2) || p.TopP != nil && !(*p.TopP >= 0 && *p.TopP <= 1) {
		t.Fatalf("%q: %+v", body, p)
	}
}
