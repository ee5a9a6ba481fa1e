package serve

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/winnow-llm/winnow/text"
)

// Turn is one message of a conversation. What it says is the client's: in a prompt it stays text, whatever it spells.
type Turn struct {
	Role      string // "system", "user", "assistant" or "tool": a word of the server's, which templates know
	Content   string
	Name      string // of its author; "" = none
	Reasoning string // what the assistant thought before; "" = nothing
	Calls     []Call // of tools, by the assistant
	CallID    string // of the call that a tool's turn answers
}

// Call is a call of a tool.
type Call struct {
	ID        string
	Name      string
	Arguments string // JSON, as the model wrote it
}

// Conversation makes turns into the list that templates expect.
func Conversation(turns []Turn) text.Value {
	all := make([]text.Value, len(turns))
	for i := range turns {
		all[i] = turns[i].value()
	}
	return text.List(all...)
}

func (t *Turn) value() text.Value {
	pairs := []text.Pair{{Key: "role", Value: text.String(t.Role)}, {Key: "content", Value: text.Input(t.Content)}}
	for _, f := range []struct{ key, v string }{{"name", t.Name}, {"reasoning_content", t.Reasoning}, {"tool_call_id", t.CallID}} {
		if f.v != "" {
			pairs = append(pairs, text.Pair{Key: f.key, Value: text.Input(f.v)})
		}
	}
	if len(t.Calls) > 0 {
		calls := make([]text.Value, len(t.Calls))
		for i := range t.Calls {
			calls[i] = t.Calls[i].value()
		}
		pairs = append(pairs, text.Pair{Key: "tool_calls", Value: text.List(calls...)})
	}
	return text.Dict(pairs...)
}

// goMessage is a turn as Go templates have it.
func (t *Turn) goMessage() text.GoMessage {
	m := text.GoMessage{Role: t.Role, Content: t.Content, Thinking: t.Reasoning, ToolCallID: t.CallID}
	if t.Role == "tool" {
		m.ToolName = t.Name
	}
	for _, c := range t.Calls {
		call := text.GoCall{ID: c.ID, Name: c.Name}
		if json.Unmarshal([]byte(c.Arguments), &call.Arguments) != nil {
			call.Arguments = map[string]any{"arguments": c.Arguments}
		}
		m.ToolCalls = append(m.ToolCalls, call)
	}
	return m
}

// value has the arguments as a dict, which templates want and clients send as text. What is no JSON object stays text.
func (c *Call) value() text.Value {
	arguments := text.Input(c.Arguments)
	if strings.HasPrefix(strings.TrimSpace(c.Arguments), "{") {
		if v, err := text.ParseJSON([]byte(c.Arguments)); err == nil {
			arguments = v
		}
	}
	pairs := []text.Pair{
		{Key: "type", Value: text.String("function")},
		{Key: "function", Value: text.Dict(text.Pair{Key: "name", Value: text.Input(c.Name)}, text.Pair{Key: "arguments", Value: arguments})},
	}
	if c.ID != "" {
		pairs = append(pairs, text.Pair{Key: "id", Value: text.Input(c.ID)})
	}
	return text.Dict(pairs...)
}

// Argument is a variable for a template with a value that a client sent as JSON.
func Argument(name string, raw []byte) (text.Pair, error) {
	v, err := text.ParseJSON(raw)
	if err != nil {
		return text.Pair{}, fmt.Errorf("variable %.64q: %w", name, err)
	}
	return text.Pair{Key: name, Value: v}, nil
}
