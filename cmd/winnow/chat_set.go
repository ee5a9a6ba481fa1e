package main

import (
	"errors"
	"fmt"
	"strings"
)

// sets are what /set can change.
var sets = []struct {
	names, takes, does string
	run                func(s *session, name, arg string) error
}{
	{"parameter", "NAME VALUE", "how answers are drawn; VALUE default takes it back", (*session).setParameter},
	{"system", "TEXT", `the system message, from the next answer on; "" for none`, (*session).setSystem},
	{"verbose quiet", "", "print durations after each answer", func(s *session, name, _ string) error {
		s.verbose = name == "verbose"
		return nil
	}},
	{"receipt noreceipt", "", "print what it was made of after each answer", func(s *session, name, _ string) error {
		s.receipts = name == "receipt"
		return nil
	}},
	{"history nohistory", "", "remember what is typed", func(s *session, name, _ string) error {
		s.history.off = name == "nohistory"
		return nil
	}},
	{"wordwrap nowordwrap", "", "break lines of answers between words", func(s *session, name, _ string) error {
		s.page.wordwrap = name == "wordwrap"
		return nil
	}},
	{"format noformat", "json", "hold answers to a format: not there yet", func(_ *session, name, _ string) error {
		if name == "noformat" {
			return nil
		}
		return errFormat
	}},
	{"think nothink", "", "whether models think first: not there yet", func(*session, string, string) error {
		return fmt.Errorf("thinking cannot be switched yet: the model decides")
	}},
}

// errFormat refuses a format for answers.
var errFormat = errors.New("answers cannot be held to a format yet: ask for it in the message")

// set changes one of sets.
func (s *session) set(line string) error {
	name, arg := cutSpace(line)
	var known []string
	for _, v := range sets {
		for n := range strings.FieldsSeq(v.names) {
			if known = append(known, n); n != name {
				continue
			}
			if v.takes == "" && arg != "" {
				return fmt.Errorf("/set %s takes nothing more", n)
			}
			if err := v.run(s, n, arg); err != nil {
				return err
			}
			_, err := fmt.Fprintln(s.notes, "set", excerpt(line))
			return err
		}
	}
	return fmt.Errorf("/set takes one of %s", strings.Join(known, ", "))
}

func (s *session) setParameter(_, arg string) error {
	values, err := words(arg)
	if err != nil {
		return err
	}
	if len(values) == 0 {
		return fmt.Errorf("/set parameter takes a name and a value: /? set shows all")
	}
	return setParameter(&s.generation, values[0], values[1:])
}

func (s *session) setSystem(_, arg string) error {
	if arg == "" {
		return fmt.Errorf(`/set system takes a text, "" for none`)
	}
	text := unquote(arg)
	if text == arg && strings.HasPrefix(arg, `"`) {
		if one, err := words(arg); err == nil && len(one) == 1 {
			text = one[0]
		}
	}
	s.system = text
	return nil
}
