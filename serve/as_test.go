package serve

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

// chatML is the demo's own template in ollama's form, but for what it does of its own accord.
const chatML = `{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
`

func said(t *testing.T, m *Model, r ChatRequest) string {
	t.Helper()
	w, err := m.write(&r)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, s := range w.spans {
		b.WriteString(s.Text)
	}
	return b.String()
}

func variantOf(t *testing.T, m *Model, f store.Modelfile) *Model {
	t.Helper()
	other, err := m.As(&Source{Name: "variant", Modelfile: f})
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// Models of the same weights share all but what their sources say, and are made once for each.
func TestAs(t *testing.T) {
	m := open(t, demo.Name, small())
	plain := Source{Name: m.name}
	if same, err := m.As(&plain); err != nil || same != m {
		t.Errorf("a source that says nothing: %v", err)
	}
	one := Source{Name: "one", Digest: "sha256:1", Modelfile: store.Modelfile{System: "Be brief.", Template: chatML}}
	a, err := m.As(&one)
	if err != nil || a.Name() != "one" || a.engine != m.engine || a.net != m.net || m.own.system != "" {
		t.Fatalf("%v, %+v", err, a)
	}
	again := one
	if b, _ := m.As(&again); b != a {
		t.Error("made twice")
	}
	if again.Digest = "sha256:2"; true {
		if b, _ := m.As(&again); b == a {
			t.Error("not made anew for a new digest")
		}
	}
	nameless := Source{Name: m.name, Modelfile: store.Modelfile{System: "x"}}
	b, _ := m.As(&nameless)
	if c, _ := m.As(&Source{Name: m.name, Modelfile: store.Modelfile{System: "x"}}); b != c || b == m {
		t.Error("without a digest the Modelfile counts")
	}
	if c, _ := m.As(&Source{Name: m.name, Modelfile: store.Modelfile{System: "y"}}); b == c {
		t.Error("another Modelfile is another model")
	}
	if source, err := a.Template(); err != nil || source != chatML {
		t.Errorf("template %q, %v", source, err)
	}
	for range mostVariants + 10 {
		if _, err := m.As(&Source{Name: "n" + strings.Repeat("x", len(m.variants.of)), Modelfile: store.Modelfile{System: "x"}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.variants.of); n > mostVariants {
		t.Errorf("%d variants are kept", n)
	}
}

func TestWhatASourceSays(t *testing.T) {
	m := open(t, demo.Name, small())
	hi := []Turn{{Role: "user", Content: "Hi"}}
	const asks = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
	const brief = "<|im_start|>system\nBe brief.<|im_end|>\n"
	few := []store.Message{{Role: "user", Content: "1"}, {Role: "assistant", Content: "2"}}
	const shots = "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
	own := append([]Turn{{Role: "system", Content: "Be long."}}, hi...)
	for name, c := range map[string]struct {
		f    store.Modelfile
		r    ChatRequest
		want string
	}{
		"a template":           {store.Modelfile{Template: chatML}, ChatRequest{Messages: hi}, asks},
		"a system message":     {store.Modelfile{Template: chatML, System: "Be brief."}, ChatRequest{Messages: hi}, brief + asks},
		"the client's own":     {store.Modelfile{Template: chatML, System: "Be brief."}, ChatRequest{Messages: own}, "<|im_start|>system\nBe long.<|im_end|>\n" + asks},
		"messages":             {store.Modelfile{Template: chatML, System: "Be brief.", Messages: few}, ChatRequest{Messages: hi}, brief + shots + asks},
		"messages, Jinja":      {store.Modelfile{System: "Be brief.", Messages: few}, ChatRequest{Messages: hi}, brief + shots + asks},
		"going on":             {store.Modelfile{Template: chatML, Messages: few}, ChatRequest{Messages: hi, Before: []int32{1}}, asks},
		"a template asked for": {store.Modelfile{Template: chatML}, ChatRequest{Messages: hi, Template: "{{ .Prompt }}?"}, "Hi?"},
		"a gap": {store.Modelfile{Template: `{{ if .Suffix }}{{ .Prompt }}_{{ .Suffix }}{{ else }}{{ .Prompt }}{{ end }}`},
			ChatRequest{Messages: hi, Suffix: "end"}, "Hi_end"},
		"thoughts":        {store.Modelfile{Template: `{{ if .IsThinkSet }}{{ .Think }}{{ .ThinkLevel }}{{ end }}`}, ChatRequest{Messages: hi, Think: &Think{On: true, Level: "low"}}, "truelow"},
		"nothing of them": {store.Modelfile{Template: `{{ if .IsThinkSet }}{{ .Think }}{{ end }}.{{ .Response }}`}, ChatRequest{Messages: hi}, "."},
		"a call": {store.Modelfile{Template: `{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ .ToolName }}{{ end }}`},
			ChatRequest{Messages: []Turn{{Role: "assistant", Calls: []Call{{Name: "f", Arguments: `{"a":1}`}, {Name: "g", Arguments: `x`}}}, {Role: "tool", Name: "f", Content: "2"}}},
			`f{"a":1}g{"arguments":"x"}f`},
	} {
		if got := said(t, variantOf(t, m, c.f), c.r); got != c.want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
		}
	}
	for name, c := range map[string]struct {
		f     store.Modelfile
		r     ChatRequest
		param string
	}{
		"no place for a suffix":         {store.Modelfile{Template: chatML}, ChatRequest{Messages: hi, Suffix: "x"}, "suffix"},
		"nor in Jinja":                  {store.Modelfile{}, ChatRequest{Messages: hi, Suffix: "x"}, "suffix"},
		"a template that is none":       {store.Modelfile{}, ChatRequest{Messages: hi, Template: "{{"}, "template"},
		"one that asks for too much":    {store.Modelfile{}, ChatRequest{Messages: hi, Template: "{{ range .Messages }}{{ range len .Content }}{{ range 4 | len $.System }}{{ end }}{{ end }}{{ end }}"}, "messages"},
		"the source's template is none": {store.Modelfile{Template: "{{"}, ChatRequest{Messages: hi}, "messages"},
		"ids of nobody":                 {store.Modelfile{}, ChatRequest{Messages: hi, Before: []int32{1 << 20}}, "context"},
	} {
		_, _, err := variantOf(t, m, c.f).prompt(t.Context(), &c.r)
		if e, ok := errors.AsType[*RequestError](err); !ok || e.Param != c.param {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := variantOf(t, m, store.Modelfile{Template: "{{"})
	if _, _, err := broken.prompt(t.Context(), &ChatRequest{Messages: hi}); !errors.Is(err, ErrNoTemplate) {
		t.Errorf("a broken template: %v", err)
	}
	if joined(t, broken.Complete(t.Context(), CompletionRequest{Prompt: "Once", Generation: greedy(2)})).Text == "" {
		t.Error("a model with a broken template completes nothing")
	}
	if _, err := m.As(&Source{Name: "x", Modelfile: store.Modelfile{Messages: []store.Message{{Role: "boss"}}}}); !errors.Is(err, store.ErrFormat) {
		t.Errorf("a message of nobody: %v", err)
	}
	fills := variantOf(t, open(t, stories, small()), store.Modelfile{Template: `{{ .Prompt }}{{ if .Suffix }}{{ .Suffix }}{{ end }}`})
	if !fills.Fills() || m.Fills() || fills.Thinks() || said(t, fills, ChatRequest{Messages: hi}) != "Hi" {
		t.Error("a base model with a template of its source's")
	}
}

// A Jinja template is told of thinking by the variables that it reads, unless the client sets them.
func TestThinkingByVariable(t *testing.T) {
	m := open(t, demo.Name, small())
	var err error
	if m.template, err = text.ParseTemplate(`{{ enable_thinking }} {{ reasoning_effort }}`); err != nil {
		t.Fatal(err)
	}
	no := []text.Pair{{Key: "enable_thinking", Value: text.String("no")}}
	for want, r := range map[string]ChatRequest{
		"True high": {Think: &Think{On: true, Level: "high"}}, "False ": {Think: &Think{}}, " ": {}, "no ": {Think: &Think{On: true}, TemplateArgs: no},
	} {
		if got := said(t, m, r); got != want {
			t.Errorf("%+v: %q, want %q", r.Think, got, want)
		}
	}
}

func TestParameters(t *testing.T) {
	m := open(t, demo.Name, small())
	var all map[string]any
	err := json.Unmarshal([]byte(`{"temperature":0.5,"top_k":-1,"top_p":0.25,"min_p":0.1,"typical_p":0.9,"repeat_penalty":1.5,"repeat_last_n":64,
		"presence_penalty":0.5,"frequency_penalty":-1,"seed":42,"num_predict":7,"num_ctx":100,"stop":["a","","b"],"num_gpu":"all","nobody":[]}`), &all)
	if err != nil {
		t.Fatal(err)
	}
	v := variantOf(t, m, store.Modelfile{Parameters: all})
	s := v.Sampling(Generation{})
	if s.Temperature != 0.5 || s.TopK != 0 || s.TopP != 0.25 || s.MinP != 0.1 || s.TypicalP != 0.9 || s.Repetition != 1.5 || s.RepeatLast != 64 ||
		s.Presence != 0.5 || s.Frequency != -1 || s.Seed != 42 {
		t.Errorf("%+v", s)
	}
	if !slices.Equal(v.stops(&Generation{}), []string{"a", "b"}) || len(v.stops(&Generation{Stop: []string{}})) != 0 || v.Context() != 100 {
		t.Errorf("stops %q, context %d", v.stops(&Generation{}), v.Context())
	}
	s = v.Sampling(Generation{
		Temperature: new(float32(0)), TopK: new(3), TopP: new(float32(1)), MinP: new(float32(0)), TypicalP: new(float32(1)),
		Repetition: new(float32(2)), RepeatLast: new(-1), Presence: new(float32(1)), Frequency: new(float32(0)), Seed: new(int64(7)),
	})
	if s.Temperature != 0 || s.TopK != 3 || s.TopP != 1 || s.MinP != 0 || s.TypicalP != 1 || s.Repetition != 2 || s.RepeatLast != 0 ||
		s.Presence != 1 || s.Frequency != 0 || s.Seed != 7 {
		t.Errorf("a request's own: %+v", s)
	}
	if s := v.Sampling(Generation{RepeatLast: new(0)}); s.Repetition != 1 || s.RepeatLast != 0 {
		t.Errorf("a window of nothing: %+v", s)
	}
	if before, now := m.Sampling(Generation{Seed: new(int64(1))}), variantOf(t, m, store.Modelfile{System: "x"}).Sampling(Generation{Seed: new(int64(1))}); before.Temperature != now.Temperature || before.Repetition != now.Repetition {
		t.Errorf("nothing said: %+v and %+v", before, now)
	}
	for name, wrong := range map[string][]any{
		"temperature": {"hot", true, -1., 1e9, []any{}}, "top_p": {2.}, "top_k": {1.5, -2., "x"}, "seed": {0.5, 1e30, "1"}, "num_predict": {"x", 1e12},
		"num_ctx": {-5., map[string]any{}}, "repeat_last_n": {-2.}, "stop": {7., []any{1.}, strings.Repeat("x", 5000), slices.Repeat([]any{"x"}, 65)},
		"repeat_penalty": {"1", json.Number("x")}, "presence_penalty": {false},
	} {
		for _, v := range wrong {
			_, err := m.As(&Source{Name: "x", Modelfile: store.Modelfile{Parameters: map[string]any{name: v}}})
			if !errors.Is(err, store.ErrFormat) || !strings.Contains(err.Error(), "parameter "+name+" ") || len(err.Error()) > 400 {
				t.Errorf("%s %.40v: %v", name, v, err)
			}
		}
	}
	for _, fine := range []any{7, int64(7), float32(7), json.Number("7"), 7.} {
		v := variantOf(t, m, store.Modelfile{Parameters: map[string]any{"num_predict": fine, "seed": -1.}})
		if v.own.maxTokens != 7 || v.own.seed != nil {
			t.Errorf("%T: %+v", fine, v.own.parameters)
		}
	}
}

// What a source recommends, and what a request wants instead, shows in the answer.
func TestLimitsOfAnswers(t *testing.T) {
	m := open(t, demo.Name, small())
	story := []Turn{{Role: "user", Content: "Tell me a story about a cat."}}
	v := variantOf(t, m, store.Modelfile{Template: chatML, Parameters: map[string]any{"temperature": 0., "num_predict": 6., "stop": "time"}})
	got := joined(t, v.Chat(t.Context(), ChatRequest{Messages: story}))
	if got.Text != "Once upon a " && got.Text != "Once upon a" || got.Finish != FinishStop || got.Usage.Completion == 0 || got.Usage.Prompt == 0 {
		t.Errorf("%+v", got)
	}
	got = joined(t, v.Chat(t.Context(), ChatRequest{Messages: story, Generation: Generation{Stop: []string{}}}))
	if got.Usage.Completion != 6 || got.Finish != FinishLength {
		t.Errorf("%+v", got.Usage)
	}
	prompt := got.Usage.Prompt
	for _, c := range []struct{ context, most, want int }{{prompt + 3, 0, 3}, {prompt + 3, 2, 2}, {prompt + 1, 9, 1}} {
		g := greedy(c.most)
		g.Context, g.Stop, g.ReturnIDs = c.context, []string{}, true
		got := joined(t, v.Chat(t.Context(), ChatRequest{Messages: story, Generation: g}))
		if got.Usage.Completion != c.want || got.Finish != FinishLength || len(got.IDs) != prompt+c.want {
			t.Errorf("context %d: %+v, %d ids", c.context, got.Usage, len(got.IDs))
		}
	}
	if ids := joined(t, m.Complete(t.Context(), CompletionRequest{IDs: []int32{5, 6}, PromptOnly: true, Generation: Generation{ReturnIDs: true}})).IDs; !slices.Equal(ids, []int32{5, 6}) {
		t.Errorf("a prompt alone: %v", ids)
	}
	// A control token is no text, and ends the answer all the same.
	silent := variantOf(t, m, store.Modelfile{Parameters: map[string]any{"stop": []any{"<|im_start|>", " a"}}})
	if ids := silent.silentStops(&Generation{}); len(ids) != 1 || string(m.tok.Piece(ids[0])) != "<|im_start|>" {
		t.Errorf("stops %v", ids)
	}
	if req, err := silent.request([]int32{5}, &Generation{}); err != nil || !slices.Contains(req.Stop, silent.silentStops(&Generation{})[0]) {
		t.Errorf("%v, %v", req.Stop, err)
	}
	err := failure(v.Chat(t.Context(), ChatRequest{Messages: story, Generation: Generation{Context: prompt}}))
	if e, ok := errors.AsType[*ContextError](err); !ok || e.Prompt != prompt || e.Context != prompt {
		t.Errorf("a prompt as long as the context: %v", err)
	}
	if err := failure(m.Complete(t.Context(), CompletionRequest{Prompt: "Once upon a time", Generation: Generation{Context: 2}})); !errors.Is(err, engine.ErrContext) {
		t.Errorf("a completion: %v", err)
	}
}

// A conversation goes on from the ids of the last answer, as if it had been given whole.
func TestBefore(t *testing.T) {
	for _, name := range []string{demo.Name, stories} {
		m := variantOf(t, open(t, name, small()), store.Modelfile{Template: "{{ .Prompt }}{{ .Response }}"})
		g := greedy(5)
		g.ReturnIDs = true
		var last []int32
		for d, err := range m.Chat(t.Context(), ChatRequest{Messages: []Turn{{Role: "user", Content: "Once upon"}}, Generation: g}) {
			if err != nil || d.IDs != nil && d.Finish == "" {
				t.Fatal(d, err)
			}
			last = d.IDs
		}
		ids, _, err := m.prompt(t.Context(), &ChatRequest{Messages: []Turn{{Role: "user", Content: " and then"}}, Before: last})
		if err != nil || !slices.Equal(ids[:len(last)], last) || slices.Contains(ids[1:], m.vocab.BOS) {
			t.Errorf("%s: %v after %v, %v", name, ids, last, err)
		}
		// A template that writes BOS itself neither doubles it nor brings it again.
		begins := variantOf(t, m, store.Modelfile{Template: m.token(m.vocab.BOS) + "{{ .Prompt }}{{ .Response }}"})
		for _, before := range [][]int32{nil, last} {
			ids, _, err := begins.prompt(t.Context(), &ChatRequest{Messages: []Turn{{Role: "user", Content: " and then"}}, Before: before})
			if err != nil || slices.Contains(ids[1:], m.vocab.BOS) || before == nil && m.vocab.BOS >= 0 && ids[0] != m.vocab.BOS {
				t.Errorf("%s: %v after %v, %v", name, ids, before, err)
			}
		}
	}
}
