package store

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestParseChallenge(t *testing.T) {
	for h, want := range map[string]challenge{
		`Bearer realm="https://h/token",service="s",scope="a:b:pull c"`: {"https://h/token", "s", "a:b:pull c"},
		`bearer  realm=https://h/token , Scope=x`:                       {"https://h/token", "", "x"},
		`Bearer realm="a\"b\\",error="x, y=z"`:                          {`a"b\`, "", ""},
		`Bearer service="s"`:                                            {}, `Bearer`: {}, "": {}, `Basic realm="x"`: {}, `Bearer realm="x`: {}, `Bearer realm="x\`: {}, `Bearer realm`: {},
		`Bearer realm="` + strings.Repeat("x", maxChallenge) + `"`: {},
	} {
		got, err := parseChallenge(h)
		if (err == nil) != (want.realm != "") || err == nil && got != want {
			t.Errorf("%.80s: %+v, %v", h, got, err)
		}
	}
}

// TestTokenRunsOut pulls from a registry that forgets its tokens now and then.
func TestTokenRunsOut(t *testing.T) {
	g := newRegistry(t)
	name, digest := g.model(noise(1, 6<<20))
	g.private = true
	n := 0
	g.odd = func(w http.ResponseWriter, r *http.Request) bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		if r.URL.Path == "/token" || r.Header.Get("Authorization") == "" {
			return false
		}
		if n++; n%3 == 0 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+g.URL+`/token",service="reg",scope="repository:library/m:pull repository:library/m:push"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	r := hasty(t)
	r.Parallel = 1
	s := Store{t.TempDir()}
	if err := s.Pull(t.Context(), name, r, nil); err != nil || !finished(s.blob(digest), 6<<20) || g.seen("GET /token") < 3 {
		t.Errorf("%v, %d tokens", err, g.seen("GET /token"))
	}
}

// TestIdentity makes one key, however many ask for it at once, and refuses keys of other kinds.
func TestIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "down", "id")
	var wg sync.WaitGroup
	var keys [8]string
	for i := range keys {
		wg.Go(func() {
			key, err := identity(path)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = string(key.PublicKey().Marshal())
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] {
			t.Fatal("two keys were made")
		}
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 2 {
		t.Errorf("%v, %v", files, err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(other, "")
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(other, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for want, raw := range map[string][]byte{"ed25519": pem.EncodeToMemory(block), "passphrase": pem.EncodeToMemory(locked), "no key found": nil, "at most 65536": make([]byte, 1<<17)} {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := identity(path)
		if _, ok := errors.AsType[*FileError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := identity(t.TempDir()); err == nil {
		t.Error("a folder is a key")
	}
}
