package serve

import (
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

var think = tags{open: "<think>", close: "</think>"}

// divide pushes an answer in pieces of n bytes.
func divide(t tags, s string, n int) (thought, answer string, thinks bool) {
	p := newSplitter(t)
	for len(s) > 0 {
		d := Delta{Text: s[:min(n, len(s))]}
		if s = s[len(d.Text):]; s == "" {
			d.Finish = FinishStop
		}
		p.split(&d)
		thought, answer = thought+d.Reasoning, answer+d.Text
	}
	return thought, answer, p.opened
}

func TestSplitter(t *testing.T) {
	inside := think
	inside.inside = true
	for name, c := range map[string]struct {
		tags                tags
		in, thought, answer string
	}{
		"no thoughts":             {think, "  Hello <b>", "", "  Hello <b>"},
		"thoughts":                {think, "<think>\nhm, so\n</think>\n\nYes. ", "hm, so\n", "Yes. "},
		"space before":            {think, " \n<think>hm</think>Yes", "hm", "Yes"},
		"a tag later":             {think, "Yes <think>no</think>", "", "Yes <think>no</think>"},
		"tags in thoughts":        {think, "<think>a<think>b</think>c</think>d", "a<think>b", "c</think>d"},
		"nothing thought":         {think, "<think>\n\n</think>\n\nYes", "", "Yes"},
		"half an opening tag":     {think, "<thi", "", "<thi"},
		"an opening tag, nearly":  {think, "<thinking>Yes", "", "<thinking>Yes"},
		"half a closing tag":      {think, "<think>hm</thi", "hm</thi", ""},
		"a closing tag, nearly":   {think, "<think>hm</think<</think>Yes", "hm</think<", "Yes"},
		"never closed":            {think, "<think>hm ", "hm ", ""},
		"only space":              {think, " \n", "", " \n"},
		"only thoughts and space": {think, "<think>hm</think> \n", "hm", ""},
		"opened by the prompt":    {inside, "\nhm</think>\nYes", "hm", "Yes"},
		"opened, never closed":    {inside, "hm", "hm", ""},
		"unknown tags":            {tags{}, "<think>hm</think>Yes", "", "<think>hm</think>Yes"},
		"other tags":              {tags{open: "[", close: "]"}, "[a]b", "a", "b"},
	} {
		for n := 1; n <= len(c.in); n++ {
			if thought, answer, _ := divide(c.tags, c.in, n); thought != c.thought || answer != c.answer {
				t.Errorf("%s, by %d: %q and %q, want %q and %q", name, n, thought, answer, c.thought, c.answer)
			}
		}
	}
}

// FuzzSplitter checks that pieces do not matter, and that nothing is lost but tags and space around them.
func FuzzSplitter(f *testing.F) {
	f.Add("<think>hm</think> Yes", uint8(3))
	f.Add("  no </think>", uint8(1))
	f.Fuzz(func(t *testing.T, s string, n uint8) {
		thought, answer, thinks := divide(think, s, len(s)+1)
		by, rest, _ := divide(think, s, 1+int(n))
		if by != thought || rest != answer {
			t.Fatalf("%q by %d: %q and %q, whole %q and %q", s, n, by, rest, thought, answer)
		}
		if !thinks && answer != s || thinks && !strings.HasSuffix(s, answer) {
			t.Fatalf("%q: %q and %q", s, thought, answer)
		}
	})
}

func TestTags(t *testing.T) {
	for source, want := range map[string]string{
		"{{ x }}": "", "{{ '<think>' }}": "<think>", "{% if '</think>' in c %}": "<think>", "[THINK]x[/THINK]": "[THINK]",
	} {
		if got := mentioned(source); got.open != want {
			t.Errorf("%q: %q", source, got.open)
		}
	}
	for want, spans := range map[bool][]text.Span{
		true:  {{Text: "hi", Input: true}, {Text: "<|im_start|>assistant\n<think>\n"}},
		false: {{Text: "say "}, {Text: "<think>", Input: true}},
	} {
		if got := think.opened(spans); got.inside != want {
			t.Errorf("%+v: %v", spans, got.inside)
		}
	}
}

// Thoughts come apart from an answer with their tokens, and are counted; tags that are control tokens count too.
func TestReasoning(t *testing.T) {
	m := open(t, demo.Name, small())
	story := []Turn{{Role: "user", Content: "Tell me a story about a cat."}}
	whole := joined(t, m.Chat(t.Context(), ChatRequest{Messages: story, Reasoning: true, Generation: greedy(12)}))
	if whole.Usage.Reasoning != 0 || !strings.HasPrefix(whole.Text, "Once upon a time, there") {
		t.Fatalf("%+v", whole)
	}
	// The demo's stories begin with what this template says its thoughts begin with.
	const thinker = `{{ range .Messages }}{{ if .Thinking }}Once{{ .Thinking }}time{{ end }}{{ end }}` + chatML
	v := variantOf(t, m, store.Modelfile{Template: thinker})
	if !v.Thinks() || m.Thinks() {
		t.Error("who thinks?")
	}
	g := greedy(12)
	g.Logprobs, g.ReturnIDs = new(0), true
	var thought, answer, bytes string
	var usage *Usage
	for d, err := range v.Chat(t.Context(), ChatRequest{Messages: story, Reasoning: true, Generation: g}) {
		if err != nil {
			t.Fatal(err)
		}
		if d.Reasoning != "" && answer != "" {
			t.Errorf("thought %q after %q", d.Reasoning, answer)
		}
		thought, answer, usage = thought+d.Reasoning, answer+d.Text, d.Usage
		for _, tok := range d.Tokens {
			bytes += string(tok.Bytes)
		}
	}
	_, rest, _ := strings.Cut(whole.Text, "time")
	if thought != "upon a " || answer != rest || bytes != whole.Text || usage.Completion != 12 || usage.Reasoning < 2 || usage.Reasoning > 6 {
		t.Errorf("%q and %q of %q, %+v", thought, answer, bytes, usage)
	}
	// Nobody asked for that: all is answer. A stop string ends thoughts as well.
	if got := joined(t, v.Chat(t.Context(), ChatRequest{Messages: story, Generation: g})); got.Text != whole.Text || got.Usage.Reasoning != 0 {
		t.Errorf("%+v", got)
	}
	g.Stop, g.Logprobs = []string{" a"}, nil
	var last Delta
	for d, err := range v.Chat(t.Context(), ChatRequest{Messages: story, Reasoning: true, Generation: g}) {
		if err != nil {
			t.Fatal(err)
		}
		last.add(d)
	}
	if last.Reasoning != "upon" || last.Text != "" || last.Finish != FinishStop || last.Usage.Reasoning != last.Usage.Completion {
		t.Errorf("stopped: %+v", last)
	}
	// A prompt that ends behind the opening tag begins the thoughts.
	opened := variantOf(t, m, store.Modelfile{Template: thinker + "Once\n"})
	last = Delta{}
	for d, err := range opened.Chat(t.Context(), ChatRequest{Messages: story, Reasoning: true, Generation: greedy(12)}) {
		if err != nil {
			t.Fatal(err)
		}
		last.add(d)
	}
	if last.Text == "" || last.Reasoning == "" || last.Usage.Reasoning == 0 || last.Usage.Reasoning == 12 {
		t.Errorf("opened: %+v", last)
	}
	tok := bytewise(t)
	w := newWriter(tok, nil, nil)
	w.spoken = tags{open: "<end>"}.spoken(tok)
	var all Delta
	for _, id := range []int32{'x', 258, 'y'} {
		all.add(w.push(piece{TokenLogprob: TokenLogprob{ID: id, Bytes: tok.Piece(id)}, wanted: true}))
	}
	if all.Text != "x<end>y" || len(all.Tokens) != 3 {
		t.Errorf("a tag that is a control token: %+v", all)
	}
}
