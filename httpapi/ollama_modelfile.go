package httpapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/serve"
)

// modelfileText writes what a model says beside its weights as ollama's file of that name.
func modelfileText(name string, f *serve.Modelfile) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# A model like this one begins with:\n# FROM %s\n\n", name)
	from := f.From
	if from == "" {
		from = name
	}
	fmt.Fprintf(&b, "FROM %s\n", from)
	for _, part := range []struct{ word, text string }{{"TEMPLATE", f.Template}, {"SYSTEM", f.System}} {
		if part.text != "" {
			fmt.Fprintf(&b, "%s %s\n", part.word, quoted(part.text))
		}
	}
	for _, p := range parameterList(f.Parameters) {
		fmt.Fprintf(&b, "PARAMETER %s %s\n", p.name, quoted(fmt.Sprint(p.value)))
	}
	for _, m := range f.Messages {
		fmt.Fprintf(&b, "MESSAGE %s %s\n", m.Role, quoted(m.Content))
	}
	for _, l := range f.License {
		fmt.Fprintf(&b, "LICENSE %s\n", quoted(l))
	}
	return b.String()
}

// quoted puts three quotes around a text that would be read as another without.
func quoted(s string) string {
	if strings.ContainsAny(s, "\r\n") || strings.HasPrefix(s, `"`) || strings.TrimSpace(s) != s {
		return `"""` + s + `"""`
	}
	return s
}

// parameter is a setting of a model, in the words of its file.
type parameter struct {
	name  string
	value any // no list
}

// parameterList is a model's settings by name. Each entry of a list stands by itself.
func parameterList(all map[string]any) (out []parameter) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		values, list := all[name].([]any)
		if texts, ok := all[name].([]string); ok {
			for _, v := range texts {
				values = append(values, v)
			}
			list = true
		}
		if !list {
			values = []any{all[name]}
		}
		for _, v := range values {
			out = append(out, parameter{name, v})
		}
	}
	return out
}

// parameterText is a model's settings as a table.
func parameterText(all map[string]any) string {
	var lines []string
	for _, p := range parameterList(all) {
		format := "%-30s %v"
		if _, text := p.value.(string); text {
			format = "%-30s %q"
		}
		lines = append(lines, fmt.Sprintf(format, p.name, p.value))
	}
	return strings.Join(lines, "\n")
}
