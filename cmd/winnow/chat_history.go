package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Bounds of the history.
const (
	mostRemembered   = 1000    // messages
	longestRemember  = 1 << 16 // bytes of one
	mostHistoryBytes = 8 << 20 // of the file that are read
)

// history is what was typed before, in this session and, where it has a file, in others.
//
// Layout: the file is a JSON string a line, oldest first. Lines that are none are passed over.
type history struct {
	path    string // "" = kept in memory alone
	off     bool   // nothing new is remembered
	entries []string
	lines   int // of the file
}

// openHistory reads a file that need not be there yet. The history is usable after an error, without its file.
func openHistory(path string) (*history, error) {
	h := &history{}
	if path == "" {
		return h, nil
	}
	raw, err := readPlain(path, mostHistoryBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	for line := range bytes.Lines(raw) {
		var s string
		if h.lines++; json.Unmarshal(line, &s) == nil {
			h.keep(s)
		}
	}
	h.path = path
	return h, nil
}

// keep remembers a message in memory, once where it is repeated at once.
func (h *history) keep(s string) bool {
	if s == "" || len(h.entries) > 0 && h.entries[len(h.entries)-1] == s {
		return false
	}
	h.entries = append(h.entries, s)
	if over := len(h.entries) - mostRemembered; over > 0 {
		h.entries = slices.Delete(h.entries, 0, over)
	}
	return true
}

// add remembers a message, and keeps the file short.
func (h *history) add(s string) error {
	if h.off || len(s) > longestRemember || !h.keep(s) || h.path == "" {
		return nil
	}
	if h.lines++; h.lines > 2*mostRemembered {
		return h.rewrite()
	}
	return h.write(os.O_APPEND, s)
}

// rewrite leaves only what is remembered in the file.
func (h *history) rewrite() error {
	h.lines = len(h.entries)
	return h.write(os.O_TRUNC, h.entries...)
}

// write puts messages into the file, which its owner alone may read.
func (h *history) write(how int, entries ...string) error {
	if err := os.MkdirAll(filepath.Dir(h.path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(h.path, os.O_CREATE|os.O_WRONLY|how, 0o600)
	if err != nil {
		return err
	}
	var lines []byte
	for _, s := range entries {
		b, err := json.Marshal(s)
		if err != nil {
			return errors.Join(err, f.Close())
		}
		lines = append(append(lines, b...), '\n')
	}
	_, err = f.Write(lines)
	return errors.Join(f.Chmod(0o600), err, f.Close())
}

func (h *history) len() int { return len(h.entries) }

// ago is the message that was typed so many messages ago; 1 = the last.
func (h *history) ago(n int) string { return h.entries[len(h.entries)-n] }
