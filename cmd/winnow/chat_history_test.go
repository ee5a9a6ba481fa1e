package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestHistoryComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "history")
	h, err := openHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"one", "two\nlines", "two\nlines", "", strings.Repeat("x", longestRemember+1), "三"} {
		if err := h.add(s); err != nil {
			t.Fatal(err)
		}
	}
	h.off = true
	if err := h.add("secret"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	again, err := openHistory(path)
	if want := []string{"one", "two\nlines", "三"}; err != nil || !slices.Equal(again.entries, want) || again.ago(1) != "三" {
		t.Errorf("%q %v, want %q", again.entries, err, want)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h, err := openHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2*mostRemembered + 5 {
		if err := h.add(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := fmt.Sprint(2*mostRemembered + 4)
	if n := strings.Count(string(raw), "\n"); n > 2*mostRemembered || h.len() != mostRemembered || h.ago(1) != last || !strings.HasSuffix(string(raw), last+"\"\n") {
		t.Errorf("%d lines, %d in memory, the last is %q", n, h.len(), h.ago(1))
	}
}

func TestHistoryOfAnotherKind(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("plain\n\"kept\"\n{\"a\":1}\n\"cut"), 0o644); err != nil {
		t.Fatal(err)
	}
	if h, err := openHistory(broken); err != nil || !slices.Equal(h.entries, []string{"kept"}) {
		t.Errorf("%q %v", h.entries, err)
	}
	if h, err := openHistory(dir); err == nil || h.add("usable") != nil || h.len() != 1 {
		t.Errorf("a directory: %v", err)
	}
}
