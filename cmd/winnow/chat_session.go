package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/serve"
)

// session is a chat on a terminal.
type session struct {
	conversation
	machine *machine
	asked   string // MODEL, as the user named it
	history *history
	console *console
	color   bool
	waits   bool // the terminal shows that something takes its time
}

// open loads MODEL.
func (s *session) open(name string) (err error) {
	defer s.wait("loading " + name + ", ")()
	began := time.Now()
	s.model, err = s.machine.serve(name)
	s.loaded = time.Since(began)
	return err
}

// greet says what there is to know of a model before the first message.
func (s *session) greet() {
	if s.model.Name() == demo.Name {
		fmt.Fprintln(s.notes, "The built-in demo tells simple stories and knows nothing else.")
	}
	if source, err := s.model.Template(); err == nil && source == "" {
		fmt.Fprintln(s.notes, "This model has no chat template: it continues each message as a text of its own.")
	}
}

// chat reads messages and answers them until the user leaves. Errors of single answers are shown and do not end it.
func (s *session) chat(ctx context.Context) error {
	s.greet()
	fmt.Fprintln(s.notes, "/? for help, /bye to end")
	again := false // Ctrl-C was typed at an empty prompt
	for {
		said, err := s.console.message(ctx)
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, errInterrupted) && again:
			return nil
		case errors.Is(err, errInterrupted):
			fmt.Fprintln(s.notes, "Ctrl-C again, Ctrl-D or /bye to end")
		case errors.Is(err, errDropped):
		case err != nil:
			return fmt.Errorf("read from the terminal: %w", err)
		}
		if again = errors.Is(err, errInterrupted); err != nil {
			continue
		}
		switch err := s.take(ctx, said); {
		case errors.Is(err, errBye) || ctx.Err() != nil:
			return nil
		case s.model == nil:
			return err
		case err != nil:
			fmt.Fprintln(s.notes, "winnow:", err)
		}
	}
}

// take does a command or answers a message.
func (s *session) take(ctx context.Context, said string) error {
	if strings.TrimSpace(said) == "" {
		return nil
	}
	if err := s.history.add(said); err != nil {
		s.history.path = "" // said once
		fmt.Fprintf(s.notes, "winnow: what is typed is not kept after this session: %v\n", err)
	}
	if isCommand(said) {
		return s.command(ctx, said)
	}
	return s.ask(ctx, unquote(said))
}

// ask answers until the end or until Ctrl-C.
func (s *session) ask(ctx context.Context, said string) error {
	answer, stop := s.console.during(ctx)
	err := s.respond(answer, said)
	stop()
	var full *serve.ContextError
	switch {
	case errors.Is(err, errInterrupted):
		fmt.Fprintln(s.notes, s.dim("(stopped)"))
		return nil
	case errors.As(err, &full):
		return fmt.Errorf("the conversation has %d tokens, the context holds %d: /undo or /clear makes room", full.Prompt, full.Context)
	case ctx.Err() != nil:
		return nil
	}
	return err
}

func (s *session) dim(text string) string {
	if !s.color {
		return text
	}
	return dim + text + undim
}

// terminalOf is the file of a stream where it is a terminal, else nil.
func terminalOf(stream any) *os.File {
	if f, ok := stream.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// sizeOf is a terminal's size, 80 by 24 where it does not say.
func sizeOf(f *os.File) (columns, rows int) {
	columns, rows, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 || rows <= 0 {
		return 80, 24
	}
	return columns, rows
}

// converse chats on the terminal in, until the user leaves, the terminal is gone, or SIGTERM comes.
func (s *session) converse(ctx context.Context, in *os.File, out io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	look := configs.ReadScreen()
	var e *editor
	prompts := s.notes
	if f := terminalOf(out); f != nil {
		prompts = f
		if look.Codes {
			e = &editor{history: s.history, screen: screen{out: f, size: func() (int, int) { return sizeOf(f) }}}
			s.page.out = crlf{f}
			if s.color = look.Color; s.color {
				e.screen.hint = "Send a message (/? for help)"
			}
		}
	}
	if s.console, err = openConsole(ctx, in, prompts, e); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.console.close()) }()
	if e != nil && terminalOf(s.notes) != nil {
		s.notes = crlf{s.notes}
	}
	return s.chat(ctx)
}
