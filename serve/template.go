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

// Template is the source of the model's chat template, "" where it has none.
func (m *Model) Template() (string, error) { return templateSource(m.checkpoint) }

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

// render writes a conversation as the model's template has it, with the opening of the answer.
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
