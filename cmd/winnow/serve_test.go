package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/serve"
)

// serving starts a server and gives its address. What it returns stops it and gives its error.
func serving(t *testing.T, args ...string) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, printed := io.Pipe()
	c := root()
	c.SetArgs(append([]string{"serve", "--addr", "127.0.0.1:0", "--log", "error"}, args...))
	c.SetOut(printed)
	done := make(chan error, 1)
	go func() {
		err := c.ExecuteContext(ctx)
		printed.CloseWithError(io.EOF)
		done <- err
	}()
	stop = func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			t.Error("the server does not stop")
			return nil
		}
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server said %q and ended: %v", line, stop())
	}
	return strings.TrimSpace(strings.TrimPrefix(line, "winnow serves on ")), stop
}

// ask posts a chat and gives the status and the answer.
func ask(t *testing.T, url, model string) (int, string) {
	t.Helper()
	body := `{"model":"` + model + `","max_tokens":4,"temperature":0,"messages":[{"role":"user","content":"Tell me a story."}]}`
	resp, err := http.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// served lists the names of the models.
func served(t *testing.T, url string) (names []string) {
	t.Helper()
	resp, err := http.Get(url + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Data []struct{ ID string } }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Data {
		names = append(names, m.ID)
	}
	return names
}

func TestServeWithAnEmptyStoreServesTheDemo(t *testing.T) {
	alone(t)
	url, stop := serving(t)
	if got := served(t, url); len(got) != 1 || got[0] != "demo" {
		t.Errorf("served %v", got)
	}
	if status, body := ask(t, url, "demo"); status != http.StatusOK || !strings.Contains(body, `"finish_reason":"length"`) {
		t.Errorf("%d %s", status, body)
	}
	if out := must(t, "", "version", "--server", "--addr", strings.TrimPrefix(url, "http://")); !strings.Contains(out, version) {
		t.Errorf("the server says %q", out)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestServeSeveralModels(t *testing.T) {
	dir := alone(t)
	if err := os.MkdirAll(filepath.Join(dir, "store"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"store/mine.gguf", "other.gguf"} {
		if err := os.WriteFile(name, demo.GGUF, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("store/broken.gguf", demo.GGUF[:5000], 0o644); err != nil {
		t.Fatal(err)
	}
	url, stop := serving(t, "demo", "mine", "./other.gguf")
	if got := strings.Join(served(t, url), " "); got != "demo mine other" {
		t.Errorf("served %s", got)
	}
	_, first := ask(t, url, "demo")
	for _, name := range []string{"mine", "other"} {
		status, body := ask(t, url, name)
		if _, text, _ := strings.Cut(body, `"message"`); status != http.StatusOK || !strings.Contains(first, text[:20]) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if status, _ := ask(t, url, "nobody"); status != http.StatusNotFound {
		t.Errorf("an unknown model: %d", status)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestServeWithoutNamesServesTheStore(t *testing.T) {
	dir := alone(t)
	if err := os.MkdirAll(filepath.Join(dir, "store"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("store/mine.gguf", demo.GGUF, 0o644); err != nil {
		t.Fatal(err)
	}
	url, stop := serving(t)
	if got := served(t, url); len(got) != 1 || !strings.HasPrefix(got[0], "mine") {
		t.Errorf("served %v", got)
	}
	if status, body := ask(t, url, "mine"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Named models that have no room beside each other come and go; pinned ones stay, and what has no room beside them is refused.
func TestServeKeepsWhatFits(t *testing.T) {
	alone(t)
	if err := os.WriteFile("other.gguf", demo.GGUF, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args  []string
		other int
	}{
		{[]string{"--memory", "200MB", "demo", "./other.gguf"}, http.StatusOK},
		{[]string{"--max-loaded", "1", "demo", "./other.gguf"}, http.StatusOK},
		{[]string{"--max-loaded", "1", "--pinned", "demo", "demo", "./other.gguf"}, http.StatusBadRequest},
	} {
		url, stop := serving(t, c.args...)
		for range 2 {
			for name, want := range map[string]int{"demo": http.StatusOK, "other": c.other} {
				if status, body := ask(t, url, name); status != want {
					t.Errorf("%v: %s: %d %s", c.args, name, status, body)
				}
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// A file whose description is right and whose weights cannot be loaded ends the server that was asked for it by name.
func TestServeEndsWhenANamedModelCannotBeLoaded(t *testing.T) {
	alone(t)
	_, stop := serving(t, "demo", "--context", "1000000")
	time.Sleep(100 * time.Millisecond)
	if err := stop(); err == nil || !strings.Contains(err.Error(), "1000000") {
		t.Errorf("got %v", err)
	}
}

// A server that is stopped just when a model of its own is there leaves it, so that its pool can close.
func TestPreloadLeavesWhatItWasStoppedAt(t *testing.T) {
	alone(t)
	m, err := openMachine(configs.Default(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.source(demo.Name)
	if err != nil {
		t.Fatal(err)
	}
	pool := serve.NewPool(m.poolOptions(serve.Sources{s}))
	lease, err := pool.Acquire(t.Context(), demo.Name)
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := preload(stopped, pool, []string{demo.Name}, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(pool.Close(), m.Close()); err != nil { // which waits for leases
		t.Error(err)
	}
}

// Models of the command line come first, whoever brings them.
func TestRanked(t *testing.T) {
	of := serve.NewLibrary(serve.LibraryOptions{Named: serve.Sources{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}})
	r := ranked{of, []string{"d", "b"}}
	all, err := r.List()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, s := range all {
		got += s.Name
	}
	if got != "dbac" {
		t.Errorf("listed %s", got)
	}
	for name, want := range map[string]string{"": "d", "a": "a"} {
		if s, err := r.Find(name); err != nil || s.Name != want {
			t.Errorf("%q is %q, %v", name, s.Name, err)
		}
	}
	if s, err := (ranked{Library: of}).Find(""); err != nil || s.Name != "a" {
		t.Errorf("of the library %q, %v", s.Name, err)
	}
}
