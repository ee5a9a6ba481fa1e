package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ollama/ollama/api"
)

// answering starts a server that answers one route, for clients with a key, and leaves the test alone with its address.
func answering(t *testing.T, route string, answer http.HandlerFunc) {
	t.Helper()
	alone(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Method + " " + r.URL.Path; got != route || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("asked for %s with %v", got, r.Header)
		}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	t.Setenv("WINNOW_ADDR", strings.TrimPrefix(server.URL, "http://"))
	t.Setenv("WINNOW_KEY", "secret")
}

func TestPs(t *testing.T) {
	answering(t, "GET /api/ps", func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(api.ProcessResponse{Models: []api.ProcessModelResponse{
			{Name: "qwen3:8b", Digest: "0123456789abcdef", Size: 7_600_000_000, ContextLength: 8192, ExpiresAt: time.Now().Add(90*time.Minute + 300*time.Millisecond)},
			{Name: "demo", Digest: strings.Repeat("0", 64), Size: 1000, SizeVRAM: 1000, ContextLength: 2048},
			{Name: "half", Size: 1000, SizeVRAM: 520, ExpiresAt: time.Unix(1, 0)},
		}}); err != nil {
			t.Error(err)
		}
	})
	lines := strings.Split(must(t, "", "ps"), "\n")
	for i, want := range []string{
		"NAME ID SIZE PROCESSOR CONTEXT UNTIL", "qwen3:8b 0123456789ab 7.6 GB 100% CPU 8192 in 1h30m0s", "demo - 1.0 kB 100% GPU 2048 Forever",
		"half - 1.0 kB 48%/52% CPU/GPU 0 Stopping...",
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want && !strings.Contains(got, "in 1h2") {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestStop(t *testing.T) {
	status := http.StatusOK
	answering(t, "POST /api/generate", func(w http.ResponseWriter, r *http.Request) {
		var ask struct {
			Model     string
			Stream    *bool
			KeepAlive any `json:"keep_alive"`
		}
		if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || ask.Model != "qwen3" || *ask.Stream || fmt.Sprint(ask.KeepAlive) != "0" && ask.KeepAlive != "0s" {
			t.Errorf("%+v, %v", ask, err)
		}
		w.WriteHeader(status)
		if status == http.StatusOK {
			fmt.Fprintln(w, `{"model":"qwen3","done":true,"done_reason":"unload"}`)
		} else {
			fmt.Fprintln(w, `{"error":"no such model: qwen3"}`)
		}
	})
	if out := must(t, "", "stop", "qwen3"); out != "" {
		t.Errorf("printed %q", out)
	}
	status = http.StatusNotFound
	if _, _, err := winnow(t, "", "stop", "qwen3"); err == nil || !strings.HasSuffix(err.Error(), "no such model: qwen3") {
		t.Errorf("got %v", err)
	}
}

func TestAnotherKey(t *testing.T) {
	refuse := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }
	for route, args := range map[string][]string{"GET /api/ps": {"ps"}, "POST /api/generate": {"stop", "x"}} {
		answering(t, route, refuse)
		if _, _, err := winnow(t, "", args...); err == nil || !strings.Contains(err.Error(), "WINNOW_KEY") {
			t.Errorf("%v: %v", args, err)
		}
	}
	answering(t, "GET /version", refuse)
	if out := must(t, "", "version", "--server"); !strings.Contains(out, "a server answers") { // which is all that a health check wants
		t.Errorf("printed %q", out)
	}
}

// Verbs that ask a server say so when none answers.
func TestNobodyAnswers(t *testing.T) {
	alone(t)
	server := httptest.NewServer(nil)
	server.Close()
	t.Setenv("WINNOW_ADDR", strings.TrimPrefix(server.URL, "http://"))
	for _, args := range [][]string{{"ps"}, {"stop", "demo"}, {"version", "--server"}} {
		if _, _, err := winnow(t, "", args...); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, _, err := winnow(t, "", "ps", "--addr", "nowhere"); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("a bad address: %v", err)
	}
}
