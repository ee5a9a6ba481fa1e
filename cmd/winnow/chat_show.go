package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

// shows are what /show can print.
var shows = []struct {
	name, does string
	print      func(s *session, out io.Writer) error
}{
	{"info", "what the model is", (*session).showInspection},
	{"license", "the model's licence, as its files say", func(s *session, out io.Writer) error {
		_, err := fmt.Fprintln(out, license(s.model.Checkpoint()))
		return err
	}},
	{"modelfile", "the model, system message and parameters as a Modelfile", (*session).showModelfile},
	{"parameters", "how answers are drawn, and who says so", (*session).showParameters},
	{"system", "the system message", func(s *session, out io.Writer) error {
		_, err := fmt.Fprintln(out, cmp.Or(s.system, s.model.Modelfile().System, "no system message is set"))
		return err
	}},
	{"template", "the model's chat template", func(s *session, out io.Writer) error {
		source, err := s.model.Template()
		if err == nil {
			_, err = fmt.Fprintln(out, cmp.Or(source, "the model has no chat template"))
		}
		return err
	}},
}

// show prints one of shows.
func (s *session) show(arg string) error {
	var known []string
	for _, v := range shows {
		if v.name == arg {
			return v.print(s, s.notes)
		}
		known = append(known, v.name)
	}
	return fmt.Errorf("/show takes one of %s", strings.Join(known, ", "))
}

func (s *session) showInspection(out io.Writer) error {
	in, err := inspect(s.model.Checkpoint(), s.machine.config)
	if err != nil {
		return err
	}
	in.Model = s.model.Name()
	return in.print(out)
}

// license is what a checkpoint's files say; the files of a Hugging Face directory that are read say nothing.
func license(c *store.Checkpoint) string {
	var all []string
	for _, key := range []string{"general.license", "general.license.name", "general.license.link"} {
		if v, err := c.Meta.String(key, ""); err == nil && v != "" {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return "the model's files name no licence"
	}
	return printable(strings.Join(all, "\n"))
}

func (s *session) showModelfile(out io.Writer) error {
	f := s.model.Modelfile()
	f.From, f.System = s.model.Checkpoint().Path, cmp.Or(s.system, f.System)
	f.Parameters = maps.Clone(f.Parameters)
	if f.Parameters == nil {
		f.Parameters = map[string]any{}
	}
	for _, p := range parameters {
		if wish := p.wish(&s.generation); wish != "" && !p.experts {
			f.Parameters[cmp.Or(p.also, p.name)] = wish
		}
	}
	if stops := s.generation.Stop; len(stops) > 0 {
		all := make([]any, len(stops))
		for i, stop := range stops {
			all[i] = stop
		}
		f.Parameters["stop"] = all
	}
	_, err := io.WriteString(out, f.String())
	return err
}

// showParameters prints what is in force, and who says so.
func (s *session) showParameters(out io.Writer) error {
	unasked := s.model.Sampling(serve.Generation{})
	own := map[string]string{} // of the model's Modelfile
	for line := range strings.Lines(s.model.Modelfile().ParameterText()) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		own[name] = strings.TrimSpace(own[name] + " " + strings.TrimSpace(value))
	}
	var b strings.Builder
	for _, p := range parameters {
		value, whose := p.wish(&s.generation), "set by you"
		said := own[cmp.Or(p.also, p.name)]
		switch {
		case value != "":
		case said != "":
			value, whose = said, "set by the model"
		case p.used != nil:
			value, whose = p.used(&unasked), "from the model's files, or the default"
		default:
			value, whose = "-", "not set"
		}
		fmt.Fprintf(&b, "%-12s %-12s %s\n", p.name, value, whose)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
