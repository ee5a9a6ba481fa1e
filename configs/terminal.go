package configs

import (
	"os"
	"path/filepath"
)

// Screen is what the environment says of the terminal that a user sits at.
type Screen struct {
	Codes bool // it understands escape codes: TERM names something, and not "dumb"
	Color bool // and colours are welcome: NO_COLOR is unset or empty
}

// ReadScreen reads TERM and NO_COLOR.
func ReadScreen() Screen { return readScreen(os.Environ()) }

func readScreen(environ []string) Screen {
	kind, _ := lookup(environ, "TERM")
	plain, _ := lookup(environ, "NO_COLOR")
	codes := kind != "" && kind != "dumb"
	return Screen{Codes: codes, Color: codes && plain == ""}
}

// StateFile is where a file of that name is kept between runs: below XDG_STATE_HOME, or ~/.local/state where it is not an absolute path.
// "" without a home.
func StateFile(name string) string { return stateFile(os.Environ(), name) }

func stateFile(environ []string, name string) string {
	if dir, _ := lookup(environ, "XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "winnow", name)
	}
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return ""
	}
	return filepath.Join(home, ".local", "state", "winnow", name)
}
