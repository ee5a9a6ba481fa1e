package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/text"
)

// roles are the authors of messages on the wire, and what templates call them.
var roles = map[string]string{"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

// readMessages reads a conversation as templates expect it. What clients wrote stays input: special tokens in it are text.
func readMessages(o *object) text.Value {
	list := o.list("messages")
	switch {
	case o.err() != nil:
		return text.None
	case len(list) == 0:
		o.bad("messages", "must be at least one message")
		return text.None
	case len(list) > mostMessages:
		o.bad("messages", "must be at most %d messages", mostMessages)
		return text.None
	}
	all := make([]text.Value, len(list))
	authors := make([]string, len(list))
	for i, raw := range list {
		m := o.child(fmt.Sprintf("messages[%d]", i), raw)
		if o.err() == nil {
			all[i], authors[i] = readMessage(m)
		}
		if o.err() != nil {
			return text.None
		}
	}
	if n := len(list); n > 1 && authors[n-1] == "assistant" && authors[n-2] == "assistant" {
		o.bad("messages", "must not end with two messages of the assistant")
	}
	return text.List(all...)
}

// readMessage reads one message and its author.
func readMessage(m *object) (text.Value, string) {
	role := ""
	if r := m.text("role"); r != nil {
		role = roles[*r]
	}
	if role == "" {
		m.bad("role", "must be one of developer, system, user, assistant, tool")
		return text.None, ""
	}
	pairs := []text.Pair{{Key: "role", Value: text.String(role)}}
	add := func(key string, v text.Value) { pairs = append(pairs, text.Pair{Key: key, Value: v}) }
	calls := m.list("tool_calls")
	if len(calls) > 0 && role != "assistant" {
		m.bad("tool_calls", "are the assistant's")
	}
	content := m.raw("content")
	refusal := m.text("refusal")
	switch {
	case content != nil:
		add("content", text.Input(readContent(m, content)))
	case role == "assistant" && refusal != nil:
		add("content", text.Input(*refusal))
	case role == "assistant" && len(calls) > 0:
		add("content", text.String(""))
	default:
		m.bad("content", "must be a string or an array of parts")
	}
	for _, key := range []string{"name", "reasoning_content", "reasoning", "tool_call_id"} {
		if v := m.text(key); v != nil {
			add(key, text.Input(*v))
		} else if key == "tool_call_id" && role == "tool" {
			m.bad(key, "must name the call that a tool's message answers")
		}
	}
	if len(calls) > 0 {
		add("tool_calls", readCalls(m, calls))
	}
	if m.raw("audio") != nil {
		m.fail(unsupportedField(m.path + "audio"))
	}
	return text.Dict(pairs...), role
}

// readContent reads a string, or parts of text that are joined by line breaks.
func readContent(m *object, raw json.RawMessage) string {
	if raw[0] == '"' {
		if v := m.text("content"); v != nil {
			return *v
		}
		return ""
	}
	if raw[0] != '[' {
		m.bad("content", "must be a string or an array of parts")
		return ""
	}
	var lines []string
	for i, raw := range m.list("content") {
		at := fmt.Sprintf("content[%d]", i)
		part := m.child(at, raw)
		if part == nil {
			return ""
		}
		kind := part.text("type")
		switch {
		case kind == nil:
			part.bad("type", "must be a string")
		case slices.Contains([]string{"image_url", "input_audio", "file", "video_url"}, *kind):
			part.fail(&fault{Status: 400, Type: typeRequest, Code: codeUnsupported, Param: part.path + "type", Message: "this model reads text only"})
		case *kind == "text" || *kind == "refusal":
			v := part.text(*kind)
			if v == nil {
				part.bad(*kind, "must be a string")
				return ""
			}
			lines = append(lines, *v)
		default:
			part.bad("type", "must be text")
		}
		if m.err() != nil {
			return ""
		}
	}
	return strings.Join(lines, "\n")
}

// readCalls reads the calls of tools in an assistant's message. Templates want the arguments as a dict, which clients send as text.
func readCalls(m *object, list []json.RawMessage) text.Value {
	var out []text.Value
	for i, raw := range list {
		call := m.child(fmt.Sprintf("tool_calls[%d]", i), raw)
		if call == nil {
			return text.None
		}
		fn := call.inner("function")
		if fn == nil {
			call.bad("function", "must be an object")
			return text.None
		}
		name, args := fn.text("name"), fn.text("arguments")
		if name == nil || args == nil {
			fn.bad("name", "and arguments must be strings")
			return text.None
		}
		arguments := text.Input(*args)
		if strings.HasPrefix(strings.TrimSpace(*args), "{") {
			if v, err := text.ParseJSON([]byte(*args)); err == nil {
				arguments = v
			}
		}
		pairs := []text.Pair{
			{Key: "type", Value: text.String("function")},
			{Key: "function", Value: text.Dict(text.Pair{Key: "name", Value: text.Input(*name)}, text.Pair{Key: "arguments", Value: arguments})},
		}
		if id := call.text("id"); id != nil {
			pairs = append(pairs, text.Pair{Key: "id", Value: text.Input(*id)})
		}
		out = append(out, text.Dict(pairs...))
	}
	return text.List(out...)
}
