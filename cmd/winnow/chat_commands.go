package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// errBye ends a session.
var errBye = errors.New("bye")

// command is a line that the session does and the model never sees.
type command struct {
	names string // the first is the one to know
	takes string
	does  string
	run   func(s *session, ctx context.Context, arg string) error
}

// commands are all there are, in the order of the help.
func commands() []command {
	return []command{
		{"/set", "...", "change how answers are made: /? set", func(s *session, _ context.Context, arg string) error { return s.set(arg) }},
		{"/show", "...", "print what is known of the model: /? show", func(s *session, _ context.Context, arg string) error { return s.show(arg) }},
		{"/load", "MODEL|FILE", "go on with another model, or with a saved chat", func(s *session, _ context.Context, arg string) error { return s.load(arg) }},
		{"/save", "FILE", "save the chat to a file that ends in .json", func(s *session, _ context.Context, arg string) error { return s.store(arg) }},
		{"/retry", "", "answer the last message again", func(s *session, ctx context.Context, _ string) error { return s.retry(ctx) }},
		{"/undo", "", "forget the last message and its answer", func(s *session, _ context.Context, _ string) error {
			said, err := s.undo()
			if err == nil {
				fmt.Fprintf(s.notes, "forgot %q and its answer\n", excerpt(said))
			}
			return err
		}},
		{"/clear", "", "forget the conversation", func(s *session, _ context.Context, _ string) error {
			s.clear()
			fmt.Fprintln(s.notes, "the conversation begins anew")
			return nil
		}},
		{"/receipt", "", "what the last answer was made of", (*session).showReceipt},
		{"/bye /exit", "", "end the chat, as Ctrl-D does", func(*session, context.Context, string) error { return errBye }},
		{"/? /help", "[TOPIC]", "this help; topics are shortcuts, set and show", func(s *session, _ context.Context, arg string) error { return s.help(arg) }},
	}
}

// command does what a line that begins with a slash says.
func (s *session) command(ctx context.Context, line string) error {
	name, arg := cutSpace(line)
	for _, c := range commands() {
		for known := range strings.FieldsSeq(c.names) {
			if known != name {
				continue
			}
			if c.takes == "" && arg != "" {
				return fmt.Errorf("%s takes nothing", name)
			}
			return c.run(s, ctx, arg)
		}
	}
	return fmt.Errorf("there is no command %s: /? shows all; a message that begins with a slash is typed with a space before it", printable(excerpt(name)))
}

// excerpt is the beginning of a text, for one line.
func excerpt(s string) string {
	line, _, cut := strings.Cut(strings.TrimSpace(s), "\n")
	if r := []rune(line); len(r) > 40 {
		line, cut = string(r[:40]), true
	}
	if cut {
		line += "..."
	}
	return line
}

const shortcuts = `Enter            send the message
Alt-Enter        begin another line, as a backslash before Enter does
"""              begin and end a message of several lines
Up, Down         another line, then messages typed before; also Ctrl-P, Ctrl-N
Left, Right      a character; with Ctrl or Alt, or as Alt-B and Alt-F, a word
Ctrl-A, Ctrl-E   beginning and end of the line; also Home, End
Ctrl-W, Alt-D    delete the word before, behind
Ctrl-U, Ctrl-K   delete to the beginning, to the end of the line
Ctrl-Y           insert what was deleted last
Ctrl-T           swap two characters
Ctrl-L           clear the screen
Ctrl-C           stop an answer; drop the message being typed; twice with nothing typed: leave
Ctrl-D           leave, with nothing typed; or delete a character
`

func (s *session) help(arg string) error {
	w := tabwriter.NewWriter(s.notes, 0, 0, 2, ' ', 0)
	switch arg {
	case "":
		for _, c := range commands() {
			fmt.Fprintf(w, "%s\t%s\n", strings.TrimSpace(strings.ReplaceAll(c.names, " ", ", ")+" "+c.takes), c.does)
		}
		fmt.Fprintf(w, "\"\"\"\tbegins and ends a message of several lines\n")
	case "shortcuts":
		fmt.Fprint(w, shortcuts)
	case "set", "/set":
		for _, v := range sets {
			fmt.Fprintf(w, "/set %s\t%s\n", strings.TrimSpace(v.names+" "+v.takes), v.does)
		}
		for _, p := range parameters {
			fmt.Fprintf(w, "  parameter %s\t%s\n", p.name, p.means)
		}
	case "show", "/show":
		for _, v := range shows {
			fmt.Fprintf(w, "/show %s\t%s\n", v.name, v.does)
		}
	default:
		return fmt.Errorf("/? takes shortcuts, set or show")
	}
	return w.Flush()
}

func (s *session) retry(ctx context.Context) error {
	said, err := s.undo()
	if err != nil {
		return err
	}
	return s.ask(ctx, said)
}

func (s *session) showReceipt(_ context.Context, _ string) error {
	if s.last == nil {
		return fmt.Errorf("there is no answer yet")
	}
	return s.last.print(s.notes, s.model)
}

func (s *session) store(arg string) error {
	if arg == "" {
		return fmt.Errorf("/save takes the name of a file")
	}
	path, err := chatPath(arg)
	if err == nil {
		err = s.save(path)
	}
	if err == nil {
		fmt.Fprintf(s.notes, "saved %d messages to %s\n", len(s.turns), path)
	}
	return err
}

// load takes a saved chat where the name is that of a file of one, else another model.
func (s *session) load(arg string) error {
	if arg == "" {
		return fmt.Errorf("/load takes a model or a saved chat")
	}
	if !strings.EqualFold(filepath.Ext(arg), savedExtension) {
		return s.change(arg)
	}
	path, err := chatPath(arg)
	if err != nil {
		return err
	}
	saved, err := readChat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, os.ErrNotExist)
	}
	if err == nil {
		err = s.restore(saved)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(s.notes, "%d messages are back", len(s.turns))
	if saved.Model != s.model.Name() {
		fmt.Fprintf(s.notes, "; they were with %s, and go on with %s", printable(excerpt(saved.Model)), s.model.Name())
	}
	fmt.Fprintln(s.notes)
	return nil
}

// change goes on with another model. The one before is closed first, since two may not fit; it comes back where the other cannot be
// loaded.
func (s *session) change(name string) error {
	c, err := openCheckpoint(s.machine.config.Models, name)
	if err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return err
	}
	if err := s.model.Close(); err != nil {
		return err
	}
	s.model = nil
	failed := s.open(name)
	if failed != nil {
		return errors.Join(failed, s.open(s.asked))
	}
	s.asked = name
	s.clear()
	s.greet()
	return nil
}
