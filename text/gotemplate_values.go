package text

import (
	"encoding/json"
	"strings"
)

// goMessage is a message as templates read it. It has no methods, so that a template can call none.
type goMessage struct {
	Role       string
	Content    string
	Thinking   string
	Images     []string // always none
	ToolCalls  []goCall
	ToolName   string
	ToolCallID string
}

type goCall struct {
	ID       string
	Function goFunction
}

type goFunction struct {
	Index     int
	Name      string
	Arguments goArguments
}

// goArguments prints as JSON. Its method is the one that templates are kept from calling by name.
type goArguments map[string]any

func (a goArguments) String() string {
	if a == nil {
		return "{}"
	}
	b, err := json.Marshal(map[string]any(a))
	if err != nil {
		return "{}" // only what is no JSON value fails
	}
	return string(b)
}

// goMessages marks what users wrote. Neighbours of one role become one message, but for tools; all system messages together are the
// system's.
func goMessages(all []GoMessage) (system string, out []*goMessage) {
	const between = "\n\n"
	var systems, same []string // same: contents of the last message
	for i := range all {
		m := &all[i]
		content := markInput(m.Content)
		if m.Role == "system" {
			systems = append(systems, content)
		}
		if i > 0 && all[i-1].Role == m.Role && m.Role != "tool" {
			same = append(same, content)
		} else {
			same = append(same[:0], content)
			g := &goMessage{Role: m.Role, Thinking: markInput(m.Thinking), ToolName: markInput(m.ToolName), ToolCallID: markInput(m.ToolCallID)}
			for k, c := range m.ToolCalls {
				args, _ := markValue(c.Arguments).(map[string]any)
				g.ToolCalls = append(g.ToolCalls, goCall{markInput(c.ID), goFunction{k, markInput(c.Name), args}})
			}
			out = append(out, g)
		}
		if i+1 == len(all) || all[i+1].Role != m.Role || m.Role == "tool" {
			out[len(out)-1].Content = strings.Join(same, between)
		}
	}
	return strings.Join(systems, between), out
}

// markValue is a value of JSON with its strings marked, keys among them.
func markValue(v any) any {
	switch v := v.(type) {
	case string:
		return markInput(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = markValue(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, one := range v {
			out[markInput(k)] = markValue(one)
		}
		return out
	}
	return v
}
