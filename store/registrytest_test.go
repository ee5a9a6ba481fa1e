package store

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
)

// registry is a registry on the loopback, which speaks ollama's protocol, and behaves as badly as it is told to.
type registry struct {
	*httptest.Server
	t *testing.T

	mu        sync.Mutex
	blobs     map[string][]byte // by digest
	manifests map[string][]byte // by ns/model/tag
	uploads   map[string][]byte
	log       []string // method and path of each request

	served  atomic.Int64  // bytes of blobs written
	gate    func() bool   // nil, or whether a blob's next piece may go
	busy    atomic.Int64  // requests that are being answered
	storage string        // blobs redirect there
	private bool          // it asks for a token, with a signature
	realm   string        // of its challenges; "" = its own
	drip    time.Duration // pause after each 16 KiB of a blob
	odd     func(w http.ResponseWriter, r *http.Request) bool
}

func newRegistry(t *testing.T) *registry {
	g := &registry{t: t, blobs: map[string][]byte{}, manifests: map[string][]byte{}, uploads: map[string][]byte{}}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	return g
}

func (g *registry) host() string { return strings.TrimPrefix(g.URL, "http://") }

func (g *registry) add(b []byte) (digest string) {
	sum := sha256.Sum256(b)
	digest = "sha256:" + hex.EncodeToString(sum[:])
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blobs[digest] = b
	return digest
}

// model adds a model of one blob of weights, a configuration and a template, and gives its name.
func (g *registry) model(weights []byte) (name, digest string) {
	config, template := []byte(`{"model_format":"gguf"}`), []byte("{{ .Prompt }}")
	digest = g.add(weights)
	g.manifest(fmt.Sprintf(`{"schemaVersion":2, "mediaType":%q,"config":{"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d},{"mediaType":%q,"digest":%q,"size":%d}]}`,
		typeManifest, g.add(config), len(config), layerModel, digest, len(weights), layerTemplate, g.add(template), len(template)))
	return g.host() + "/library/m:latest", digest
}

func (g *registry) manifest(text string) {
	g.set(func() { g.manifests["library/m/latest"] = []byte(text) })
}

// set changes how the registry behaves while it answers.
func (g *registry) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

func (g *registry) seen(prefix string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, line := range g.log {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.busy.Add(1)
	defer g.busy.Add(-1)
	g.mu.Lock()
	g.log = append(g.log, r.Method+" "+r.URL.Path)
	odd := g.odd
	g.mu.Unlock()
	if odd != nil && odd(w, r) {
		return
	}
	if r.URL.Path == "/token" {
		g.token(w, r)
		return
	}
	if g.private && r.Header.Get("Authorization") != "Bearer let-me-in" {
		realm := g.realm
		if realm == "" {
			realm = g.URL + "/token"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="reg",scope="repository:library/m:pull repository:library/m:push"`, realm))
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
		return
	}
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/v2/"), "/", 4)
	if len(parts) < 4 {
		parts = []string{"", "", "storage", parts[len(parts)-1]}
	}
	switch kind, last := parts[2], parts[3]; {
	case kind == "manifests" && r.Method == http.MethodPut:
		raw, _ := io.ReadAll(r.Body)
		g.mu.Lock()
		g.manifests[parts[0]+"/"+parts[1]+"/"+last] = raw
		g.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
	case kind == "manifests":
		g.mu.Lock()
		raw, ok := g.manifests[parts[0]+"/"+parts[1]+"/"+last]
		g.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Header.Get("Accept") != typeManifest {
			g.t.Errorf("manifest asked for as %q", r.Header.Get("Accept"))
		}
		w.Write(raw)
	case strings.HasPrefix(last, "uploads/"):
		g.upload(w, r, strings.TrimPrefix(last, "uploads/"))
	case g.storage != "" && kind == "blobs" && r.Method == http.MethodGet:
		http.Redirect(w, r, g.storage+"/"+last+"?signature=secret", http.StatusTemporaryRedirect)
	default:
		g.mu.Lock()
		b, ok := g.blobs[last]
		g.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(&metered{w, g, r}, r, "", time.Time{}, bytes.NewReader(b))
	}
}

// metered counts what is written, and writes slowly where that is asked for.
type metered struct {
	http.ResponseWriter
	g *registry
	r *http.Request
}

func (m *metered) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		m.g.mu.Lock()
		gate, drip := m.g.gate, m.g.drip
		m.g.mu.Unlock()
		for gate != nil && !gate() && m.r.Context().Err() == nil {
			time.Sleep(200 * time.Microsecond)
		}
		piece := p[:min(len(p), 16<<10)]
		var k int
		k, err = m.ResponseWriter.Write(piece)
		n, p = n+k, p[k:]
		m.g.served.Add(int64(k))
		if drip > 0 || gate != nil {
			m.ResponseWriter.(http.Flusher).Flush()
			select {
			case <-m.r.Context().Done():
				return n, m.r.Context().Err()
			case <-time.After(drip):
			}
		}
	}
	return n, err
}

// token gives a token to whoever signed the very address of this request.
func (g *registry) token(w http.ResponseWriter, r *http.Request) {
	key, sig, _ := strings.Cut(r.Header.Get("Authorization"), ":")
	raw, err := base64.StdEncoding.DecodeString(key)
	public, err2 := ssh.ParsePublicKey(raw)
	blob, err3 := base64.StdEncoding.DecodeString(sig)
	if err != nil || err2 != nil || err3 != nil {
		http.Error(w, fmt.Sprint(err, err2, err3), http.StatusBadRequest)
		return
	}
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	message := "GET," + g.URL + r.URL.String() + "," + base64.StdEncoding.EncodeToString([]byte(empty))
	own, _ := public.(ssh.CryptoPublicKey).CryptoPublicKey().(ed25519.PublicKey)
	q := r.URL.Query()
	scopes := []string{"repository:library/m:pull", "repository:library/m:push"}
	if !ed25519.Verify(own, []byte(message), blob) || q.Get("service") != "reg" || !slices.Equal(q["scope"], scopes) || q.Get("ts") == "" || len(q.Get("nonce")) != 22 {
		http.Error(w, "bad signature", http.StatusForbidden)
		return
	}
	fmt.Fprint(w, `{"token":"let-me-in"}`)
}

func (g *registry) upload(w http.ResponseWriter, r *http.Request, id string) {
	raw, _ := io.ReadAll(r.Body)
	g.mu.Lock()
	defer g.mu.Unlock()
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && g.blobs[q.Get("mount")] != nil && q.Get("from") != "":
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPost:
		id = fmt.Sprint(len(g.uploads))
		g.uploads[id] = nil
		w.Header().Set("Location", r.URL.Path+id)
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPatch && r.Header.Get("Content-Range") == fmt.Sprintf("%d-%d", len(g.uploads[id]), len(g.uploads[id])+len(raw)-1):
		g.uploads[id] = append(g.uploads[id], raw...)
		w.Header().Set("Location", g.URL+r.URL.Path)
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPut:
		b := g.uploads[id]
		sum := sha256.Sum256(b)
		if q.Get("digest") != "sha256:"+hex.EncodeToString(sum[:]) {
			http.Error(w, "digest", http.StatusBadRequest)
			return
		}
		g.blobs[q.Get("digest")] = b
		w.WriteHeader(http.StatusCreated)
	default:
		http.Error(w, "upload", http.StatusBadRequest)
	}
}

// noise is n bytes that no compression shortens, the same for a seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// hasty is the remote of a test: impatient, and with plain HTTP.
func hasty(t *testing.T) Remote {
	return Remote{Insecure: true, Parallel: 4, Identity: filepath.Join(t.TempDir(), "keys", "id_ed25519"),
		pace: pace{stall: 30 * time.Second, backoff: time.Millisecond, longest: 20 * time.Millisecond}}
}

// files lists a store without its lock, folders left out, so that a test sees what is left behind.
func (s Store) files(t *testing.T) (out []string) {
	t.Helper()
	err := filepath.WalkDir(s.Root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != lockName {
			rel, _ := filepath.Rel(s.Root, path)
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return out
}

// leaks fails the test where a goroutine outlives it that was not there before.
func leaks(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

func mustURL(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
