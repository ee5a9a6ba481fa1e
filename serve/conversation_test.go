package serve

import (
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/text"
)

// Templates see turns with the keys that published models expect, and arguments as values.
func TestConversation(t *testing.T) {
	tmpl, err := text.ParseTemplate("{{ messages | tojson }} {{ effort }}")
	if err != nil {
		t.Fatal(err)
	}
	arg, err := Argument("effort", []byte(`{"b":[1,null]}`))
	if err != nil {
		t.Fatal(err)
	}
	messages := Conversation([]Turn{
		{Role: "user", Content: "2+2?", Name: "ann"},
		{Role: "assistant", Reasoning: "hm", Calls: []Call{{ID: "c1", Name: "add", Arguments: `{"b": 2, "a": 2}`}, {Name: "odd", Arguments: "{"}}},
		{Role: "tool", Content: "4", CallID: "c1"},
	})
	spans, err := tmpl.Render(text.Dict(text.Pair{Key: "messages", Value: messages}, arg), text.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, s := range spans {
		got.WriteString(s.Text)
	}
	const want = `[{"role": "user", "content": "2+2?", "name": "ann"}, ` +
		`{"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [` +
		`{"type": "function", "function": {"name": "add", "arguments": {"b": 2, "a": 2}}, "id": "c1"}, ` +
		`{"type": "function", "function": {"name": "odd", "arguments": "{"}}]}, ` +
		`{"role": "tool", "content": "4", "tool_call_id": "c1"}] {'b': [1, None]}`
	if got.String() != want {
		t.Errorf("got  %s\nwant %s", got.String(), want)
	}
	if _, err := Argument("x", []byte("{")); err == nil {
		t.Error("half an object is a value")
	}
}
