package httpapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/serve"
)

// roles are the authors of messages on the wire, and what templates call them.
var roles = map[string]string{"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}

// readMessages reads a conversation.
func readMessages(o *object) []serve.Turn {
	list := o.list("messages")
	switch {
	case o.err() != nil:
		return nil
	case len(list) == 0:
		o.bad("messages", "must be at least one message")
		return nil
	case len(list) > mostMessages:
		o.bad("messages", "must be at most %d messages", mostMessages)
		return nil
	}
	all := make([]serve.Turn, len(list))
	for i, raw := range list {
		if m := o.child(fmt.Sprintf("messages[%d]", i), raw); m != nil {
			all[i] = readMessage(m)
		}
		if o.err() != nil {
			return nil
		}
	}
	if n := len(all); n > 1 && all[n-1].Role == "assistant" && all[n-2].Role == "assistant" {
		o.bad("messages", "must not end with two messages of the assistant")
	}
	return all
}

func readMessage(m *object) (t serve.Turn) {
	if r := m.text("role"); r != nil {
		t.Role = roles[*r]
	}
	if t.Role == "" {
		m.bad("role", "must be one of developer, system, user, assistant, tool")
		return t
	}
	if calls := m.list("tool_calls"); len(calls) > 0 {
		if t.Role != "assistant" {
			m.bad("tool_calls", "are the assistant's")
		}
		t.Calls = readCalls(m, calls)
	}
	content, refusal := m.raw("content"), m.text("refusal")
	switch {
	case content != nil:
		t.Content = readContent(m, content)
	case t.Role == "assistant" && refusal != nil:
		t.Content = *refusal
	case t.Role == "assistant" && len(t.Calls) > 0:
	default:
		m.bad("content", "must be a string or an array of parts")
	}
	for _, f := range []struct {
		name string
		dst  *string
	}{{"name", &t.Name}, {"reasoning", &t.Reasoning}, {"reasoning_content", &t.Reasoning}, {"tool_call_id", &t.CallID}} {
		if v := m.text(f.name); v != nil {
			*f.dst = *v
		}
	}
	if t.Role == "tool" && t.CallID == "" {
		m.bad("tool_call_id", "must name the call that a tool's message answers")
	}
	if m.raw("audio") != nil {
		m.fail(unsupportedField(m.path + "audio"))
	}
	return t
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

// readCalls reads the calls of tools in an assistant's message.
func readCalls(m *object, list []json.RawMessage) []serve.Call {
	out := make([]serve.Call, len(list))
	for i, raw := range list {
		call := m.child(fmt.Sprintf("tool_calls[%d]", i), raw)
		if call == nil {
			return nil
		}
		fn := call.inner("function")
		if fn == nil {
			call.bad("function", "must be an object")
			return nil
		}
		name, args := fn.text("name"), fn.text("arguments")
		if name == nil || args == nil {
			fn.bad("name", "and arguments must be strings")
			return nil
		}
		out[i] = serve.Call{Name: *name, Arguments: *args}
		if id := call.text("id"); id != nil {
			out[i].ID = *id
		}
	}
	return out
}
