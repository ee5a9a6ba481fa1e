package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"
)

// console is where messages are typed: with an editor of our own, or, where escape codes are not understood, a line at a time as the
// terminal edits it.
type console struct {
	out        io.Writer // prompts
	typed      chan []byte
	ended      bool // nothing more will be typed
	interrupts chan os.Signal
	editor     *editor // nil = lines
	ahead      []byte  // without an editor: typed and not yet taken
	restore    func() error
}

// openConsole reads from in until ctx ends. With an editor, in must be a terminal; it is in raw mode until close.
func openConsole(ctx context.Context, in *os.File, out io.Writer, e *editor) (*console, error) {
	c := &console{out: out, typed: make(chan []byte), interrupts: make(chan os.Signal, 1), editor: e}
	c.restore = func() error { return nil }
	if e != nil {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, err
		}
		c.restore = func() error { return term.Restore(int(in.Fd()), before) }
	}
	signal.Notify(c.interrupts, os.Interrupt)
	go read(ctx, in, c.typed)
	return c, nil
}

// read passes on what comes in, and closes the channel at its end. A terminal that is gone is an end.
func read(ctx context.Context, in io.Reader, typed chan<- []byte) {
	defer close(typed)
	for {
		b := make([]byte, 4096)
		n, err := in.Read(b)
		if n > 0 {
			select {
			case typed <- b[:n]:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// close leaves the terminal as it was.
func (c *console) close() error {
	signal.Stop(c.interrupts)
	return c.restore()
}

// message is what is typed next. The errors that end it are errDropped, errInterrupted, io.EOF and those of writing.
func (c *console) message(ctx context.Context) (string, error) {
	if c.editor == nil {
		return c.lines(ctx)
	}
	return c.edit(ctx)
}

// edit shows the prompt until a message is complete. Bracketed paste is on only there, so that it is never left on.
func (c *console) edit(ctx context.Context) (said string, err error) {
	if _, err := io.WriteString(c.out, "\x1b[?2004h"); err != nil {
		return "", err
	}
	defer func() {
		_, off := io.WriteString(c.out, "\x1b[?2004l")
		err = errors.Join(err, off)
	}()
	e := c.editor
	if err := e.begin(); err != nil {
		return "", err
	}
	resize := time.NewTicker(200 * time.Millisecond)
	defer resize.Stop()
	for {
		said, complete, err := e.take()
		if complete || err != nil {
			return said, err
		}
		if b, err := c.next(ctx, resize.C); err != nil {
			return "", errors.Join(err, e.screen.leave(&e.line))
		} else {
			e.feed(b)
		}
	}
}

// next waits for what is typed. On every tick it looks whether the screen has another width, and gives nothing then.
func (c *console) next(ctx context.Context, tick <-chan time.Time) ([]byte, error) {
	for !c.ended {
		select {
		case b, ok := <-c.typed:
			if ok {
				return b, nil
			}
			c.ended = true
		case <-c.interrupts:
			if c.editor == nil {
				return nil, errInterrupted
			}
			return []byte{byte(ctrlC)}, nil
		case <-tick:
			if c.editor.screen.resized() {
				return nil, nil
			}
		case <-ctx.Done():
			return nil, io.EOF
		}
	}
	return nil, io.EOF
}

// lines collects lines until a message is complete.
func (c *console) lines(ctx context.Context) (string, error) {
	said, prompt := "", firstPrompt
	for {
		if _, err := io.WriteString(c.out, prompt); err != nil {
			return "", err
		}
		line, err := c.line(ctx)
		if errors.Is(err, errInterrupted) {
			if _, failed := io.WriteString(c.out, "\n"); failed != nil {
				err = failed
			} else if said != "" {
				err = errDropped
			}
		}
		switch said += line; {
		case err != nil:
			return "", err
		case strings.HasSuffix(said, "\\"):
			said = strings.TrimSuffix(said, "\\") + "\n"
		case unfinished(said):
			said += "\n"
		default:
			return said, nil
		}
		prompt = nextPrompt
	}
}

// line is the next line; the last one need not end.
func (c *console) line(ctx context.Context) (string, error) {
	for {
		if line, rest, ok := bytes.Cut(c.ahead, []byte("\n")); ok {
			c.ahead = rest
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		b, err := c.next(ctx, nil)
		if errors.Is(err, io.EOF) && len(c.ahead) > 0 {
			b, err = []byte("\n"), nil
		}
		if errors.Is(err, errInterrupted) {
			c.ahead = nil
		}
		if err != nil {
			return "", err
		}
		c.ahead = append(c.ahead, b...)
	}
}

// during is for an answer: the context it gives ends at Ctrl-C, and what else is typed is kept for the next message. Its stop must be
// called before the next message is read.
func (c *console) during(ctx context.Context) (answer context.Context, stop func()) {
	answer, cancel := context.WithCancelCause(ctx)
	over, left := make(chan struct{}), make(chan struct{})
	ahead := &c.ahead
	if c.editor != nil {
		ahead = &c.editor.typed
	}
	keep := func(b []byte) {
		if at := bytes.LastIndexByte(b, byte(ctrlC)); at >= 0 && c.editor != nil {
			cancel(errInterrupted)
			b, *ahead = b[at+1:], nil
		}
		*ahead = append(*ahead, b[:min(len(b), max(0, mostAhead-len(*ahead)))]...)
	}
	typed, before := c.typed, *ahead
	*ahead = nil
	keep(before)
	if c.ended {
		typed = nil
	}
	go func() {
		defer close(left)
		for {
			select {
			case <-over:
				return
			case <-c.interrupts:
				cancel(errInterrupted)
			case b, ok := <-typed:
				if !ok {
					c.ended, typed = true, nil
				}
				keep(b)
			}
		}
	}()
	return answer, func() {
		close(over)
		<-left
		cancel(nil)
	}
}

const quotes = `"""`

// quoted splits a text that is written between three quotes, or a command whose words are, at the opening quotes.
func quoted(s string) (before, rest string, ok bool) {
	before, rest, ok = strings.Cut(s, quotes)
	bare := strings.TrimSpace(before) == ""
	return before, rest, ok && (bare || strings.HasPrefix(before, "/") && !strings.Contains(before, "\n"))
}

// unfinished says whether a text opens three quotes that nothing closes.
func unfinished(s string) bool {
	_, rest, ok := quoted(s)
	return ok && !strings.Contains(rest, quotes)
}

// unquote is what a text says: what is between three quotes, without the line breaks beside them, or else the text itself.
func unquote(s string) string {
	before, rest, ok := quoted(s)
	inner, closed := strings.CutSuffix(strings.TrimRight(rest, " \t\r\n"), quotes)
	if !ok || !closed || strings.TrimSpace(before) != "" {
		return s
	}
	return strings.TrimSuffix(strings.TrimPrefix(inner, "\n"), "\n")
}

// isCommand tells commands from messages: one line that begins with a slash. Three quotes may add lines.
func isCommand(s string) bool {
	before, _, _ := strings.Cut(s, quotes)
	return strings.HasPrefix(s, "/") && !strings.Contains(before, "\n")
}

// crlf writes for a terminal in raw mode, where a line break does not return to the first column.
type crlf struct{ io.Writer }

func (w crlf) Write(p []byte) (int, error) {
	if !slices.Contains(p, '\n') {
		return w.Writer.Write(p)
	}
	if _, err := w.Writer.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}
