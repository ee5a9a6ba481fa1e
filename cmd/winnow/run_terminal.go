package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/term"

	"github.com/winnow-llm/winnow/model/demo"
)

const ctrlC = 3

const chatHelp = `/clear   forget the conversation
/bye     end it, as Ctrl-D does
"""      begin and end a message of several lines
Ctrl-C   stop an answer, or drop the line being typed
`

// errInterrupted says that Ctrl-C was typed at the prompt.
var errInterrupted = errors.New("interrupted")

// converse chats on a terminal until the user ends it. Errors of single answers are shown and do not end it.
func (c *conversation) converse(ctx context.Context, in *os.File) error {
	if ctx == nil {
		ctx = context.Background()
	}
	if c.model.Name() == demo.Name {
		fmt.Fprintln(c.notes, "This is the built-in demo: seven million parameters that tell simple stories and know nothing else.")
	}
	fmt.Fprintln(c.notes, "/? for help, /bye to end")
	t := &terminal{in: in, out: c.out}
	t.renew()
	for {
		said, err := t.message()
		switch {
		case errors.Is(err, errInterrupted):
			fmt.Fprintln(c.notes, "\nCtrl-D or /bye to end")
			continue
		case errors.Is(err, io.EOF):
			fmt.Fprintln(c.notes)
			return nil
		case err != nil:
			return fmt.Errorf("read from the terminal: %w", err)
		}
		switch word := strings.TrimSpace(said); {
		case word == "":
		case word == "/bye":
			return nil
		case word == "/clear":
			c.clear()
		case word == "/?" || word == "/help":
			fmt.Fprint(c.notes, chatHelp)
		default:
			if err := c.interruptibly(ctx, said); err != nil {
				fmt.Fprintln(c.notes, "winnow:", err)
			}
		}
	}
}

// interruptibly answers until the end or until Ctrl-C.
func (c *conversation) interruptibly(ctx context.Context, said string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	err := c.answer(ctx, said)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// terminal reads lines with editing and history. It is in raw mode only while it reads, so that Ctrl-C is a signal at other times.
type terminal struct {
	in      *os.File
	out     io.Writer
	editor  *term.Terminal
	dropped bool // Ctrl-C was typed in the line at hand
}

// Read passes keys on and notes Ctrl-C, which the editor does not tell from Ctrl-D.
func (t *terminal) Read(p []byte) (int, error) {
	n, err := t.in.Read(p)
	t.dropped = t.dropped || strings.IndexByte(string(p[:n]), ctrlC) >= 0
	return n, err
}

func (t *terminal) Write(p []byte) (int, error) { return t.out.Write(p) }

// renew begins with an empty line and keeps the history.
func (t *terminal) renew() {
	editor := term.NewTerminal(t, "")
	if t.editor != nil {
		editor.History = t.editor.History
	}
	t.editor, t.dropped = editor, false
}

// message reads a line, or several between lines that begin and end with three quotes.
func (t *terminal) message() (string, error) {
	const quotes = `"""`
	line, err := t.line(">>> ")
	rest, several := strings.CutPrefix(strings.TrimSpace(line), quotes)
	if err != nil || !several {
		return line, err
	}
	var lines []string
	for {
		if before, ended := strings.CutSuffix(rest, quotes); ended {
			return strings.Join(append(lines, before), "\n"), nil
		}
		lines = append(lines, rest)
		if rest, err = t.line("... "); err != nil {
			return "", err
		}
	}
}

func (t *terminal) line(prompt string) (line string, err error) {
	fd := int(t.in.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, term.Restore(fd, before)) }()
	if width, height, err := term.GetSize(fd); err == nil && width > 0 {
		if err := t.editor.SetSize(width, height); err != nil {
			return "", err
		}
	}
	t.editor.SetPrompt(prompt)
	line, err = t.editor.ReadLine()
	if errors.Is(err, io.EOF) && t.dropped {
		t.renew()
		return "", errInterrupted
	}
	return line, err
}
