package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// typing is a console whose user has typed some pieces, and nothing more.
func typing(e *editor, pieces ...string) (*console, *strings.Builder) {
	var out strings.Builder
	c := &console{out: &out, typed: make(chan []byte, len(pieces)), interrupts: make(chan os.Signal, 1), editor: e}
	for _, p := range pieces {
		c.typed <- []byte(p)
	}
	close(c.typed)
	return c, &out
}

func TestConsoleWithoutCodes(t *testing.T) {
	c, out := typing(nil, "one\r\ntw", "o\nback\\\nslash\n\"\"\"\nsev", "eral\nlines\"\"\"\n/set system \"\"\"a\nb\"\"\"\nlast")
	for _, want := range []string{"one", "two", "back\nslash", "\"\"\"\nseveral\nlines\"\"\"", "/set system \"\"\"a\nb\"\"\"", "last"} {
		if got, err := c.message(t.Context()); err != nil || got != want {
			t.Errorf("%q %v, want %q", got, err, want)
		}
	}
	if _, err := c.message(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("escape codes in %q", out)
	}
	c, _ = typing(nil)
	c.typed = nil
	c.interrupts <- os.Interrupt
	if _, err := c.message(t.Context()); !errors.Is(err, errInterrupted) {
		t.Errorf("Ctrl-C: %v", err)
	}
}

// What is typed during an answer is the beginning of the next message; Ctrl-C stops the answer and drops it.
func TestConsoleDuringAnAnswer(t *testing.T) {
	g := newGlass(t, 40, 5)
	c, _ := typing(newEditor(g), "ahead", " of time\r")
	ctx, stop := c.during(t.Context())
	for len(c.typed) > 0 {
		select {
		case <-ctx.Done():
			t.Fatal("the answer was stopped")
		default:
		}
	}
	stop()
	if got, err := c.message(t.Context()); err != nil || got != "ahead of time" {
		t.Errorf("%q %v", got, err)
	}
	c, _ = typing(newEditor(g), "dropped", "\x03kept\r")
	ctx, stop = c.during(t.Context())
	<-ctx.Done()
	stop()
	if got, err := c.message(t.Context()); err != nil || got != "kept" || !errors.Is(context.Cause(ctx), errInterrupted) {
		t.Errorf("%q %v; %v", got, err, context.Cause(ctx))
	}
}

func TestQuotes(t *testing.T) {
	for s, want := range map[string]struct {
		unfinished, command bool
		says                string
	}{
		"":                               {false, false, ""},
		"plain":                          {false, false, "plain"},
		`"""a`:                           {true, false, `"""a`},
		"\"\"\"a\nb\"\"\"":               {false, false, "a\nb"},
		"  \"\"\"\na\n\nb\n\"\"\" \n":    {false, false, "a\n\nb"},
		`""""""`:                         {false, false, ""},
		`say """a`:                       {false, false, `say """a`},
		`"""a""" b`:                      {false, false, `"""a""" b`},
		`/set system """a`:               {true, true, `/set system """a`},
		"/set system \"\"\"a\nb\"\"\"":   {false, true, "/set system \"\"\"a\nb\"\"\""},
		"/usr/bin/x\nis a file":          {false, false, "/usr/bin/x\nis a file"},
		"/usr/bin/x\nprints \"\"\" once": {false, false, "/usr/bin/x\nprints \"\"\" once"},
		" /not a command":                {false, false, " /not a command"},
	} {
		if unfinished(s) != want.unfinished || isCommand(s) != want.command || unquote(s) != want.says {
			t.Errorf("%q: unfinished %v, command %v, says %q; want %+v", s, unfinished(s), isCommand(s), unquote(s), want)
		}
	}
}
