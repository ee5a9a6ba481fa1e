package serve

import (
	"errors"
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

// chatTemplate finds and parses a checkpoint's chat template. The error says why there is none that can be used; it wraps
// ErrNoTemplate.
func chatTemplate(c *store.Checkpoint) (*text.Template, error) {
	source, err := templateSource(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTemplate, err)
	}
	if source == "" {
		return nil, ErrNoTemplate
	}
	t, err := text.ParseTemplate(source)
	if err != nil {
		return nil, fmt.Errorf("%w that can be used: %w", ErrNoTemplate, err)
	}
	return t, nil
}

// Template is the source of the model's chat template, "" where it has none: a Go template where its source has one, else Jinja.
func (m *Model) Template() (string, error) {
	if m.own.source != "" {
		return m.own.source, nil
	}
	return templateSource(m.checkpoint)
}

func templateSource(c *store.Checkpoint) (string, error) {
	if c.Kind == store.GGUF {
		return c.Meta.String("tokenizer.chat_template", "")
	}
	if raw := c.Files["chat_template.jinja"]; raw != nil {
		return string(raw), nil
	}
	raw := c.Files["tokenizer_config.json"]
	if raw == nil {
		return "", nil
	}
	config, err := text.ParseTokenizerConfig(raw)
	return config.ChatTemplate, err
}

// reserved are the template's variables that the server sets.
var reserved = []string{"messages", "tools", "bos_token", "eos_token", "add_generation_prompt"}

// written is a conversation as a template writes it, with the opening of the answer.
type written struct {
	spans []text.Span
	tags  tags // around the thoughts that may follow
}

// write renders a conversation, or finds it rendered.
func (m *Model) write(r *ChatRequest) (written, error) {
	turns := m.turns(r)
	key := m.cache.key(m.identity, turns, r)
	if w, ok := m.cache.written(key); ok {
		return w, nil
	}
	w, clock, err := m.writeWith(r, turns)
	if err != nil {
		return written{}, err
	}
	if !clock {
		m.cache.keepWritten(key, w)
	}
	return w, nil
}

// overrideSteps bounds the render of a template that a client sent.
const overrideSteps = 500_000

// writeWith renders a conversation by the template that counts: the request's, the source's, or the files' own. It
// reports whether what it wrote depends on the clock.
func (m *Model) writeWith(r *ChatRequest, turns []Turn) (w written, clock bool, err error) {
	if r.Template == "" && m.own.template == nil {
		if r.Suffix != "" {
			return w, false, noSuffix
		}
		if w.spans, err = m.render(Conversation(turns), m.arguments(r)); err != nil {
			return w, false, err
		}
		w.tags = m.tags.opened(w.spans)
		return w, m.template.Uses("strftime_now"), nil
	}
	t, source, limits := m.own.template, m.own.source, text.Limits{}
	if r.Template != "" {
		source, limits.Steps = r.Template, overrideSteps
		if t, err = text.ParseGoTemplate(source); err != nil {
			return w, false, &RequestError{Param: "template", Why: "it cannot be used", Err: err}
		}
	}
	values, err := goValues(t, r, turns)
	if err != nil {
		return w, false, err
	}
	if w.spans, err = t.Render(values, limits); err != nil {
		return w, false, &RequestError{Param: "messages", Why: "the model's template cannot render them", Err: err}
	}
	if w.tags.open, w.tags.close = t.ThinkTags(); w.tags.open == "" {
		w.tags = mentioned(source)
	}
	w.tags = w.tags.opened(w.spans)
	return w, t.Clock(), nil
}

var noSuffix = &RequestError{Param: "suffix", Why: "the model's template has no place for it"}

// goValues is a conversation as Go templates have it. Before a suffix only the last turn counts, as what it follows.
func goValues(t *text.GoTemplate, r *ChatRequest, turns []Turn) (text.GoValues, error) {
	var v text.GoValues
	if r.Think != nil {
		v.Think, v.ThinkLevel, v.IsThinkSet = r.Think.On, r.Think.Level, true
	}
	if r.Suffix != "" {
		if !t.Uses("suffix") {
			return v, noSuffix
		}
		v.Suffix = r.Suffix
		if n := len(turns); n > 0 {
			v.Prompt = turns[n-1].Content
		}
		return v, nil
	}
	v.Messages = make([]text.GoMessage, len(turns))
	for i := range turns {
		v.Messages[i] = turns[i].goMessage()
	}
	return v, nil
}

// arguments are a request's for a Jinja template, with what it says of thinking where the template asks for that and nobody else has said it.
func (m *Model) arguments(r *ChatRequest) []text.Pair {
	args := slices.Clip(r.TemplateArgs)
	if r.Think == nil || m.template == nil {
		return args
	}
	say := func(name string, v text.Value) {
		said := slices.ContainsFunc(args, func(p text.Pair) bool { return p.Key == name })
		if !said && m.template.Uses(name) {
			args = append(args, text.Pair{Key: name, Value: v})
		}
	}
	say("enable_thinking", text.Bool(r.Think.On))
	say("thinking", text.Bool(r.Think.On))
	if r.Think.Level != "" {
		say("reasoning_effort", text.Input(r.Think.Level))
	}
	return args
}

// Thinks reports whether the model's template knows thoughts apart from answers.
func (m *Model) Thinks() bool {
	if m.own.template == nil {
		return m.tags.open != ""
	}
	open, _ := m.own.template.ThinkTags()
	return open != "" || mentioned(m.own.source).open != ""
}

// Fills reports whether the model's template has a place for what follows the answer.
func (m *Model) Fills() bool { return m.own.template != nil && m.own.template.Uses("suffix") }

// render writes a conversation as the files' own template has it.
func (m *Model) render(messages text.Value, args []text.Pair) ([]text.Span, error) {
	if m.templateErr != nil {
		return nil, &RequestError{Param: "messages", Why: "the model cannot chat", Err: m.templateErr}
	}
	vars := []text.Pair{
		{Key: "messages", Value: messages},
		{Key: "tools", Value: text.None},
		{Key: "bos_token", Value: text.String(m.token(m.vocab.BOS))},
		{Key: "eos_token", Value: text.String(m.token(m.vocab.EOS))},
		{Key: "add_generation_prompt", Value: text.Bool(true)},
	}
	for _, a := range args {
		if slices.Contains(reserved, a.Key) {
			return nil, &RequestError{Param: "chat_template_kwargs", Why: fmt.Sprintf("%q is set by the server", a.Key)}
		}
		vars = append(vars, a)
	}
	spans, err := m.template.Render(text.Dict(vars...), text.Limits{})
	var at *text.TemplateError
	if errors.As(err, &at) {
		return nil, &RequestError{Param: "messages", Why: "the model's template cannot render them", Err: err}
	}
	return spans, err
}

// token is the text of a token that files name; "" for none.
func (m *Model) token(id int32) string {
	if id < 0 {
		return ""
	}
	return m.vocab.Tokens[id]
}
