package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/winnow-llm/winnow/httpapi"
)

func TestKeyVerb(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	ann := strings.TrimSpace(must(t, "", "key", "ann", "--keys", path))
	if err := os.WriteFile(path, []byte("# the first\n"+strings.TrimSuffix(contents(t, path), "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	bob := strings.TrimSpace(must(t, "", "key", "bob", "--keys", path)) // behind a line that an editor left open
	keys, err := httpapi.OpenKeys(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{ann: "ann", bob: "bob"} {
		if name, ok := keys.Holder(key); !ok || name != want {
			t.Errorf("%q, %v, want %q", name, ok, want)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if strings.Contains(contents(t, path), ann) {
		t.Error("the file holds the key itself")
	}
}

func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
