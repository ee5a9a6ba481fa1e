package store

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestPush sends a model that was pulled to another registry, and pulls it from there.
func TestPush(t *testing.T) {
	leaks(t)
	from, to := newRegistry(t), newRegistry(t)
	weights := noise(1, 3<<20+5)
	name, digest := from.model(weights)
	s, r := Store{t.TempDir()}, hasty(t)
	there := to.host() + "/library/m:latest"
	if err := s.PullAs(t.Context(), name, there, r, nil); err != nil {
		t.Fatal(err)
	}
	to.private = true
	busy := 2
	to.odd = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch || busy == 0 {
			return false
		}
		busy--
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	var said []string
	var last Progress
	err := s.Push(t.Context(), there, r, func(p Progress) {
		if !slices.Contains(said, p.Status) {
			said = append(said, p.Status)
		}
		if p.Digest == digest {
			last = p
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 6 || said[0] != "retrieving manifest" || said[4] != "pushing manifest" || said[5] != "success" || last.Completed != int64(len(weights)) || last.Total != last.Completed {
		t.Errorf("%q, %+v", said, last)
	}
	if !bytes.Equal(to.manifests["library/m/latest"], from.manifests["library/m/latest"]) {
		t.Error("the manifest is not as it was")
	}
	other := Store{t.TempDir()}
	if err := other.Pull(t.Context(), there, r, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(other.blob(digest)); err != nil || !bytes.Equal(got, weights) {
		t.Errorf("%v, or other bytes", err)
	}
	patches := to.seen("PATCH")
	if err := s.Push(t.Context(), there, r, nil); err != nil || to.seen("PATCH") != patches {
		t.Errorf("a repeat: %v, %d parts sent", err, to.seen("PATCH")-patches)
	}
}

func TestPushMounts(t *testing.T) {
	g := newRegistry(t)
	digest := g.add([]byte("weights"))
	s := Store{dir(t, map[string]string{
		"blobs/" + strings.Replace(digest, ":", "-", 1): "weights",
		"manifests/" + g.host() + "/library/m/latest": `{"schemaVersion":2,"layers":[{"mediaType":"` + layerModel + `","digest":"` + digest +
			`","size":7,"from":"` + g.host() + `/library/base:latest"}]}`,
	})}
	g.odd = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost && r.URL.Query().Get("from") != "library/base" {
			t.Errorf("mounts from %q", r.URL.Query().Get("from"))
		}
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	}
	if err := s.Push(t.Context(), g.host()+"/library/m", hasty(t), nil); err != nil || g.seen("PATCH") != 0 || g.seen("POST") != 1 {
		t.Errorf("%v, %d parts sent", err, g.seen("PATCH"))
	}
}

// TestPushToAStorage sends parts where the registry redirects them: to another host, without credentials.
func TestPushToAStorage(t *testing.T) {
	g := newRegistry(t)
	var stored []byte
	storage := newRegistry(t)
	storage.odd = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" || r.Method != http.MethodPut {
			t.Errorf("%s with %v", r.Method, r.Header)
		}
		stored, _ = io.ReadAll(r.Body)
		return true
	}
	const etag = "d6bb18e8c71b1e8fc7a1b3b6e1f7f1f0"
	g.private = true
	g.odd = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodPatch:
			w.Header().Set("Docker-Upload-Location", "/v2/library/m/blobs/uploads/next")
			w.Header().Set("Location", storage.URL+"/part?signature=secret")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		case r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/uploads/next"):
			if q := r.URL.Query(); q.Get("digest") == "" || !strings.HasSuffix(q.Get("etag"), "-1") || len(q.Get("etag")) != len(etag)+2 {
				t.Errorf("closed with %v", q)
			}
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return false
	}
	digest := "sha256:" + hex64
	s := Store{dir(t, map[string]string{"blobs/sha256-" + hex64: "weights", "manifests/" + g.host() + "/library/m/latest": manifestOfSize(digest, 7)})}
	if err := s.Push(t.Context(), g.host()+"/library/m", hasty(t), nil); err != nil || string(stored) != "weights" {
		t.Errorf("%v, stored %q", err, stored)
	}
}

func TestPushRefuses(t *testing.T) {
	g := newRegistry(t)
	name := g.host() + "/library/"
	manifests := "manifests/" + g.host() + "/library/"
	s := Store{dir(t, map[string]string{
		"blobs/sha256-" + hex64: "weights", "plain.gguf": "GGUF", manifests + "short/latest": manifestOfSize("sha256:"+hex64, 8),
		manifests + "gone/latest": manifestOfSize("sha256:"+strings.Repeat("f", 64), 8), manifests + "bad/latest": "x", manifests + "good/latest": manifestOfSize("sha256:"+hex64, 7),
	})}
	for n, want := range map[string]error{
		"plain": ErrNoModel, name + "none": ErrNoModel, name + "short": ErrFormat, name + "gone": os.ErrNotExist, name + "bad": ErrFormat,
		"..": ErrName, "hf.co/o/r": ErrUnsupported, name + "good": ErrRemote,
	} {
		if n == name+"good" { // leads away from where uploads may go
			g.odd = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Location", "file:///etc/passwd")
				w.WriteHeader(map[string]int{http.MethodHead: 404, http.MethodPost: 202}[r.Method])
				return true
			}
		} else {
			g.set(func() { g.odd = nil })
		}
		if err := s.Push(t.Context(), n, hasty(t), nil); !errors.Is(err, want) {
			t.Errorf("%s: %v", n, err)
		}
	}
	if g.seen("PUT")+g.seen("PATCH") != 0 {
		t.Error("something was sent")
	}
}
