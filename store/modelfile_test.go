package store

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

const written = `# a comment
from ./one.gguf
PARAMETER temperature 0.7
PARAMETER stop "</s>"
PARAMETER stop <|im_end|>
PARAMETER num_ctx 4096
PARAMETER use_mmap false
TEMPLATE """{{ .System }}
"quoted" {{ .Prompt }}"""
SYSTEM You are brief.
MESSAGE user Hi
MESSAGE assistant """Hello,
you: there"""
LICENSE " You may. "
LICENSE """"So" may they"""
RENDERER qwen3-coder
PARSER qwen3-coder
`

func TestModelfile(t *testing.T) {
	f, err := ParseModelfile(strings.NewReader(written), 1<<20)
	want := Modelfile{From: "./one.gguf", Template: "{{ .System }}\n\"quoted\" {{ .Prompt }}", System: "You are brief.",
		Parameters: map[string]any{"temperature": 0.7, "stop": []any{"</s>", "<|im_end|>"}, "num_ctx": 4096.0, "use_mmap": false},
		Messages:   []Message{{"user", "Hi"}, {"assistant", "Hello,\nyou: there"}}, License: []string{" You may. ", `"So" may they`},
		Renderer: "qwen3-coder", Parser: "qwen3-coder"}
	if err != nil || !reflect.DeepEqual(f, want) {
		t.Errorf("got  %+v, %v\nwant %+v", f, err, want)
	}
	const lines = "num_ctx                        4096\nstop                           \"</s>\"\n" +
		"stop                           \"<|im_end|>\"\ntemperature                    0.7\nuse_mmap                       false\n"
	if got := f.ParameterText(); got != lines {
		t.Errorf("%s", got)
	}
	text := want.String()
	if again, err := ParseModelfile(strings.NewReader(text), int64(len(text))); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("%s\n%+v, %v", text, again, err)
	}
	if _, err := ParseModelfile(strings.NewReader(text), int64(len(text))-1); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

func TestModelfileRefuses(t *testing.T) {
	for text, c := range map[string]struct {
		want error
		says string
	}{
		"":                             {ErrFormat, "no FROM"},
		"FROM":                         {ErrFormat, ""},
		"FROM x\nGREET me":             {ErrFormat, "line 2"},
		"FROM x\nSYSTEM \"\"\"open":    {ErrFormat, ""},
		"FROM x\nFROM y":               {ErrUnsupported, "more than one"},
		"FROM x\nADAPTER y":            {ErrUnsupported, "ADAPTER"},
		"FROM x\nDRAFT y":              {ErrUnsupported, "DRAFT"},
		"FROM x\nREQUIRES 0.14.0":      {ErrUnsupported, "REQUIRES"},
		"FROM x\nMESSAGE nobody y":     {ErrFormat, "role"},
		"FROM x\nPARAMETER warmth 1":   {ErrUnsupported, "warmth"},
		"FROM x\nPARAMETER mirostat 1": {ErrUnsupported, "mirostat"},
		"FROM x\nPARAMETER top_k 1.5":  {ErrFormat, "a whole number"},
		"FROM x\nPARAMETER top_k 9999999999999999999": {ErrFormat, "a whole number"},
		"FROM x\nPARAMETER seed 9007199254740993":     {ErrFormat, "a whole number"},
		"FROM x\nPARAMETER top_p NaN":                 {ErrFormat, "a number"},
		"FROM x\nPARAMETER top_p 1e40":                {ErrFormat, "a number"},
		"FROM x\nPARAMETER use_mmap maybe":            {ErrFormat, "true or false"},
		"FROM x\nPARAMETER stop \"\"":                 {ErrFormat, "not empty"},
		"FROM x\nTEMPLATE {{ if }}":                   {ErrFormat, "TEMPLATE"},
	} {
		if f, err := ParseModelfile(strings.NewReader(text), 1<<20); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %+v, %v", text, f, err)
		}
	}
}

// What clients send as JSON is held to the same types.
func TestParametersOfJSON(t *testing.T) {
	for _, c := range []struct {
		name  string
		v     any
		want  any
		fails bool
	}{
		{name: "temperature", v: 0.5, want: 0.5}, {name: "temperature", v: 1, want: 1.0}, {name: "temperature", v: "1", fails: true},
		{name: "temperature", v: nil, fails: true}, {name: "temperature", v: math.Inf(1), fails: true}, {name: "top_k", v: 40.0, want: 40.0},
		{name: "top_k", v: 40.5, fails: true}, {name: "top_k", v: true, fails: true}, {name: "top_k", v: []any{1.0}, fails: true},
		{name: "stop", v: "x", want: []any{"x"}}, {name: "stop", v: []string{"x"}, want: []any{"x"}}, {name: "stop", v: []any{"x", "y"}, want: []any{"x", "y"}},
		{name: "stop", v: []any{1.0}, fails: true}, {name: "stop", v: 1.0, fails: true}, {name: "stop", v: map[string]any{}, fails: true},
		{name: "use_mmap", v: true, want: true}, {name: "use_mmap", v: 1.0, fails: true}, {name: "Temperature", v: 1.0, fails: true}, {name: "", v: 1.0, fails: true},
	} {
		if got, err := checkParameter(c.name, c.v); (err != nil) != c.fails || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %v: %v, %v", c.name, c.v, got, err)
		}
	}
}

// FuzzModelfile checks that no file is more than an error, and that what is read is what String writes.
func FuzzModelfile(f *testing.F) {
	f.Add(written)
	f.Add("FROM x\nTEMPLATE {{ define \"a\" }}{{ end }}")
	f.Add("FROM x\nTEMPLATE {{ range .Messages }}{{ template \"a\" . }}{{ end }}{{ define \"a\" }}{{ .Content }}{{ end }}")
	f.Add("FROM \"\"\"x\ny\"\"\"\nLICENSE \"\"\nSYSTEM \t")
	f.Add("\xff\xfeF\x00R\x00O\x00M\x00 \x00x\x00")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseModelfile(strings.NewReader(text), 1<<16)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		again, err := ParseModelfile(strings.NewReader(m.String()), 1<<20)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%q\n%+v\n%q\n%+v, %v", text, m, m.String(), again, err)
		}
	})
}
