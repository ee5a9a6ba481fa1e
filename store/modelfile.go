package store

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ollama/ollama/parser"
	"github.com/ollama/ollama/template"
)

// Modelfile is what a model of the store says beside its weights, in the words of ollama's file of that name.
type Modelfile struct {
	From       string         // the model or the file that its weights are from
	Template   string         // Go template of a conversation; "" = the weights' own
	System     string         // message before every conversation that has none of its own
	Parameters map[string]any // by ollama's name, with values as encoding/json decodes them: "temperature": 0.7, "stop": []any{"</s>"}
	Messages   []Message      // a conversation's first turns
	License    []string
	Renderer   string // ollama's name of a template that is part of its program, in place of Template; "" = none
	Parser     string // likewise, of what reads the answers
}

// Message is a turn of a conversation.
type Message struct {
	Role    string `json:"role"` // "system", "user" or "assistant"
	Content string `json:"content"`
}

// Progress is how far a change of the store is, in ollama's words.
type Progress struct {
	Status    string // "pulling manifest"
	Digest    string // of the file that it is about; "" = none
	Total     int64  // bytes of that file
	Completed int64  // bytes of it that are done
}

// maxLicenses is the most licences of a model; each is a layer.
const maxLicenses = 64

// ParseModelfile reads a file of at most limit bytes. ErrFormat: it breaks the rules, or sets a parameter that does not exist or cannot have
// the value. ErrUnsupported: it wants what Winnow has not.
func ParseModelfile(r io.Reader, limit int64) (Modelfile, error) {
	var f Modelfile
	counted := &io.LimitedReader{R: r, N: limit + 1}
	parsed, err := parser.ParseFile(counted)
	if counted.N <= 0 {
		return f, badModelfile("", ErrFormat, "more than %d bytes", limit)
	}
	if _, own := errors.AsType[*FileError](err); own {
		return f, err
	}
	if err != nil {
		return f, badModelfile("", ErrFormat, "%v", err)
	}
	for _, c := range parsed.Commands {
		if err := f.command(c.Name, c.Args); err != nil {
			return Modelfile{}, err
		}
	}
	return f, f.check()
}

// command obeys one line.
func (f *Modelfile) command(name, args string) error {
	switch name {
	case "model":
		if f.From != "" {
			return badModelfile("FROM", ErrUnsupported, "more than one")
		}
		f.From = args
	case "template":
		f.Template = args
	case "system":
		f.System = args
	case "license":
		f.License = append(f.License, args)
	case "renderer":
		f.Renderer = args
	case "parser":
		f.Parser = args
	case "message":
		role, content, _ := strings.Cut(args, ": ")
		f.Messages = append(f.Messages, Message{role, content})
	case "adapter", "draft":
		return badModelfile(strings.ToUpper(name), ErrUnsupported, "a model is made of one file of weights")
	case "requires":
		return badModelfile("REQUIRES", ErrUnsupported, "it names a version of another program; leave it out")
	default:
		v, err := parseParameter(name, args)
		if err != nil {
			return err
		}
		if f.Parameters == nil {
			f.Parameters = map[string]any{}
		}
		if list, ok := f.Parameters[name].([]any); ok {
			v = append(list, v.([]any)...)
		}
		f.Parameters[name] = v
	}
	return nil
}

// check finds what would make a model that cannot be opened, and brings parameters into the form that the field promises.
func (f *Modelfile) check() error {
	if f.Template != "" {
		if _, err := template.Parse(f.Template); err != nil {
			return badModelfile("TEMPLATE", ErrFormat, "%v", err)
		}
	}
	for _, m := range f.Messages {
		if !slices.Contains([]string{"system", "user", "assistant"}, m.Role) {
			return badModelfile("MESSAGE", ErrFormat, "role %.40q, should be system, user or assistant", m.Role)
		}
	}
	if n := len(f.License); n > maxLicenses {
		return badModelfile("LICENSE", ErrFormat, "%d licences, at most %d are kept", n, maxLicenses)
	}
	parameters := map[string]any{}
	for name, v := range f.Parameters {
		v, err := checkParameter(name, v)
		if err != nil {
			return err
		}
		parameters[name] = v
	}
	if len(parameters) == 0 {
		parameters = nil
	}
	f.Parameters = parameters
	return nil
}

func badModelfile(part string, sentinel error, limit string, args ...any) error {
	return &FileError{File: "Modelfile", Part: part, Limit: fmt.Sprintf(limit, args...), Err: sentinel}
}

// String is the file that ParseModelfile reads back, but for what it cannot hold: a line that ends in three quotes, and characters that do
// not print.
func (f Modelfile) String() string {
	var b strings.Builder
	line := func(command, args string) { fmt.Fprintf(&b, "%s %s\n", command, args) }
	line("FROM", quotedArg(f.From))
	for _, c := range []struct{ command, args string }{
		{"TEMPLATE", f.Template}, {"RENDERER", f.Renderer}, {"PARSER", f.Parser}, {"SYSTEM", f.System},
	} {
		if c.args != "" {
			line(c.command, quotedArg(c.args))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Parameters)) {
		for _, v := range parameterTexts(f.Parameters[name]) {
			line("PARAMETER", name+" "+quotedArg(v))
		}
	}
	for _, m := range f.Messages {
		line("MESSAGE", m.Role+" "+quotedArg(m.Content))
	}
	for _, text := range f.License {
		line("LICENSE", quotedArg(text))
	}
	return b.String()
}

// ParameterText lists the parameters as ollama does: a line for each value, names first.
func (f Modelfile) ParameterText() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.Parameters)) {
		v := f.Parameters[name]
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		for _, one := range list {
			text := strings.Join(parameterTexts(one), " ")
			if s, ok := one.(string); ok {
				text = strconv.Quote(s)
			}
			fmt.Fprintf(&b, "%-30s %s\n", name, text)
		}
	}
	return b.String()
}

// parameterTexts are the values of one parameter, each for a line of its own.
func parameterTexts(v any) (out []string) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			out = append(out, parameterTexts(one)...)
		}
		return out
	case float64:
		return []string{strconv.FormatFloat(v, 'f', -1, 64)}
	}
	return []string{fmt.Sprint(v)}
}

// quotedArg writes a value in quotes where a line would not hold it as it is.
func quotedArg(s string) string {
	if s != "" && s == strings.TrimSpace(s) && !strings.ContainsAny(s, "\r\n") && s[0] != '"' {
		return s
	}
	return `"""` + s + `"""`
}
