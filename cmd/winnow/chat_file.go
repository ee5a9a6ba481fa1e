package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/winnow-llm/winnow/serve"
)

// errSaved is wrapped by every refusal of a saved chat.
var errSaved = errors.New("no saved chat")

const (
	savedKind      = "winnow/chat/1"
	savedExtension = ".json"
	mostSavedBytes = 64 << 20
)

// savedChat is a conversation in a file.
//
// Layout: one JSON object. Parameters are as /set parameter takes them; turns are of the user and the assistant in turn.
type savedChat struct {
	Kind       string            `json:"kind"`
	Model      string            `json:"model"`
	System     string            `json:"system,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"`
	Turns      []turn            `json:"turns"`
}

// chatPath is the file that a user names for a chat, with a leading ~ as the user's home.
func chatPath(name string) (string, error) {
	if !strings.EqualFold(filepath.Ext(name), savedExtension) {
		return "", fmt.Errorf("a chat is saved to a file that ends in .json, such as %s; winnow create makes models", filepath.Join(".", filepath.Base(name)+savedExtension))
	}
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		return filepath.Join(home, rest), nil
	}
	return name, nil
}

// save writes the conversation to a file that its owner alone may read. It replaces a chat that was saved before, and no other file.
func (c *conversation) save(path string) error {
	if _, err := readChat(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("not overwritten: %w", err)
	}
	s := savedChat{Kind: savedKind, Model: c.model.Name(), System: c.system, Parameters: map[string]string{}, Turns: c.turns}
	for _, p := range parameters {
		if wish := p.wish(&c.generation); wish != "" {
			s.Parameters[p.name] = wish
		}
	}
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".winnow-chat-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(raw, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// restore replaces the conversation by a saved one. The model stays.
func (c *conversation) restore(s *savedChat) error {
	g, err := s.generation()
	if err != nil {
		return err
	}
	c.system, c.turns, c.generation, c.last = s.System, s.Turns, g, nil
	return nil
}

// readChat reads a saved chat and checks all of it.
func readChat(path string) (*savedChat, error) {
	raw, err := readPlain(path, mostSavedBytes)
	if err != nil {
		return nil, err
	}
	s, err := parseChat(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// readPlain reads a file that must be a plain one of a bounded size.
func readPlain(path string, most int64) ([]byte, error) {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no plain file", path)
	case st.Size() > most:
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", path, st.Size(), most)
	}
	return os.ReadFile(path)
}

func parseChat(raw []byte) (*savedChat, error) {
	var s savedChat
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", errSaved, err)
	}
	if s.Kind != savedKind {
		return nil, fmt.Errorf("%w: its kind is %.40q, want %q", errSaved, s.Kind, savedKind)
	}
	for i, t := range s.Turns {
		if want := []string{"user", "assistant"}[i%2]; t.Role != want {
			return nil, fmt.Errorf("%w: turn %d is of %.40q, want %q", errSaved, i, t.Role, want)
		}
	}
	if len(s.Turns)%2 != 0 {
		return nil, fmt.Errorf("%w: the last turn has no answer", errSaved)
	}
	_, err := s.generation()
	return &s, err
}

// generation are the saved parameters.
func (s *savedChat) generation() (g serve.Generation, err error) {
	for name, value := range s.Parameters {
		values, err := words(value)
		if err == nil {
			err = setParameter(&g, name, values)
		}
		if err != nil {
			return g, fmt.Errorf("%w: parameters: %w", errSaved, err)
		}
	}
	return g, nil
}
