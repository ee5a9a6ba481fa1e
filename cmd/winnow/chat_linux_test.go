package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// seat is a terminal with a user before it.
type seat struct {
	t      *testing.T
	user   *os.File // what the user types goes in, what the user sees comes out
	tty    *os.File
	mu     sync.Mutex
	seen   strings.Builder
	told   int // bytes of seen that were waited for
	result chan error
}

// sit runs a command line on a terminal of 100 by 30.
func sit(t *testing.T, args ...string) *seat {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here:", err)
	}
	t.Cleanup(func() { user.Close() })
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here:", err)
	}
	t.Cleanup(func() { tty.Close() })
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 100, Row: 30}); err != nil {
		t.Fatal(err)
	}
	s := &seat{t: t, user: user, tty: tty, result: make(chan error, 1)}
	go s.watch()
	c := root()
	c.SetArgs(args)
	c.SetIn(tty)
	c.SetOut(tty)
	c.SetErr(tty)
	go func() { s.result <- c.ExecuteContext(t.Context()) }()
	return s
}

func (s *seat) watch() {
	b := make([]byte, 4096)
	for {
		n, err := s.user.Read(b)
		s.mu.Lock()
		s.seen.Write(b[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// all is what the terminal was given so far.
func (s *seat) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// sees waits for a text behind those seen before.
func (s *seat) sees(want string) {
	s.t.Helper()
	for range 1000 {
		if at := strings.Index(s.all()[s.told:], want); at >= 0 {
			s.told += at + len(want)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Fatalf("no %q in %q", want, s.all()[s.told:])
}

func (s *seat) types(keys string) {
	s.t.Helper()
	if _, err := s.user.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// leaves waits for the end, which must be clean, and looks at what it leaves of the terminal.
func (s *seat) leaves() {
	s.t.Helper()
	select {
	case err := <-s.result:
		if err != nil {
			s.t.Error(err)
		}
	case <-time.After(20 * time.Second):
		s.t.Fatalf("still there: %q", s.all()[s.told:])
	}
	state, err := unix.IoctlGetTermios(int(s.tty.Fd()), unix.TCGETS)
	if err != nil || state.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != unix.ICANON|unix.ECHO|unix.ISIG {
		s.t.Errorf("the terminal is left raw: %+v %v", state, err)
	}
	if on := strings.Count(s.all(), "\x1b[?2004h"); on > 0 {
		s.told = 0
		for range on {
			s.sees("\x1b[?2004l") // as often off as on
		}
	}
}

func TestChatOnATerminal(t *testing.T) {
	dir := alone(t)
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	s := sit(t, "run", "demo", "--temperature", "0", "--max-tokens", "12")
	s.sees(">>> ")
	s.types("Tell me a stro\x7f\x7fory\r")
	s.sees("Tell me a story")
	s.sees("\n")
	s.sees(">>> ")
	s.types("/receipt\r")
	s.sees("12 tokens, ended by max_tokens")
	s.types("\x1b[200~two\rlines\x1b[201~\r")
	s.sees("... lines")
	s.types("/undo\r")
	s.sees(`forgot "two..." and its answer`)
	s.types("/set parameter max_tokens 0\r" + strings.Repeat(upArrow, 6) + "\r\x03") // the first message; one of two lines takes two
	s.sees("Tell me a story")
	s.sees("(stopped)")
	s.types("gone\x03\x03")
	s.sees("Ctrl-C again")
	s.types("\x03")
	s.leaves()
	raw, err := os.ReadFile(filepath.Join(dir, "state", "winnow", "history"))
	if err != nil || !strings.HasPrefix(string(raw), "\"Tell me a story\"\n\"/receipt\"\n\"two\\nlines\"\n") {
		t.Errorf("history %q %v", raw, err)
	}
}

func TestChatWithoutEscapeCodes(t *testing.T) {
	alone(t)
	t.Setenv("TERM", "dumb")
	s := sit(t, "run", "demo", "--temperature", "0", "--max-tokens", "4", "--nohistory")
	s.sees(">>> ")
	s.types("Tell me a story\n")
	s.sees("\n")
	s.sees(">>> ")
	s.types("\"\"\"\nand then?\"\"\"\n")
	s.sees("... ")
	s.sees(">>> ")
	s.types("\x04")
	s.leaves()
	if strings.Contains(s.all(), "\x1b") {
		t.Errorf("escape codes in %q", s.all())
	}
	if _, err := os.Stat("state"); err == nil {
		t.Error("something was remembered")
	}
}

func TestChatEndsAtSIGTERM(t *testing.T) {
	alone(t)
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	s := sit(t, "run", "demo")
	s.sees(">>> ")
	s.types("unfinished")
	s.sees("unfinished")
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.leaves()
	if strings.Contains(s.all(), "\x1b[2m") {
		t.Errorf("colours in %q", s.all())
	}
}
