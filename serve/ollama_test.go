package serve

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
)

func TestSourcesFind(t *testing.T) {
	all := Sources{{Name: "demo"}, {Name: "org/Model:Q4"}, {Name: "Demo"}}
	for name, want := range map[string]string{
		"": "demo", "demo": "demo", "Demo": "Demo", "demo:latest": "demo", "DEMO": "demo", "library/demo": "demo", "org/model:q4": "org/Model:Q4",
	} {
		if s, err := all.Find(name); err != nil || s.Name != want {
			t.Errorf("%q: %q, %v", name, s.Name, err)
		}
	}
	for _, name := range []string{"demo:8b", "org/demo", "model", "../demo", "demo\x00", " ", strings.Repeat("x", 1<<16)} {
		if s, err := all.Find(name); !errors.Is(err, ErrNoModel) || len(err.Error()) > 1000 {
			t.Errorf("%.50q: %q, %v", name, s.Name, err)
		}
	}
}

// Otherwise counts below the request and below the model's files.
func TestSamplingOtherwise(t *testing.T) {
	m := open(t, demo.Name, Options{})
	m.recommended = sampling{TopP: new(float32(0.5))}
	g := Generation{TopK: new(7), Otherwise: Defaults{Temperature: new(float32(0.8)), TopP: new(float32(0.9)), TopK: new(40)}}
	if s := m.Sampling(g); s.Temperature != 0.8 || s.TopP != 0.5 || s.TopK != 7 {
		t.Errorf("%+v", s)
	}
	if s := m.Sampling(Generation{}); s.Temperature != 1 || s.TopP != 0.5 || s.TopK != 0 {
		t.Errorf("%+v", s)
	}
}

// Count is what an answer's usage says of its prompt.
func TestCount(t *testing.T) {
	m := open(t, demo.Name, Options{})
	r := ChatRequest{Messages: []Turn{{Role: "user", Content: "Tell me a story about a cat."}}}
	n, err := m.Count(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	r.MaxTokens = 1
	for d, err := range m.Chat(t.Context(), r) {
		if err != nil {
			t.Fatal(err)
		}
		if d.Usage != nil && d.Usage.Prompt != n {
			t.Errorf("%d tokens counted, %d computed", n, d.Usage.Prompt)
		}
	}
	var refused *RequestError
	if _, err := open(t, stories, Options{}).Count(t.Context(), r); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
}

// An input that is cut is embedded as its beginning would be.
func TestEmbedTruncates(t *testing.T) {
	m := open(t, demo.Name, Options{Context: 64})
	text := strings.Repeat("a cat and a dog ", 20)
	ids := m.Encode(text)
	for _, most := range []int{1, 8, 63, 64} {
		cut, err := m.Embed(t.Context(), EmbedRequest{Inputs: []Input{{Text: "x"}, {Text: text}}, Context: most, Truncate: true})
		if err != nil {
			t.Fatal(err)
		}
		if want := m.cut(ids, most); len(want) != most || !slices.Equal(want[:most-len(m.end(nil))], ids[:most-len(m.end(nil))]) {
			t.Errorf("%d: %v of %v", most, want, ids[:most])
		}
		whole, err := m.Embed(t.Context(), EmbedRequest{Inputs: []Input{{IDs: m.cut(ids, most)}}})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(cut.Vectors[1], whole.Vectors[0]) || cut.Cut[len(cut.Cut)-1] != 1 {
			t.Errorf("%d: cut %v, vectors differ", most, cut.Cut)
		}
	}
	var long *ContextError
	_, err := m.Embed(t.Context(), EmbedRequest{Inputs: []Input{{Text: text}}, Context: 8})
	if !errors.As(err, &long) || long.Context != 8 || long.Prompt != len(m.end(ids)) {
		t.Errorf("%v", err)
	}
	m.vocab.AddEOS, m.vocab.Closing = true, []int32{1, 2, 3}
	if got := fmt.Sprint(m.cut([]int32{9, 8, 7, 6, 5}, 5)); got != "[9 8 1 2 3]" {
		t.Errorf("%s", got)
	}
	if _, err := m.Embed(t.Context(), EmbedRequest{Inputs: []Input{{Text: text}}, Context: 2, Truncate: true}); err == nil {
		t.Error("three ends in two tokens")
	}
}
