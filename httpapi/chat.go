package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/serve"
)

// chatRequest is a request to /v1/chat/completions.
type chatRequest struct {
	plan
	ask    serve.ChatRequest // without its Generation, which each choice has its own of
	opened []bool            // choices whose first chunk was made
}

// parseChat decodes and checks a body: what it lets pass can only fail for the model's sake. The error is a *fault.
func parseChat(body []byte) (dialect, error) {
	o, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	r := &chatRequest{plan: readPlan(o), ask: serve.ChatRequest{Messages: readMessages(o), Reasoning: true}}
	most := o.integer("max_completion_tokens", 0, 1<<31-1)
	if old := o.integer("max_tokens", 0, 1<<31-1); most == nil {
		most = old
	}
	if most != nil {
		r.MaxTokens = int(*most) // 0 is as good as absent: an answer of no tokens is none
	}
	top := o.integer("top_logprobs", 0, serve.MostAlternatives)
	if o.flag("logprobs") {
		r.Logprobs = new(0)
		if top != nil {
			r.Logprobs = new(int(*top))
		}
	} else if top != nil {
		o.bad("top_logprobs", "needs logprobs to be true")
	}
	r.readArguments(o)
	if string(o.fields["tool_choice"]) == `"none"` {
		o.raw("tools") // the model may not call them, so they change nothing
	}
	r.Warnings = o.finish()
	r.opened = make([]bool, r.N)
	return r, o.err()
}

// efforts are the values of reasoning_effort.
var efforts = []string{"none", "minimal", "low", "medium", "high", "xhigh", "max"}

// readArguments reads what clients hand to a model's template: chat_template_kwargs, and the two of them that have names of their own.
func (r *chatRequest) readArguments(o *object) {
	if effort := o.text("reasoning_effort"); effort != nil {
		if !slices.Contains(efforts, *effort) {
			o.bad("reasoning_effort", "must be one of %s", strings.Join(efforts, ", "))
		}
		if r.ask.Think = (&serve.Think{On: *effort != "none"}); r.ask.Think.On {
			r.ask.Think.Level = *effort
		}
	}
	if on := o.flag("enable_thinking"); o.raw("enable_thinking") != nil {
		r.ask.Think = &serve.Think{On: on}
	}
	for _, name := range []string{"reasoning_effort", "enable_thinking"} {
		if raw := o.raw(name); raw != nil {
			r.argue(o, name, raw)
		}
	}
	if kwargs := o.inner("chat_template_kwargs"); kwargs != nil {
		for _, name := range slices.Sorted(maps.Keys(kwargs.fields)) {
			r.argue(kwargs, name, kwargs.fields[name])
			if on := string(kwargs.fields[name]); r.ask.Think == nil && name == "enable_thinking" && (on == "true" || on == "false") {
				r.ask.Think = &serve.Think{On: on == "true"} // templates that know no such variable are told in their own way
			}
		}
	}
}

// argue adds a variable of the template.
func (r *chatRequest) argue(o *object, name string, raw json.RawMessage) {
	arg, err := serve.Argument(name, raw)
	if err != nil {
		o.bad(fmt.Sprintf("%.64q", name), "cannot be read: %v", err)
	}
	r.ask.TemplateArgs = append(r.ask.TemplateArgs, arg)
}

func (r *chatRequest) shared() *plan { return &r.plan }

func (r *chatRequest) object() string {
	if r.Stream {
		return "chat.completion.chunk"
	}
	return "chat.completion"
}

// answers are the choices, to be run side by side.
func (r *chatRequest) answers(ctx context.Context, m *serve.Model) []iter.Seq2[serve.Delta, error] {
	out := make([]iter.Seq2[serve.Delta, error], r.N)
	for i := range out {
		ask := r.ask
		ask.Generation = r.of(i)
		out[i] = m.Chat(ctx, ask)
	}
	return out
}

// chatChoice is one answer.
type chatChoice struct {
	Index    int           `json:"index"`
	Message  chatMessage   `json:"message"`
	Logprobs *chatLogprobs `json:"logprobs"`
	Finish   string        `json:"finish_reason"`
	Experts  *choiceExpert `json:"moe,omitempty"`
}

type chatMessage struct {
	Role      string  `json:"role"`
	Content   string  `json:"content"`
	Reasoning string  `json:"reasoning_content,omitempty"` // what the model thought first, as vLLM and DeepSeek call it
	Refusal   *string `json:"refusal"`
}

// whole is the answer that is not streamed.
func (r *chatRequest) whole(h head, all []serve.Delta, u usage) any {
	choices := make([]chatChoice, len(all))
	for i, a := range all {
		choices[i] = chatChoice{Index: i, Message: chatMessage{Role: "assistant", Content: a.Text, Reasoning: a.Reasoning}, Finish: a.Finish}
		choices[i].Experts = newChoiceExpert(a.Usage)
		if r.Logprobs != nil {
			choices[i].Logprobs = newChatLogprobs(a.Tokens)
		}
	}
	return struct {
		head
		Choices []chatChoice `json:"choices"`
		Usage   usage        `json:"usage"`
		Prompt  promptTokens `json:"prompt_logprobs,omitempty"`
	}{h, choices, u, newPromptTokens(all[0].Prompt)}
}

// chatChunk is one event of a stream.
type chatChunk struct {
	head
	Choices []chatPiece `json:"choices"`
	chunkUsage
}

type chatPiece struct {
	Index    int           `json:"index"`
	Delta    chatDelta     `json:"delta"`
	Logprobs *chatLogprobs `json:"logprobs"`
	Finish   *string       `json:"finish_reason"`
	Experts  *choiceExpert `json:"moe,omitempty"` // beside Finish
}

type chatDelta struct {
	Role      string  `json:"role,omitempty"`
	Reasoning string  `json:"reasoning_content,omitempty"`
	Content   *string `json:"content,omitempty"`
}

// chunks are the events of a piece of choice i: before the first one its role, after the last one why it ended.
func (r *chatRequest) chunks(h head, i int, d serve.Delta) []any {
	var out []any
	add := func(p chatPiece) {
		p.Index = i
		c := chatChunk{head: h, Choices: []chatPiece{p}}
		if r.Usage {
			c.chunkUsage = nullUsage
		}
		out = append(out, c)
		h.Warnings = nil // said once
	}
	if !r.opened[i] {
		r.opened[i] = true
		add(chatPiece{Delta: chatDelta{Role: "assistant", Content: new("")}})
	}
	if d.Text != "" || d.Reasoning != "" || len(d.Tokens) > 0 {
		p := chatPiece{Delta: chatDelta{Reasoning: d.Reasoning}}
		if d.Text != "" || d.Reasoning == "" {
			p.Delta.Content = &d.Text
		}
		if r.Logprobs != nil {
			p.Logprobs = newChatLogprobs(d.Tokens)
		}
		add(p)
	}
	if d.Finish != "" {
		add(chatPiece{Finish: &d.Finish, Experts: newChoiceExpert(d.Usage)})
	}
	return out
}

// last is the event with the counts.
func (r *chatRequest) last(h head, u json.RawMessage) any {
	return chatChunk{head: h, Choices: []chatPiece{}, chunkUsage: chunkUsage{u}}
}
