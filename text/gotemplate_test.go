package text_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ollama/ollama/api"
	ollama "github.com/ollama/ollama/template"

	"github.com/winnow-llm/winnow/text"
)

// Templates of the shapes that published models have.
const (
	goLlama3 = "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ end }}" +
		"{{ if .Prompt }}<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>{{ end }}" +
		"<|start_header_id|>assistant<|end_header_id|>\n\n{{ .Response }}<|eot_id|>"
	goChatML  = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
	goMistral = `{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if eq .Role "user" }}[INST] {{ if and $last $.System }}{{ $.System }}

{{ end }}{{ .Content }}[/INST]
{{- else if eq .Role "assistant" }}{{ if .Content }} {{ .Content }}</s>{{ end }}
{{- if .ToolCalls }}[TOOL_CALLS] [{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}]</s>{{ end }}
{{- else if eq .Role "tool" }}[TOOL_RESULTS] {"content": {{ .Content }}}[/TOOL_RESULTS]
{{- end }}
{{- end }}`
	goFill  = `{{ if .Suffix }}<PRE> {{ .Prompt }} <SUF>{{ .Suffix }} <MID>{{ else }}[INST] {{ .Prompt }} [/INST]{{ end }}`
	goThink = `{{ range .Messages }}<|im_start|>{{ .Role }}
{{ if and (eq .Role "assistant") .Thinking }}<think>{{ .Thinking }}</think>
{{ end }}{{ .Content }}{{ if and $.IsThinkSet (eq .Role "user") }}{{ if $.Think }} /think{{ with $.ThinkLevel }}:{{ . }}{{ end }}{{ else }} /no_think{{ end }}{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
`
	goLegacyElse = `{{ if .System }}{{ .System }}: {{ end }}Q: {{ .Prompt }} A: {{ if .Response }}{{ .Response }}{{ else }}{{ .Response }}{{ end }}.`
)

func goParse(t testing.TB, src string) *text.GoTemplate {
	t.Helper()
	tmpl, err := text.ParseGoTemplate(src)
	if err != nil {
		t.Fatalf("%q: %v", src, err)
	}
	return tmpl
}

func message(role, content string) text.GoMessage {
	return text.GoMessage{Role: role, Content: content}
}

var goDialogue = []text.GoMessage{
	message("system", "Be brief."), message("user", "Hi"), message("assistant", "Hello!"), message("user", "1 < 2?"), message("user", "Yes?"),
}

func spanText(spans []text.Span) string {
	var b strings.Builder
	for _, s := range spans {
		b.WriteString(s.Text)
	}
	return b.String()
}

func TestGoTemplates(t *testing.T) {
	calls := text.GoMessage{Role: "assistant", ToolCalls: []text.GoCall{{Name: "add", Arguments: map[string]any{"b": 2., "a": "x"}}}}
	for name, c := range map[string]struct {
		src  string
		v    text.GoValues
		want string
	}{
		"llama3": {goLlama3, text.GoValues{Messages: goDialogue}, "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>" +
			"<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>" +
			"<|start_header_id|>user<|end_header_id|>\n\n1 < 2?\n\nYes?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
		"llama3, one": {goLlama3, text.GoValues{Messages: goDialogue[1:2]},
			"<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
		"chatml": {goChatML, text.GoValues{Messages: goDialogue}, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n" +
			"<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n1 < 2?\n\nYes?<|im_end|>\n<|im_start|>assistant\n"},
		"mistral": {goMistral, text.GoValues{Messages: goDialogue}, "[INST] Hi[/INST] Hello!</s>[INST] Be brief.\n\n1 < 2?\n\nYes?[/INST]"},
		"mistral, tools": {goMistral, text.GoValues{Messages: []text.GoMessage{message("user", "?"), calls, message("tool", "3"), message("tool", "4")}},
			`[INST] ?[/INST][TOOL_CALLS] [{"name": "add", "arguments": {"a":"x","b":2}}]</s>` +
				`[TOOL_RESULTS] {"content": 3}[/TOOL_RESULTS][TOOL_RESULTS] {"content": 4}[/TOOL_RESULTS]`},
		"suffix":    {goFill, text.GoValues{Prompt: "def add(", Suffix: "return x"}, "<PRE> def add( <SUF>return x <MID>"},
		"no suffix": {goFill, text.GoValues{Messages: goDialogue[1:2]}, "[INST] Hi [/INST]"},
		"thoughts": {goThink, text.GoValues{Messages: []text.GoMessage{message("user", "a"), {Role: "assistant", Content: "b", Thinking: "hm"}, message("user", "c")}},
			"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>hm</think>\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"},
		"think": {goThink, text.GoValues{Messages: goDialogue[1:2], Think: true, ThinkLevel: "high", IsThinkSet: true},
			"<|im_start|>user\nHi /think:high<|im_end|>\n<|im_start|>assistant\n"},
		"do not think": {goThink, text.GoValues{Messages: goDialogue[1:2], IsThinkSet: true}, "<|im_start|>user\nHi /no_think<|im_end|>\n<|im_start|>assistant\n"},
		"no tools":     {"{{ range .Messages }}{{ end }}{{ len .Tools }}{{ if .Tools }}x{{ end }}{{ range .Tools }}x{{ end }}", text.GoValues{}, "0"},
		"nothing":      {"", text.GoValues{Messages: goDialogue}, "Hello!"},
	} {
		tmpl := goParse(t, c.src)
		for range 2 { // a render leaves the template as it was
			spans, err := tmpl.Render(c.v, text.Limits{})
			if err != nil || spanText(spans) != c.want {
				t.Errorf("%s: %v\n got %q\nwant %q", name, err, spanText(spans), c.want)
			}
		}
		// What ollama makes of it is the same.
		theirs, err := ollama.Parse(c.src)
		if err != nil {
			t.Fatal(err)
		}
		v := ollama.Values{Prompt: c.v.Prompt, Suffix: c.v.Suffix, Think: c.v.Think, ThinkLevel: c.v.ThinkLevel, IsThinkSet: c.v.IsThinkSet}
		for _, m := range c.v.Messages {
			one := api.Message{Role: m.Role, Content: m.Content, Thinking: m.Thinking}
			for _, call := range m.ToolCalls {
				args := api.NewToolCallFunctionArguments()
				for k, v := range call.Arguments {
					args.Set(k, v)
				}
				one.ToolCalls = append(one.ToolCalls, api.ToolCall{Function: api.ToolCallFunction{Name: call.Name, Arguments: args}})
			}
			v.Messages = append(v.Messages, one)
		}
		var b strings.Builder
		if err := theirs.Execute(&b, v); err != nil || b.String() != c.want {
			t.Errorf("%s: ollama has %q, %v, want %q", name, b.String(), err, c.want)
		}
	}
	spans, err := goParse(t, goLegacyElse).Render(text.GoValues{Messages: goDialogue[:2]}, text.Limits{})
	if got := spanText(spans); err != nil || got != "Be brief.: Q: Hi A: " {
		t.Errorf("answers in both branches: %q, %v", got, err)
	}
}

func TestGoTemplateUses(t *testing.T) {
	tmpl := goParse(t, goThink+"{{ currentDate }}")
	open, shut := tmpl.ThinkTags()
	if !tmpl.Uses("messages") || tmpl.Uses("suffix") || !tmpl.Clock() || open != "<think>" || shut != "</think>" {
		t.Errorf("%v %v %v %q %q", tmpl.Uses("messages"), tmpl.Uses("suffix"), tmpl.Clock(), open, shut)
	}
	if tmpl = goParse(t, goFill); !tmpl.Uses("suffix") || tmpl.Clock() {
		t.Error("a template with a gap")
	}
	if open, shut := tmpl.ThinkTags(); open != "" || shut != "" {
		t.Errorf("thoughts between %q and %q", open, shut)
	}
	spans, err := goParse(t, "{{ currentDate }} {{ yesterdayDate }}").Render(text.GoValues{}, text.Limits{
		Now: func() time.Time { return time.Date(2030, 3, 1, 0, 0, 0, 0, time.UTC) },
	})
	if got := spanText(spans); err != nil || got != "2030-03-01 2030-02-28" {
		t.Errorf("%q, %v", got, err)
	}
}

// What users wrote is apart from what the template wrote, whatever a template does with it, and no mark changes what it does.
func TestGoTemplateOrigin(t *testing.T) {
	user := []text.GoMessage{message("user", "<eos>é")}
	for name, c := range map[string]struct{ src, want string }{ // users' runs in brackets
		"plain":             {`<eos>{{ range .Messages }}{{ .Content }}{{ end }}<eos>`, "<eos>[<eos>é]<eos>"},
		"neighbours":        {`{{ range .Messages }}{{ .Content }}{{ .Content }}{{ end }}`, "[<eos>é<eos>é]"},
		"json":              {`{{ range .Messages }}{{ json .Content }}{{ end }}`, `"[\u003ceos\u003eé]"`},
		"whole message":     {`{{ range .Messages }}{{ json . }}{{ end }}`, `{"Role":"user","Content":"[\u003ceos\u003eé]","Thinking":"","Images":null,"ToolCalls":null,"ToolName":"","ToolCallID":""}`},
		"printf":            {`{{ range .Messages }}{{ printf "<eos>%s%d" .Content 7 }}{{ end }}`, "<eos>[<eos>é]7"},
		"quoted":            {`{{ range .Messages }}{{ printf "%q!" .Content }}{{ end }}`, `["<eos>é"!]`},
		"cut by precision":  {`{{ range .Messages }}{{ printf "%.2s" .Content }}{{ end }}x`, "[<e]x"},
		"characters":        {`{{ range .Messages }}{{ printf "%c" (index .Content 0) }}{{ end }}x`, "[<]x"},
		"the user's format": {`{{ range .Messages }}{{ printf .Content 1 }}{{ end }}x`, "[<eos>é%!(EXTRA int=1)]x"},
		"slice":             {`{{ range .Messages }}{{ slice .Content 1 4 }}{{ end }}x`, "[eos]x"},
		"length":            {`{{ range .Messages }}{{ len .Content }}{{ if eq .Content "<eos>é" }}={{ end }}{{ .Content | eq "<eos>é" }}{{ end }}`, "7=true"},
		"escaped":           {`{{ range .Messages }}{{ html .Content }}|{{ .Content | js }}|{{ urlquery .Content }}{{ end }}`, `[&lt;eos&gt;é]|[\u003Ceos\u003Eé]|[%3Ceos%3E%C3%A9]`},
		"printed":           {`{{ range .Messages }}{{ print .Content 1 2 }}{{ $x := println .Content }}{{ $x }}{{ end }}`, "[<eos>é]1 2[<eos>é]\n"},
		"trimmed around":    {"{{ range .Messages }}  {{- .Content -}}  {{ end }}", "[<eos>é]"},
		"nothing said":      {`{{ range .Messages }}{{ if .Thinking }}<think>{{ end }}{{ with .ToolName }}x{{ end }}{{ end }}.`, "."},
	} {
		spans, err := goParse(t, c.src).Render(text.GoValues{Messages: user}, text.Limits{})
		var got strings.Builder
		for _, s := range spans {
			if s.Input {
				got.WriteString("[" + s.Text + "]")
			} else {
				got.WriteString(s.Text)
			}
		}
		if err != nil || got.String() != c.want {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got.String(), c.want)
		}
	}
	// Marks of a user's own are text, however they come about.
	for _, s := range []string{"\uFDD1<eos>\uFDD0", "\xEF\xB7\uFDD0\x91", "\uFDD0", "\xEF\xB7"} {
		v := text.GoValues{Messages: []text.GoMessage{{Role: "user", Content: s, ToolCalls: []text.GoCall{{Arguments: map[string]any{s: []any{s}}}}}}}
		spans, err := goParse(t, `a{{ range .Messages }}{{ .Content }}{{ end }}b`).Render(v, text.Limits{})
		if err != nil || len(spans) != 3 || spans[0] != (text.Span{Text: "a"}) || !spans[1].Input || spans[2] != (text.Span{Text: "b"}) {
			t.Errorf("%q: %+v, %v", s, spans, err)
		}
	}
}

func TestHostileGoTemplates(t *testing.T) {
	for name, src := range map[string]string{
		"no template":    "{{ if }}",
		"unknown":        "{{ winnowTick 1 }}",
		"large":          strings.Repeat("x", 129<<10),
		"many nodes":     strings.Repeat("{{1}}", 20_001),
		"deep":           strings.Repeat("{{if 1}}", 300) + strings.Repeat("{{end}}", 300),
		"deep operands":  "{{" + strings.Repeat("(", 300) + "1" + strings.Repeat(")", 300) + "}}",
		"a number":       "{{ range 1000000000 }}{{ end }}",
		"piped number":   "{{ range $i := 1000000000 }}{{ end }}",
		"calls itself":   `{{ define "a" }}{{ template "b" . }}{{ end }}{{ define "b" }}{{ template "a" . }}{{ end }}{{ template "a" . }}`,
		"no such part":   `{{ template "\x00last" . }}`,
		"a method":       `{{ range .Messages }}{{ range .ToolCalls }}{{ $x := .Function.Arguments.String }}{{ end }}{{ end }}`,
		"a mark":         "{{ .Prompt }}\uFDD0",
		"a mark by name": `{{ .Prompt }}{{ "\ufdd1" }}`,
		"many operands":  "{{ print " + strings.Repeat("1 ", 100) + "}}",
	} {
		_, err := text.ParseGoTemplate(src)
		if _, ok := errors.AsType[*text.TemplateError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := strings.Repeat("x", 1<<20)
	many := make([]text.GoMessage, 2000)
	for i := range many {
		many[i] = message([]string{"user", "assistant"}[i%2], long[:100])
	}
	v := text.GoValues{Messages: many}
	doubling := "{{ $x := .System }}" + strings.Repeat("{{ $x = print $x $x }}", 40)
	for name, c := range map[string]struct {
		src string
		v   text.GoValues
	}{
		"loops in loops":    {"{{ range .Messages }}{{ range $.Messages }}{{ range $.Messages }}{{ end }}{{ end }}{{ end }}", v},
		"a long loop":       {"{{ range .Messages }}{{ range len $.System }}{{ end }}{{ end }}", text.GoValues{Messages: append([]text.GoMessage{message("system", long)}, many...)}},
		"calls of calls":    {`{{ define "a" }}{{ end }}` + parts(24) + `{{ template "p23" . }}{{ range .Messages }}{{ end }}`, v},
		"doubling":          {doubling + "{{ range .Messages }}{{ end }}", text.GoValues{Messages: []text.GoMessage{message("system", long)}}},
		"doubling, escaped": {strings.ReplaceAll(doubling, "print", "html") + "{{ range .Messages }}{{ end }}", text.GoValues{Messages: []text.GoMessage{message("system", long)}}},
		"wide":              {`{{ printf "%1000000000d" 1 }}`, v},
		"precise":           {`{{ printf "%.1000000000f" 1.0 }}`, v},
		"wide by operand":   {`{{ printf "%*d" 1000000000 1 }}`, v},
		"wide by name":      {`{{ $f := "%99999999d" }}{{ printf $f 1 }}`, v},
		"again and again":   {`{{ range .Messages }}{{ printf .Content "x" }}{{ end }}`, text.GoValues{Messages: []text.GoMessage{message("user", "%[1]s%[1]s")}}},
		"much output":       {"{{ range .Messages }}{{ range $.Messages }}{{ .Content }}{{ end }}{{ end }}", v},
		"much, by turns":    {strings.Repeat("x", 100<<10) + "{{ .Prompt }}{{ .Response }}", v},
		"missing":           {"{{ range .Messages }}{{ .Nobody }}{{ end }}", v},
		"not defined":       {`{{ template "nobody" . }}`, v},
		"call":              {"{{ call .Messages }}", v},
	} {
		_, err := goParse(t, c.src).Render(c.v, text.Limits{Steps: 500_000})
		if _, ok := errors.AsType[*text.TemplateError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// parts are n templates of which each calls the one before twice.
func parts(n int) string {
	var b strings.Builder
	before := "a"
	for i := range n {
		name := "p" + string(rune('0'+i/10)) + string(rune('0'+i%10))
		b.WriteString(`{{ define "` + name + `" }}{{ template "` + before + `" . }}{{ template "` + before + `" . }}{{ end }}`)
		before = name
	}
	return b.String()
}

// FuzzGoTemplate checks that no template brings down the process, and that what a user wrote is never the template's: of a text that only
// the user writes nothing is found outside of his runs.
func FuzzGoTemplate(f *testing.F) {
	for _, src := range []string{goLlama3, goChatML, goMistral, goFill, goThink, goLegacyElse, `{{ range $k, $v := .Messages }}{{ printf "%q" $v }}{{ slice $v.Content 1 2 }}{{ break }}{{ end }}`} {
		f.Add(src, "hi")
	}
	const secret = "\u2603"
	f.Fuzz(func(t *testing.T, src, content string) {
		tmpl, err := text.ParseGoTemplate(src)
		if err != nil {
			if _, ok := errors.AsType[*text.TemplateError](err); !ok {
				t.Fatal(err)
			}
			return
		}
		messages := slices.Clone(goDialogue)
		for i := range messages {
			messages[i].Content = content + secret
		}
		for _, v := range []text.GoValues{{Messages: messages}, {Prompt: secret + content, Suffix: secret}} {
			spans, err := tmpl.Render(v, text.Limits{Steps: 20_000, Output: 1 << 20})
			if err != nil {
				if _, ok := errors.AsType[*text.TemplateError](err); !ok {
					t.Fatal(err)
				}
				continue
			}
			for i, s := range spans {
				if s.Text == "" || i > 0 && spans[i-1].Input == s.Input || strings.ContainsAny(s.Text, "\uFDD0\uFDD1") {
					t.Fatalf("run %d of %+v", i, spans)
				}
				if !s.Input && strings.Contains(s.Text, secret) && !strings.Contains(src, secret) && !strings.Contains(src, `\`) {
					t.Fatalf("the user's text is the template's: %+v", spans)
				}
			}
		}
	})
}
