package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

// ollamaRequest is a request to /api/chat or /api/generate.
type ollamaRequest struct {
	plan
	ask      serve.ChatRequest // without its Generation
	keep     *time.Duration    // how long the model stays loaded behind the answer; nil = as the server has it
	chat     bool              // the answer is a message, and the oldest turns may be left out
	raw      bool              // the prompt is continued as it is
	prompt   string            // of /api/generate
	idle     bool              // nothing is asked: the model is loaded, or unloaded
	none     bool              // the answer has no tokens
	truncate bool              // turns that do not fit are left out
}

// parseOllamaChat decodes and checks a body of /api/chat. The error is a *fault.
func parseOllamaChat(body []byte) (*ollamaRequest, error) {
	o, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	r := &ollamaRequest{chat: true}
	r.readShared(o)
	r.ask.Messages = readOllamaMessages(o)
	r.idle = len(r.ask.Messages) == 0
	if tools := o.list("tools"); len(tools) > 0 {
		o.fail(unsupportedField("tools"))
	}
	if n := len(r.ask.Messages); n > 0 && r.ask.Messages[n-1].Role == "assistant" {
		r.warn("the last message is the assistant's: it is answered, not continued")
	}
	r.warn(o.strangers()...)
	return r, o.err()
}

// parseOllamaGenerate decodes and checks a body of /api/generate. The error is a *fault.
func parseOllamaGenerate(body []byte) (*ollamaRequest, error) {
	o, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	r := &ollamaRequest{}
	r.readShared(o)
	r.prompt, r.ask.Suffix = first(o.text("prompt"), ""), first(o.text("suffix"), "")
	system := first(o.text("system"), "")
	r.ask.Template = first(o.text("template"), "")
	if raw := o.raw("context"); raw != nil {
		r.ask.Before = o.ids("context", raw)
	}
	r.raw = o.flag("raw")
	if r.raw && (r.ask.Template != "" || system != "" || len(r.ask.Before) > 0 || r.ask.Suffix != "") {
		o.bad("raw", "does not go with template, system, context or suffix: the prompt is taken as it is")
	}
	refuseImages(o)
	r.idle = r.prompt == ""
	if system != "" {
		r.ask.Messages = append(r.ask.Messages, serve.Turn{Role: "system", Content: system})
	}
	r.ask.Messages = append(r.ask.Messages, serve.Turn{Role: "user", Content: r.prompt})
	r.ReturnIDs = !r.raw
	r.warn(o.strangers()...)
	return r, o.err()
}

// warn notes what the client should know of its request, so far as there is room.
func (r *ollamaRequest) warn(what ...string) {
	r.Warnings = append(r.Warnings, what...)
	r.Warnings = r.Warnings[:min(len(r.Warnings), mostWarnings)]
}

// readShared reads the fields that both routes have.
func (r *ollamaRequest) readShared(o *object) {
	r.N, r.Model, r.Stream = 1, o.modelName(), o.flagOr("stream", true)
	r.keep = o.lifetime("keep_alive")
	r.truncate = o.flagOr("truncate", true)
	if o.flag("shift") {
		r.warn("shift is not done: an answer that reaches the context's end is ended by it, as done_reason says")
	}
	if format := o.raw("format"); format != nil && string(format) != `""` {
		o.fail(&fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeUnsupported, Param: "format",
			Message: "structured output is not there yet"})
	}
	r.ask.Think, r.ask.Reasoning = readThink(o), true
	top := o.integer("top_logprobs", 0, serve.MostAlternatives)
	if o.flag("logprobs") {
		r.Logprobs = new(int(first(top, 0)))
	} else if first(top, 0) > 0 {
		r.warn("top_logprobs is ignored: logprobs is not true")
	}
	r.Otherwise = ollamaDefaults
	if options := o.inner("options"); options != nil {
		none, warnings := readOptions(options, &r.Generation)
		r.none = none
		r.warn(warnings...)
	}
	if r.none {
		r.MaxTokens = 1 // which nobody sees
	}
}

// refuseImages refuses pictures, which no model here can see. An empty list is none.
func refuseImages(o *object) {
	if images := o.list("images"); len(images) > 0 {
		o.fail(&fault{Status: http.StatusBadRequest, Type: typeRequest, Code: codeUnsupported, Param: o.path + "images",
			Message: "this model reads text only"})
	}
}

// readOllamaMessages reads a conversation, which may be empty.
func readOllamaMessages(o *object) []serve.Turn {
	list := o.list("messages")
	if len(list) > mostMessages {
		o.bad("messages", "must be at most %d messages", mostMessages)
		return nil
	}
	all := make([]serve.Turn, len(list))
	for i, raw := range list {
		if m := o.child(fmt.Sprintf("messages[%d]", i), raw); m != nil {
			all[i] = readOllamaMessage(m)
		}
		if o.err() != nil {
			return nil
		}
	}
	return all
}

func readOllamaMessage(m *object) (t serve.Turn) {
	t.Role = roles[strings.ToLower(first(m.text("role"), ""))]
	if t.Role == "" {
		m.bad("role", "must be one of system, developer, user, assistant, tool")
		return t
	}
	for _, f := range []struct {
		name string
		dst  *string
	}{{"content", &t.Content}, {"thinking", &t.Reasoning}, {"tool_name", &t.Name}, {"tool_call_id", &t.CallID}} {
		*f.dst = first(m.text(f.name), "")
	}
	refuseImages(m)
	calls := m.list("tool_calls")
	if len(calls) > 0 && t.Role != "assistant" {
		m.bad("tool_calls", "are the assistant's")
	}
	for i, raw := range calls {
		if call := m.child(fmt.Sprintf("tool_calls[%d]", i), raw); call != nil {
			t.Calls = append(t.Calls, readOllamaCall(call))
		}
	}
	return t
}

// readOllamaCall reads the call of a tool, whose arguments are an object.
func readOllamaCall(call *object) (c serve.Call) {
	c.ID = first(call.text("id"), "")
	fn := call.inner("function")
	if fn == nil {
		call.bad("function", "must be an object")
		return c
	}
	fn.integer("index", 0, 1<<31-1)
	if c.Name = first(fn.text("name"), ""); c.Name == "" {
		fn.bad("name", "must be a string that is not empty")
	}
	c.Arguments = "{}"
	if fn.inner("arguments") != nil {
		c.Arguments = string(fn.fields["arguments"])
	}
	return c
}

// shorten leaves out the oldest turns, from one of the user's to before another, until the prompt fits. Those of the system stay, and so
// does the last. It says so in the warnings. The error is a *serve.ContextError where even these do not fit.
func (r *ollamaRequest) shorten(count func(serve.ChatRequest) (int, error), context int) error {
	turns := r.ask.Messages
	var starts []int // turns that what is kept may begin with
	for i := 1; i < len(turns); i++ {
		if turns[i].Role == "user" || i == len(turns)-1 {
			starts = append(starts, i)
		}
	}
	var tokens int
	fits := func(start int) (bool, error) {
		ask := r.ask
		ask.Messages = latest(turns, start)
		n, err := count(ask)
		tokens = n
		return n < context, err
	}
	low, high := 0, len(starts) // starts before low do not fit, those from high on do
	for low < high {
		middle := (low + high) / 2
		ok, err := fits(starts[middle])
		switch {
		case err != nil:
			return err
		case ok:
			high = middle
		default:
			low = middle + 1
		}
	}
	if low == len(starts) {
		if _, err := fits(max(0, len(turns)-1)); err != nil {
			return err
		}
		return &serve.ContextError{Prompt: tokens, Context: context}
	}
	r.ask.Messages = latest(turns, starts[low])
	r.warn(fmt.Sprintf("%d of %d messages, the oldest, were left out: the context has %d tokens", len(turns)-len(r.ask.Messages), len(turns), context))
	return nil
}

// latest is a conversation from a turn on, and before it what the system said.
func latest(turns []serve.Turn, start int) []serve.Turn {
	system := slices.DeleteFunc(slices.Clone(turns[:start]), func(t serve.Turn) bool { return t.Role != "system" })
	return append(system, turns[start:]...)
}
