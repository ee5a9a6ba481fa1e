package httpapi

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keysOf writes a file of keys and opens it.
func keysOf(t *testing.T, lines ...string) (*Keys, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeys(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return k, path
}

// made is a new key and its line.
func made(t *testing.T, name string) (key, line string) {
	t.Helper()
	key, line, err := NewKey(name)
	if err != nil || len(key) < 40 || strings.Contains(line, key) {
		t.Fatalf("%q, %q, %v", key, line, err)
	}
	return key, line
}

func TestKeysGuardRoutes(t *testing.T) {
	key, line := made(t, "ann")
	other, _ := made(t, "ann")
	keys, _ := keysOf(t, "# who may call\n\n", line)
	r := start(t, Options{Keys: keys})
	body := `{"model":"demo-moe","max_tokens":1,` + hello + `}`
	for _, c := range []struct {
		method, path string
		header       []string
		status       int
	}{
		{"GET", "/health", nil, 200}, {"GET", "/v1/models", nil, 200}, {"GET", "/models", nil, 200},
		{"GET", "/v1/models/demo-moe", nil, 401}, {"GET", "/metrics", nil, 401}, {"GET", "/ready", nil, 401}, {"GET", "/version", nil, 401},
		{"GET", "/nowhere", nil, 401}, {"POST", "/health", nil, 401}, {"POST", "/v1/chat/completions", nil, 401}, {"POST", "/v1/embeddings", nil, 401},
		{"POST", "/v1/chat/completions", []string{"Authorization", "Bearer " + other}, 401},
		{"POST", "/v1/chat/completions", []string{"Authorization", "Bearer"}, 401},
		{"POST", "/v1/chat/completions", []string{"Authorization", "Basic " + key}, 401},
		{"POST", "/v1/chat/completions", []string{"Authorization", "Bearer " + key + "x"}, 401},
		{"POST", "/v1/chat/completions", []string{"Authorization", "Bearer " + key}, 200},
		{"POST", "/v1/chat/completions", []string{"Authorization", "bearer  " + key}, 200},
		{"POST", "/v1/chat/completions", []string{"X-Api-Key", key}, 200},
		{"GET", "/metrics", []string{"X-Api-Key", key}, 200},
	} {
		send := ""
		if c.method == "POST" {
			send = body
		}
		resp, out := r.call(c.method, c.path, send, c.header...)
		if resp.StatusCode != c.status {
			t.Errorf("%s %s %v: %d %s", c.method, c.path, c.header, resp.StatusCode, out)
		}
		if c.status == 401 && (resp.Header.Get("WWW-Authenticate") == "" || !strings.Contains(out, `"authentication_error"`)) {
			t.Errorf("%s %s: %v %s", c.method, c.path, resp.Header, out)
		}
	}
	if _, page := r.call("GET", "/metrics", "", "X-Api-Key", key); !strings.Contains(page, "winnow_auth_failures_total 12") {
		t.Errorf("refusals are not counted: %.2000s", page)
	}
	// A browser asks before it sends the key along.
	if resp, _ := r.call("OPTIONS", "/v1/chat/completions", "", "Origin", "http://localhost:3000", "Access-Control-Request-Method", "POST"); resp.StatusCode != 204 {
		t.Errorf("preflight: %d", resp.StatusCode)
	}
}

func TestKeysAreReadAgain(t *testing.T) {
	ann, annLine := made(t, "ann")
	bob, bobLine := made(t, "bob")
	k, path := keysOf(t, annLine)
	rewrite := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k.mu.Lock()
		k.looked = time.Time{} // a second later
		k.mu.Unlock()
	}
	expect := func(when string, wantAnn, wantBob bool) {
		t.Helper()
		name, okAnn := k.Holder(ann)
		_, okBob := k.Holder(bob)
		if okAnn != wantAnn || okBob != wantBob || okAnn && name != "ann" {
			t.Errorf("%s: ann %v, bob %v", when, okAnn, okBob)
		}
	}
	expect("at first", true, false)
	rewrite(annLine + bobLine)
	expect("bob added", true, true)
	rewrite(bobLine)
	expect("ann revoked", false, true)
	rewrite("nonsense\n")
	expect("damaged", false, true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	k.looked = time.Time{}
	expect("gone", false, true)
	rewrite("")
	expect("emptied", false, false)
}

func TestParseKeys(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for text, want := range map[string]int{
		"": 0, "# a\n\n": 0, "ann sha256:" + sum: 1, "ann  sha256:" + sum + " \r\nbob sha256:" + strings.Repeat("AC", 32): 2,
	} {
		if list, err := parseKeys([]byte(text)); err != nil || len(list) != want {
			t.Errorf("%q: %v, %v", text, list, err)
		}
	}
	for _, text := range []string{
		"ann", "ann sha256:", "ann " + sum, "ann sha256:" + sum[1:], "ann sha256:" + sum + "00", "ann sha1:" + sum, "b\u00e9a sha256:" + sum,
		strings.Repeat("n", 65) + " sha256:" + sum, "ann sha256:" + sum + "\nbob sha256:" + sum, strings.Repeat("\n", mostKeyBytes+1),
	} {
		if _, err := parseKeys([]byte(text)); !errors.Is(err, ErrKeys) {
			t.Errorf("%.80q: %v", text, err)
		}
	}
	if _, _, err := NewKey("two words"); !errors.Is(err, ErrKeys) {
		t.Error(err)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("ann sha256:" + strings.Repeat("ab", 32) + "\n# x\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := parseKeys(raw)
		if err != nil && (!errors.Is(err, ErrKeys) || list != nil) {
			t.Errorf("%v beside %d keys", err, len(list))
		}
	})
}
