package configs

import (
	"path/filepath"
	"testing"
)

func TestReadScreen(t *testing.T) {
	for _, c := range []struct {
		environ []string
		want    Screen
	}{
		{nil, Screen{}},
		{[]string{"TERM=dumb"}, Screen{}},
		{[]string{"TERM=xterm"}, Screen{Codes: true, Color: true}},
		{[]string{"TERM=xterm", "NO_COLOR="}, Screen{Codes: true, Color: true}},
		{[]string{"TERM=xterm", "NO_COLOR=1"}, Screen{Codes: true}},
		{[]string{"TERM=dumb", "NO_COLOR=1"}, Screen{}},
	} {
		if got := readScreen(c.environ); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.environ, got, c.want)
		}
	}
}

func TestStateFile(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	inHome := filepath.Join(home, ".local", "state", "winnow", "history")
	for dir, want := range map[string]string{"": inHome, "relative": inHome, "/var/state": "/var/state/winnow/history"} {
		if got := stateFile([]string{"XDG_STATE_HOME=" + dir}, "history"); got != want {
			t.Errorf("XDG_STATE_HOME=%s: %s, want %s", dir, got, want)
		}
	}
}
