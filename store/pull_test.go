package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ollama/ollama/types/model"
)

func TestPull(t *testing.T) {
	leaks(t)
	g := newRegistry(t)
	weights := noise(1, 5<<20+17)
	name, digest := g.model(weights)
	s := Store{t.TempDir()}
	var said []string
	var last Progress
	see := func(p Progress) {
		if p.Digest == digest {
			last = p
		}
		if !slices.Contains(said, p.Status) {
			said = append(said, p.Status)
		}
	}
	if err := s.Pull(t.Context(), name, hasty(t), see); err != nil {
		t.Fatal(err)
	}
	path, err := s.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, weights) {
		t.Errorf("%v, the bytes are others", err)
	}
	if got, err := os.ReadFile(s.manifestPath(mustName(t, name))); err != nil || !bytes.Equal(got, g.manifests["library/m/latest"]) {
		t.Errorf("the manifest is not as it came: %s, %v", got, err)
	}
	if len(said) != 7 || said[0] != "pulling manifest" || !strings.Contains(strings.Join(said, "\n"), "pulling "+digest[7:19]) ||
		!slices.Contains(said, "verifying sha256 digest") || said[5] != "writing manifest" || said[6] != "success" {
		t.Errorf("said %q", said)
	}
	if last.Total != int64(len(weights)) || last.Completed != last.Total {
		t.Errorf("last progress %+v", last)
	}
	if files := s.files(t); len(files) != 4 {
		t.Errorf("files %q", files)
	}
	if g.seen("GET") != 4+5 { // six chunks of the weights
		t.Errorf("%d requests", g.seen("GET"))
	}
	before, bytesBefore := g.seen(""), g.served.Load()
	if bytesBefore != int64(len(weights))+23+13 {
		t.Errorf("%d bytes served", bytesBefore)
	}
	if err := s.Pull(t.Context(), name, hasty(t), nil); err != nil {
		t.Fatal(err)
	}
	if g.seen("") != before+1 || g.served.Load() != bytesBefore {
		t.Errorf("a repeat made %d requests and fetched %d bytes", g.seen("")-before, g.served.Load()-bytesBefore)
	}
	g.model([]byte("GGUF of another kind"))
	if err := s.PullAs(t.Context(), name, "mine:8b", hasty(t), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Pull(t.Context(), name, hasty(t), nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{name, "mine:8b"} {
		if path, err := s.Find(n); err != nil {
			t.Error(err)
		} else if got, _ := os.ReadFile(path); string(got) != "GGUF of another kind" {
			t.Errorf("%s is still what it was", n)
		}
	}
	if files := s.files(t); slices.Contains(files, "blobs/"+strings.Replace(digest, ":", "-", 1)) || len(files) != 5 {
		t.Errorf("what only the older model had is there: %q", files)
	}
	if err := os.WriteFile(filepath.Join(s.Root, "placed.gguf"), []byte("GGUF"), 0o644); err != nil {
		t.Fatal(err)
	}
	seen := g.seen("")
	if err := s.PullAs(t.Context(), name, "placed", hasty(t), nil); !errors.Is(err, ErrExists) || g.seen("") != seen {
		t.Errorf("in place of a file of the user's: %v, %d requests", err, g.seen("")-seen)
	}
}

// TestPullResumes stops a pull in its middle and counts what the next one fetches.
func TestPullResumes(t *testing.T) {
	g := newRegistry(t)
	weights := noise(2, 6<<20)
	name, _ := g.model(weights)
	g.drip = time.Millisecond
	s := Store{t.TempDir()}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	err := s.Pull(ctx, name, hasty(t), func(p Progress) {
		if p.Completed > 1<<20 && p.Completed < p.Total {
			cancel(enough)
		}
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if _, err := s.Find(name); !errors.Is(err, ErrNoModel) {
		t.Errorf("half a model is found: %v", err)
	}
	first := g.served.Load()
	g.set(func() { g.drip = 0 })
	var begun int64 = -1
	if err := s.Pull(t.Context(), name, hasty(t), func(p Progress) {
		if begun < 0 && p.Total == int64(len(weights)) {
			begun = p.Completed
		}
	}); err != nil {
		t.Fatal(err)
	}
	if begun < 1<<20 {
		t.Errorf("began again at %d bytes", begun)
	}
	// What was sent and did not arrive is what stood in the buffers of four connections.
	if over := g.served.Load() - int64(len(weights)); over > 1<<20 || first == 0 {
		t.Errorf("%d bytes fetched twice", over)
	}
	if path, err := s.Find(name); err != nil {
		t.Error(err)
	} else if got, _ := os.ReadFile(path); !bytes.Equal(got, weights) {
		t.Error("the bytes are others")
	}
}

// TestPullTwiceAtOnce pulls a model three times at once, and a fourth time by another process.
func TestPullTwiceAtOnce(t *testing.T) {
	leaks(t)
	g := newRegistry(t)
	weights := noise(3, 4<<20)
	name, _ := g.model(weights)
	g.drip = 5 * time.Millisecond
	s := Store{t.TempDir()}
	var wg sync.WaitGroup
	var waited [3]bool
	for i := range waited {
		wg.Go(func() {
			err := s.Pull(t.Context(), name, hasty(t), func(p Progress) {
				if p.Total == int64(len(weights)) && p.Completed > 0 && p.Completed < p.Total {
					waited[i] = true
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	if out, err := puller(t, s, name).CombinedOutput(); err != nil {
		t.Errorf("the other process: %v: %s", err, out)
	}
	wg.Wait()
	if got := g.served.Load(); got != int64(len(weights))+23+13 {
		t.Errorf("%d bytes fetched, the model has %d", got, len(weights)+23+13)
	}
	if waited != [3]bool{true, true, true} {
		t.Errorf("who saw progress: %v", waited)
	}
	if _, err := s.Find(name); err != nil {
		t.Error(err)
	}
}

func TestPullAuthorizes(t *testing.T) {
	g, cdn := newRegistry(t), newRegistry(t)
	name, digest := g.model(noise(4, 3<<20))
	g.private, g.storage, cdn.blobs = true, cdn.URL, g.blobs
	cdn.odd = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("the storage is shown credentials: %v", r.Header)
		}
		return false
	}
	s, r := Store{t.TempDir()}, hasty(t)
	if err := s.Pull(t.Context(), name, r, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.blob(digest)); err != nil || cdn.served.Load() == 0 || g.served.Load() != 0 {
		t.Errorf("%v, %d bytes from the storage", err, cdn.served.Load())
	}
	if g.seen("GET /token") != 1 {
		t.Errorf("%d tokens asked for", g.seen("GET /token"))
	}
	// Three blobs, each asked for once at the registry; chunks go to the storage at once.
	if n := g.seen("GET /v2/library/m/blobs"); n != 3 {
		t.Errorf("%d blobs asked for at the registry", n)
	}
	st, err := os.Stat(r.Identity)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	first, err := os.ReadFile(r.Identity)
	if err != nil {
		t.Fatal(err)
	}
	if pub, err := os.ReadFile(r.Identity + ".pub"); err != nil || !strings.HasPrefix(string(pub), "ssh-ed25519 ") {
		t.Errorf("%q, %v", pub, err)
	}
	if err := (Store{t.TempDir()}).Pull(t.Context(), name, r, nil); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(r.Identity); !bytes.Equal(first, again) {
		t.Error("the key is another")
	}
	if files, _ := os.ReadDir(filepath.Dir(r.Identity)); len(files) != 2 {
		t.Errorf("%v beside the key", files)
	}
	for _, realm := range []string{cdn.URL + "/token", "http://user@" + g.host() + "/token", "file:///etc/passwd", "https://" + g.host() + "/token", "", "::"} {
		if realm == "" {
			realm = " "
		}
		g.realm = realm
		err := (Store{t.TempDir()}).Pull(t.Context(), name, r, nil)
		if e, ok := errors.AsType[*RemoteError](err); !ok || !errors.Is(err, ErrDenied) || !strings.Contains(e.Limit, "realm") {
			t.Errorf("realm %q: %v", realm, err)
		}
	}
	if cdn.seen("GET /token") != 0 {
		t.Error("a signature went to another host")
	}
	g.realm, r.Identity = "", ""
	if err := (Store{t.TempDir()}).Pull(t.Context(), name, r, nil); !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "who are you") {
		t.Errorf("without a key: %v", err)
	}
	r.Identity = filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(r.Identity, []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = (Store{t.TempDir()}).Pull(t.Context(), name, r, nil)
	if _, ok := errors.AsType[*FileError](err); !ok || !errors.Is(err, ErrUnsupported) {
		t.Errorf("with a file that is no key: %v", err)
	}
}

func mustName(t *testing.T, name string) model.Name {
	t.Helper()
	n := model.ParseName(name)
	if !n.IsValid() {
		t.Fatal(name)
	}
	return n
}

// TestPullOverTLS pulls from a registry whose certificate nobody vouches for.
func TestPullOverTLS(t *testing.T) {
	g := newRegistry(t)
	_, digest := g.model(noise(9, 1000))
	safe := httptest.NewUnstartedServer(g)
	safe.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are what is tested
	safe.StartTLS()
	defer safe.Close()
	name := "https://" + hostOf(safe.URL) + "/library/m"
	s, r := Store{t.TempDir()}, hasty(t)
	r.Insecure = false
	err := s.Pull(t.Context(), name, r, nil)
	if _, ok := errors.AsType[*RemoteError](err); !ok || !strings.Contains(err.Error(), "certificate") || len(s.files(t)) > 0 {
		t.Errorf("%v, %q", err, s.files(t))
	}
	r.Insecure = true
	if err := s.Pull(t.Context(), name, r, nil); err != nil || !finished(s.blob(digest), 1000) {
		t.Error(err)
	}
	g.set(func() { g.storage = g.URL })
	if err := (Store{t.TempDir()}).Pull(t.Context(), name, r, nil); !errors.Is(err, ErrRemote) || !strings.Contains(err.Error(), "redirects from https to http") {
		t.Errorf("to plain HTTP: %v", err)
	}
	g.set(func() { g.storage = "" })
	r.Insecure, r.Client = false, safe.Client()
	if err := (Store{t.TempDir()}).Pull(t.Context(), name, r, nil); err != nil {
		t.Errorf("with a client of the caller's: %v", err)
	}
}

func hostOf(address string) string { return address[strings.LastIndex(address, "/")+1:] }
