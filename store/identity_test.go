package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A checkpoint has its identity again when it is opened again, and another one after any change of what is said or of a weight, also where the
// change is not among the samples.
func TestIdentityOfCheckpoints(t *testing.T) {
	then, whole := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), good().bytes()
	last := len(whole) - 1
	identity := func(name string, b []byte, at time.Time) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		c, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		id, err := c.Identity()
		if err != nil || len(id) != 64 {
			t.Fatal(id, err)
		}
		return id
	}
	const digest = "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	other := append([]byte(nil), whole...)
	other[last] ^= 1
	said := good()
	said.keys[6].raw = raw(uint32(33))
	base := identity("a.gguf", whole, then)
	for what, c := range map[string]struct {
		id   string
		same bool
	}{
		"again, elsewhere": {identity("b.gguf", whole, then), true},
		"another weight":   {identity("a.gguf", other, then), false},
		"another time":     {identity("a.gguf", whole, then.Add(time.Second)), false},
		"by digest":        {identity(digest, whole, then), false},
	} {
		if (c.id == base) != c.same {
			t.Errorf("%s: the same identity: %v", what, c.id == base)
		}
	}
	if identity(digest, whole, then) != identity(digest, whole, then.Add(time.Hour)) {
		t.Error("the time of a file counts whose name is its digest")
	}
	memory := func(b []byte) string {
		t.Helper()
		c, err := OpenBytes("mem", b)
		if err != nil {
			t.Fatal(err)
		}
		id, err := c.Identity()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if again := memory(whole); again != memory(whole) || again == memory(other) {
		t.Error("a checkpoint in memory is not known by its bytes")
	}
	if memory(whole) == memory(said.bytes()) {
		t.Error("what is said of a checkpoint does not count")
	}
}
