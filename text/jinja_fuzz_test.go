package text

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FuzzTemplate parses and renders: no panic, no hang, no more output than allowed, typed errors, runs that alternate.
func FuzzTemplate(f *testing.F) {
	files, _ := filepath.Glob("testdata/jinja/cases/*.json")
	for _, file := range files {
		var cases [][2]string
		if err := json.Unmarshal(read(f, file), &cases); err != nil {
			f.Fatal(err)
		}
		for _, c := range cases {
			f.Add(c[0])
		}
	}
	f.Add(chatML)
	vars, err := ParseJSON(read(f, "testdata/jinja/vars.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, src string) {
		start := time.Now()
		tmpl, err := ParseTemplate(src)
		if err != nil {
			if !errors.Is(err, ErrTemplate) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		lim := Limits{Steps: 20000, Depth: 16, Output: 1 << 16, Now: clock}
		spans, err := tmpl.Render(vars, lim)
		if err != nil && !errors.Is(err, ErrTemplate) {
			t.Fatalf("untyped error %v", err)
		}
		total := 0
		for i, s := range spans {
			total += len(s.Text)
			if s.Text == "" || i > 0 && s.Input == spans[i-1].Input {
				t.Fatalf("runs are not merged: %+v", spans)
			}
		}
		if total > lim.Output {
			t.Fatalf("%d bytes of output", total)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Fatalf("took %v", took)
		}
	})
}

// FuzzParseJSON: what is taken is JSON, and comes back as the same JSON.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a": [1, 2.5, "x", null, true]}`, `"\ud83e\udd99\u0000"`, `-1e5`, `[[[]]]`, `{"a":{"a":{}}}`, `1e999`} {
		f.Add([]byte(s))
	}
	tmpl := mustParse(f, `{{ v | tojson }}`)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseJSON(b)
		if err != nil {
			if !errors.Is(err, ErrValue) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !json.Valid(b) {
			t.Fatalf("%q is not JSON", b)
		}
		spans, err := tmpl.Render(Dict(Pair{"v", v}), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseJSON([]byte(spanText(spans)))
		if err != nil {
			t.Fatalf("%q: %v", spanText(spans), err)
		}
		back, _ := tmpl.Render(Dict(Pair{"v", again}), Limits{})
		if spanText(spans) != spanText(back) || len(spans) != 1 || !spans[0].Input && spans[0].Text != `""` {
			t.Fatalf("%+v became %+v", spans, back)
		}
	})
}

// longChat is a conversation of n messages with white space, tool calls left out.
func longChat(t testing.TB, n int) Value {
	var b strings.Builder
	b.WriteString(`{"add_generation_prompt": true, "bos_token": "<s>", "messages": [`)
	for i := range n {
		if i > 0 {
			b.WriteString(",")
		}
		role, text := "user", strings.Repeat("A question about the weather in Köln. ", 10)
		if i%2 == 1 {
			role, text = "assistant", "<think>\nhm\n</think>\n\n"+strings.Repeat("An answer of some length. ", 20)
		}
		b.WriteString(`{"role": "` + role + `", "content": ` + strconv.Quote(text) + `}`)
	}
	b.WriteString(`]}`)
	return mustJSON(t, b.String())
}

// BenchmarkRender renders a chat of twenty messages with every published template that takes it.
func BenchmarkRender(b *testing.B) {
	vars := longChat(b, 20)
	templates := map[string]string{"ChatML": chatML}
	files, _ := filepath.Glob(filepath.Join(published, "*.jinja"))
	for _, f := range files {
		templates[strings.TrimSuffix(filepath.Base(f), ".jinja")] = string(read(b, f))
	}
	for name, src := range templates {
		b.Run(name, func(b *testing.B) {
			tmpl := mustParse(b, src)
			if _, err := tmpl.Render(vars, Limits{}); err != nil {
				b.Skip(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tmpl.Render(vars, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseTemplate(b *testing.B) {
	files, _ := filepath.Glob(filepath.Join(published, "openai-gpt-oss-120b.jinja"))
	if len(files) == 0 {
		b.Skip("the published templates are not beside the repository")
	}
	src := string(read(b, files[0]))
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		mustParse(b, src)
	}
}
