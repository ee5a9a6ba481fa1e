package store

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// lie answers requests of blobs in a test's own way.
func lie(blob func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/sha256:") {
			return false
		}
		blob(w, r)
		return true
	}
}

// endless writes until nobody listens.
func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 32<<10)); err != nil {
			return
		}
	}
}

// TestPullOfLies pulls from a registry whose blobs are not what they should be. Each is one error, and nothing is left behind.
func TestPullOfLies(t *testing.T) {
	const size = 3 << 20
	weights := noise(5, size)
	ranged := func(total string, body []byte) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			var from, to int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%s", from, to, total))
			w.WriteHeader(http.StatusPartialContent)
			if body != nil {
				w.Write(body)
				return
			}
			w.Write(weights[from : to+1])
		}
	}
	for _, c := range []struct {
		name string
		blob func(w http.ResponseWriter, r *http.Request)
		err  error
		says string
		kept bool // bytes that can be gone on with
	}{
		{"missing", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, ErrRemote, "HTTP 404", false},
		{"denied", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }, ErrDenied, "HTTP 403", false},
		{"broken", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, `{"errors":[{"message":"out\nof order"}]}`, 500)
		}, ErrRemote, `HTTP 500: "out\nof order"`, false},
		{"shorter in all", ranged("100", nil), ErrRemote, `/100", asked for bytes`, false},
		{"wrong range", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 1-5/%d", size))
			w.WriteHeader(http.StatusPartialContent)
		}, ErrRemote, "asked for bytes", false},
		{"no range named", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusPartialContent) }, ErrRemote, `range ""`, false},
		{"beyond its end", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) }, ErrRemote, "ends before byte", false},
		{"short range", ranged(fmt.Sprint(size), []byte("short")), ErrRemote, "ends after", true},
		{"endless range", func(w http.ResponseWriter, r *http.Request) {
			ranged(fmt.Sprint(size), nil)(w, r)
			endless(w, r)
		}, ErrRemote, "goes on after its", true},
		{"other bytes", ranged(fmt.Sprint(size), bytes.Repeat([]byte("x"), 1<<20)), ErrDigest, "wrong digest", false},
		{"endless", endless, ErrRemote, fmt.Sprintf("goes on after its %d bytes", size), false},
		{"whole, other length", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("short")) }, ErrRemote, "5 bytes, should be", false},
		{"whole, cut short", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			w.Write(weights[:size/2])
		}, ErrRemote, fmt.Sprintf("ends after %d of %d", size/2, size), false},
		{"whole, other bytes", func(w http.ResponseWriter, r *http.Request) { w.Write(bytes.Repeat([]byte("x"), size)) }, ErrDigest, "wrong digest", false},
		{"packed", func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Accept-Encoding"); got != "identity" {
				t.Errorf("accepts %q", got)
			}
			w.Header().Set("Content-Encoding", "gzip")
		}, ErrRemote, `encoded as "gzip"`, false},
		{"loop", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, ErrRemote, "more than 10 redirects", false},
		{"to a file", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusTemporaryRedirect)
		}, ErrRemote, "no address of the web", false},
		{"to nowhere", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(307) }, ErrRemote, "redirects to nowhere", false},
		{"no more connections", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, nil, "EOF", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaks(t)
			g := newRegistry(t)
			digest := g.add(weights)
			g.manifest(manifestOfSize(digest, size))
			g.odd = lie(c.blob)
			s := Store{t.TempDir()}
			err := s.Pull(t.Context(), g.host()+"/library/m", hasty(t), nil)
			e, ok := errors.AsType[*RemoteError](err)
			if !ok || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) || e.Host != g.host() || !strings.Contains(e.What, digest) {
				t.Errorf("%v", err)
			}
			for _, file := range s.files(t) {
				if !c.kept || !strings.HasSuffix(file, suffixPartial) && !strings.HasSuffix(file, suffixMap) {
					t.Errorf("%s is left", file)
				}
			}
			g.set(func() { g.odd = nil })
			if err := s.Pull(t.Context(), g.host()+"/library/m", hasty(t), nil); err != nil && c.name != "short range" && c.name != "endless range" {
				t.Errorf("when it tells the truth: %v", err)
			}
		})
	}
}

func manifestOfSize(digest string, size int64) string {
	return fmt.Sprintf(`{"schemaVersion":2,"layers":[%s]}`, modelLayer(digest, size))
}

// TestPullOfManifests pulls manifests that lie.
func TestPullOfManifests(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat(`{"digest":"sha256:`+hex64+`","size":1},`, 1e6), ",")
	different := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `{"digest":"sha256:%064x","size":1},`, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	for _, c := range []struct{ name, text, says string }{
		{"no manifest", "hello", "invalid character"},
		{"no version", "{}", "schemaVersion 0"},
		{"path", manifestOf(modelLayer("sha256:../../../etc/passwd", 5)), "is not sha256"},
		{"negative", manifestOf(modelLayer("sha256:"+hex64, -5)), "size of -5 bytes"},
		{"huge", manifestOf(modelLayer("sha256:"+strings.Repeat("f", 64), 1<<60)), "at most 17592186044416 are pulled"},
		{"two sizes", manifestOf(modelLayer("sha256:"+hex64, 5) + "," + modelLayer("sha256-"+hex64, 6)), "bytes and"},
		{"tensors", manifestOf(`{"mediaType":"` + layerTensor + `","digest":"sha256:` + hex64 + `","size":5}`), "one blob per tensor"},
		{"2000 layers", manifestOf(different(2000)), "2001 layers, at most 1000"},
		{"a million layers", manifestOf(many), "more than 4194304 bytes"},
		{"100 MB", `{"schemaVersion":2,"x":"` + strings.Repeat("x", 100<<20) + `"}`, "more than 4194304 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRegistry(t)
			g.manifest(c.text)
			s := Store{t.TempDir()}
			err := s.Pull(t.Context(), g.host()+"/library/m", hasty(t), nil)
			if _, ok := errors.AsType[*RemoteError](err); !ok || !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 500 {
				t.Errorf("%.500v", err)
			}
			if files := s.files(t); len(files) > 0 || g.seen("GET") != 1 {
				t.Errorf("%q is left after %d requests", files, g.seen("GET"))
			}
		})
	}
	g := newRegistry(t)
	g.odd = func(w http.ResponseWriter, r *http.Request) bool {
		w.(http.Flusher).Flush() // no length
		endless(w, r)
		return true
	}
	if err := (Store{t.TempDir()}).Pull(t.Context(), g.host()+"/library/m", hasty(t), nil); !errors.Is(err, ErrFormat) {
		t.Errorf("endless: %v", err)
	}
	g.set(func() { g.odd = nil })
	if err := (Store{t.TempDir()}).Pull(t.Context(), g.host()+"/library/none", hasty(t), nil); !errors.Is(err, ErrNoModel) {
		t.Errorf("none: %v", err)
	}
}

func TestPullOfNames(t *testing.T) {
	s, r := Store{t.TempDir()}, hasty(t)
	for name, want := range map[string]error{
		"": ErrName, "..": ErrName, "../../x": ErrName, "h/../x": ErrName, "h/n/..": ErrName, "h/n/m:..": ErrName, "a b": ErrName, "m\x00": ErrName,
		"ftp://h/n/m": ErrName, "file:///etc/passwd": ErrName, "hf.co/../x": ErrName, "hf.co/o/..": ErrName, strings.Repeat("x", 1<<16): ErrName,
		"https://h/n/m.gguf": ErrName, "h:x:y/n/m": ErrName, "x@sha256:" + hex64: ErrName,
	} {
		if err := s.Pull(t.Context(), name, r, nil); !errors.Is(err, want) || len(err.Error()) > 400 {
			t.Errorf("%.80q: %v", name, err)
		}
	}
	r.Insecure = false
	for _, name := range []string{"http://127.0.0.1:1/n/m", "http://127.0.0.1:1/n/m:t"} {
		if err := s.Pull(t.Context(), name, r, nil); !errors.Is(err, ErrPlain) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.HuggingFace = "http://127.0.0.1:1"
	if err := s.Pull(t.Context(), "hf.co/o/r", r, nil); !errors.Is(err, ErrPlain) {
		t.Error(err)
	}
	if err := s.PullAs(t.Context(), "m", "../x", r, nil); !errors.Is(err, ErrName) {
		t.Error(err)
	}
	r.Insecure = true
	if err := s.Pull(t.Context(), "127.0.0.1:1/n/m", r, nil); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
	if files := s.files(t); len(files) > 0 {
		t.Errorf("%q are left", files)
	}
}

// TestPullWaits pulls from a registry that is busy, slow, silent or broken for a while.
func TestPullWaits(t *testing.T) {
	for _, c := range []struct {
		name  string
		first int // answers that are so
		blob  func(w http.ResponseWriter, r *http.Request)
		stall time.Duration
	}{
		{"429", 4, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(429) }, time.Minute},
		{"429 for a second", 1, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Retry-After", "1"); w.WriteHeader(429) }, time.Minute},
		{"503 for ever", 1, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT") // it waits for as long as it is willing to, and no longer
			w.WriteHeader(503)
		}, time.Minute},
		{"503", 4, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }, time.Minute},
		{"hanging up", 4, func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, time.Minute},
		{"silent", 1, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 200 * time.Millisecond},
		{"silent in its middle", 1, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-999/"+fmt.Sprint(1000))
			w.WriteHeader(206)
			w.Write(noise(6, 1000)[:300])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, 200 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			leaks(t)
			g := newRegistry(t)
			g.manifest(manifestOfSize(g.add(noise(6, 1000)), 1000))
			left := c.first
			var asked []string
			g.odd = lie(func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.Header.Get("Range"))
				if left--; left >= 0 {
					c.blob(w, r)
					return
				}
				g.set(func() { g.odd = nil })
				g.ServeHTTP(w, r)
			})
			s, r := Store{t.TempDir()}, hasty(t)
			r.pace.stall = c.stall
			began := time.Now()
			if c.name == "429 for a second" {
				r.pace.longest = 10 * time.Second
			}
			if err := s.Pull(t.Context(), g.host()+"/library/m", r, nil); err != nil {
				t.Fatal(err)
			}
			if c.name == "429 for a second" && time.Since(began) < time.Second {
				t.Error("did not wait")
			}
			if c.name == "silent in its middle" && asked[1] != "bytes=300-999" {
				t.Errorf("what had come was asked for again: %q", asked)
			}
		})
	}
}

// TestPullWithoutRanges pulls from a registry that gives whole blobs, and breaks off once.
func TestPullWithoutRanges(t *testing.T) {
	weights := noise(7, 3<<20)
	g := newRegistry(t)
	name, digest := g.model(weights)
	broken := false
	g.odd = lie(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		b := g.blobs[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]
		g.mu.Unlock()
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		if r.Header.Get("Range") == "" && !broken {
			broken = true
			w.Write(b[:len(b)/2])
			panic(http.ErrAbortHandler)
		}
		w.Write(b)
	})
	s := Store{t.TempDir()}
	if err := s.Pull(t.Context(), name, hasty(t), nil); err != nil {
		t.Fatal(err)
	}
	if !finished(s.blob(digest), int64(len(weights))) || !broken || len(s.files(t)) != 4 {
		t.Errorf("%q", s.files(t))
	}
}

// TestPullKeepsWhatItHas meets a page that stands in the registry's place for a while, with and without a length.
func TestPullKeepsWhatItHas(t *testing.T) {
	weights := noise(10, 3<<20)
	g := newRegistry(t)
	name, digest := g.model(weights)
	s := Store{t.TempDir()}
	p, err := holdPartial(t.Context(), mkBlobs(t, s, digest), int64(len(weights)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.write(0, weights[:2<<20]), p.release()); err != nil {
		t.Fatal(err)
	}
	for _, flush := range []bool{false, true} {
		g.set(func() {
			g.odd = lie(func(w http.ResponseWriter, r *http.Request) {
				if flush {
					w.(http.Flusher).Flush()
				}
				fmt.Fprint(w, "<html>Please log in</html>")
			})
		})
		if err := s.Pull(t.Context(), name, hasty(t), nil); !errors.Is(err, ErrRemote) {
			t.Errorf("%v", err)
		}
	}
	g.set(func() { g.odd = nil })
	if err := s.Pull(t.Context(), name, hasty(t), nil); err != nil || g.served.Load() != 1<<20+23+13 {
		t.Errorf("%v, %d bytes served", err, g.served.Load())
	}
}

// TestPullLocatesAgain pulls from a storage whose addresses run out in the middle.
func TestPullLocatesAgain(t *testing.T) {
	g, cdn := newRegistry(t), newRegistry(t)
	name, digest := g.model(noise(8, 5<<20))
	g.storage, cdn.blobs = cdn.URL, g.blobs
	n := 0
	cdn.odd = func(w http.ResponseWriter, r *http.Request) bool {
		cdn.mu.Lock()
		defer cdn.mu.Unlock()
		if n++; n == 4 {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	}
	r := hasty(t)
	r.Parallel = 1
	s := Store{t.TempDir()}
	if err := s.Pull(t.Context(), name, r, nil); err != nil {
		t.Fatal(err)
	}
	if got := g.seen("GET /v2/library/m/blobs"); got != 4 || !finished(s.blob(digest), 5<<20) {
		t.Errorf("%d blobs asked for at the registry", got)
	}
}

func TestRedirectsThatLeadAstray(t *testing.T) {
	l := Remote{}.link(mustURL(t, "https://registry.example"), nil)
	defer l.close()
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"", "https://registry.example/x", true}, {"", "http://registry.example/x", false}, {"", "ftp://registry.example/x", false},
		{"https://registry.example/x", "https://cdn.example/x", true}, {"https://registry.example/x", "http://registry.example/x", false},
		{"https://registry.example/x", "https://127.0.0.1/x", false}, {"https://registry.example/x", "https://[::1]:5/x", false},
		{"https://registry.example/x", "https://169.254.169.254/x", false}, {"https://registry.example/x", "https://10.1.2.3/x", false},
		{"https://registry.example/x", "https://[::ffff:10.1.2.3]/x", false}, {"https://registry.example/x", "https://localhost/x", false},
		{"https://10.0.0.1/x", "https://10.1.2.3/x", true}, {"https://registry.example/x", "https:///x", false}, {"https://registry.example/x", "data:x", false},
	} {
		call := call{what: "x", url: mustURL(t, c.to)}
		from := mustURL(t, c.from)
		if c.from == "" {
			from = nil
		}
		if err := l.permits(call, from); (err == nil) != c.ok {
			t.Errorf("%s -> %s: %v", c.from, c.to, err)
		}
	}
	l.insecure = true
	if err := l.permits(call{url: mustURL(t, "http://a/x")}, mustURL(t, "https://a/x")); err == nil {
		t.Error("insecure allows a way back from https to http")
	}
}
