package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8"

	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/store"
)

// testRegistry holds blobs and manifests under their paths, and takes new ones.
type testRegistry struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
	stuck bool // blobs stop in their middle
}

func newTestRegistry(t *testing.T) *testRegistry {
	g := &testRegistry{files: map[string][]byte{}}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	sum := sha256.Sum256(demo.GGUF)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	g.files["/v2/team/tiny/blobs/"+digest] = demo.GGUF
	g.files["/v2/team/tiny/manifests/latest"] = fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":%q,"size":%d}]}`, digest, len(demo.GGUF))
	g.files["/demo.gguf"] = demo.GGUF
	return g
}

func (g *testRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	g.mu.Lock()
	defer g.mu.Unlock()
	b, ok := g.files[r.URL.Path]
	switch {
	case r.Method == http.MethodPost:
		w.Header().Set("Location", r.URL.Path+"1")
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPatch:
		g.files["upload"] = body
		w.Header().Set("Location", r.URL.Path)
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPut && r.URL.Query().Has("digest"):
		g.files[strings.Replace(r.URL.Path, "uploads/1", r.URL.Query().Get("digest"), 1)] = g.files["upload"]
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPut:
		g.files[r.URL.Path] = body
		w.WriteHeader(http.StatusCreated)
	case !ok:
		http.NotFound(w, r)
	case g.stuck && strings.Contains(r.URL.Path, "/blobs/"):
		w.Header().Set("Content-Range", strings.Replace(r.Header.Get("Range"), "=", " ", 1)+fmt.Sprintf("/%d", len(b)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(b[:1<<16])
		w.(http.Flusher).Flush()
		g.mu.Unlock()
		<-r.Context().Done()
		g.mu.Lock()
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}
}

func TestPullThenRunThenPush(t *testing.T) {
	alone(t)
	g := newTestRegistry(t)
	name := strings.TrimPrefix(g.URL, "http://") + "/team/tiny"
	out, notes, err := winnow(t, "", "pull", "--insecure", name)
	if err != nil || out != "" {
		t.Fatalf("%v, %q", err, out)
	}
	lines := strings.Split(strings.TrimSpace(notes), "\n")
	seen := map[string]bool{}
	for _, line := range lines {
		if seen[line] {
			t.Errorf("said twice: %s", line)
		}
		seen[line] = true
	}
	last := lines[len(lines)-3:]
	if lines[0] != "pulling manifest" || !strings.Contains(notes, ": 100% of 7.6 MB\n") || last[0] != "verifying sha256 digest" || last[1] != "writing manifest" || last[2] != "success" || len(lines) > 15 {
		t.Errorf("%q", lines)
	}
	if out := must(t, "", "list"); !strings.Contains(out, name+":latest ") {
		t.Error(out)
	}
	if out := must(t, "Once", "run", name, "--temperature", "0", "--max-tokens", "3"); strings.TrimSpace(out) == "" {
		t.Error("the model says nothing")
	}
	sum := sha256.Sum256(demo.GGUF)
	must(t, "", "pull", "--insecure", g.URL+"/demo.gguf", "--sha256", hex.EncodeToString(sum[:]), "--name", "mine")
	must(t, "", "inspect", "mine")
	delete(g.files, "/v2/team/tiny/manifests/latest")
	for path := range g.files {
		if strings.Contains(path, "/blobs/") {
			delete(g.files, path)
		}
	}
	must(t, "", "push", "--insecure", name)
	if err := os.RemoveAll("store"); err != nil {
		t.Fatal(err)
	}
	must(t, "", "pull", "--insecure", name)
	must(t, "", "inspect", name)
}

func TestPullRefusals(t *testing.T) {
	alone(t)
	g := newTestRegistry(t)
	for _, c := range []struct{ args, want string }{
		{"pull", "accepts 1 arg"},
		{"pull ../x", "not a valid model name"},
		{"pull " + g.URL + "/team/tiny", "--insecure allows it"},
		{"pull --insecure " + g.URL + "/team/none", "no such model"},
		{"pull https://h.example/x.gguf", "is pulled by its sha256"},
		{"pull tiny --sha256 abc", "--sha256 is for the address of a file"},
		{"push nowhere", "no such model"},
		{"push hf.co/o/r", "not supported"},
	} {
		_, _, err := winnow(t, "", strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("winnow %s: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestInterruptedPullSaysThatItGoesOn(t *testing.T) {
	dir := alone(t)
	g := newTestRegistry(t)
	g.stuck = true
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	name := strings.TrimPrefix(g.URL, "http://") + "/team/tiny"
	c := root()
	c.SetArgs([]string{"pull", "--insecure", name})
	c.SetOut(io.Discard)
	c.SetErr(io.Discard)
	err := c.ExecuteContext(ctx)
	if err == nil || !strings.Contains(err.Error(), "interrupted") || !strings.Contains(err.Error(), "winnow pull "+name) {
		t.Error(err)
	}
	if list, err := (store.Store{Root: dir + "/store"}).List(); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func TestLinesOfProgress(t *testing.T) {
	var out strings.Builder
	l := &lines{out: &out, tenths: map[string]int64{}}
	for _, p := range []store.Progress{
		{Status: "pulling manifest"}, {Status: "pulling manifest"},
		{Status: "pulling aaa", Digest: "a", Total: 10e6}, {Status: "pulling aaa", Digest: "a", Total: 10e6, Completed: 5e5},
		{Status: "pulling bbb", Digest: "b", Total: 100}, {Status: "pulling bbb", Digest: "b", Total: 100, Completed: 100},
		{Status: "creating layer ccc", Digest: "c"}, {Status: "creating layer ccc", Digest: "c"},
		{Status: "pulling aaa", Digest: "a", Total: 10e6, Completed: 45e5}, {Status: "pulling aaa", Digest: "a", Total: 10e6, Completed: 3e6},
		{Status: "pulling aaa", Digest: "a", Total: 10e6, Completed: 10e6}, {Status: "pulling aaa", Digest: "a", Total: 10e6, Completed: 10e6}, {Status: "success"},
	} {
		l.see(p)
	}
	l.close()
	want := `pulling manifest
pulling aaa: 0% of 10.0 MB
pulling bbb: 100% of 100 B
creating layer ccc
pulling aaa: 40% of 10.0 MB
pulling aaa: 100% of 10.0 MB
success
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}

// TestBars draws bars for files that come side by side, one of them again from its beginning, and one that never ends.
func TestBars(t *testing.T) {
	var out bytes.Buffer
	b := &bars{out: &out, open: func() *mpb.Progress {
		return mpb.New(mpb.WithOutput(&out), mpb.WithAutoRefresh(), mpb.WithWidth(64), mpb.WithRefreshRate(time.Millisecond))
	}}
	for _, p := range []store.Progress{
		{Status: "pulling manifest"}, {Status: "pulling aaa", Digest: "a", Total: 10e6, Completed: 4e6}, {Status: "pulling bbb", Digest: "b", Total: 100},
		{Status: "creating layer ccc", Digest: "c"}, {Status: "pulling aaa", Digest: "a", Total: 10e6, Completed: 8e6}, {Status: "pulling aaa", Digest: "a", Total: 10e6, Completed: 0},
		{Status: "pulling aaa", Digest: "a", Total: 10e6, Completed: 10e6}, {Status: "verifying"}, {Status: "pulling bbb", Digest: "b", Total: 100, Completed: 100},
		{Status: "writing"}, {Status: "pulling aaa", Digest: "a", Total: 10e6, Completed: 10e6},
		{Status: "pulling ddd", Digest: "d", Total: 100, Completed: 50},
	} {
		b.see(p)
	}
	b.close()
	b.see(store.Progress{Status: "the end"})
	b.close()
	for _, want := range []string{"pulling manifest\n", "verifying\n", "\nwriting\n", "the end\n", "pulling ddd", "pulling aaa", "pulling bbb", "creating layer ccc\n", "100 %", "50 %", "10.0 MB / 10.0 MB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not there", want)
		}
	}
	t.Logf("%s", out.String())
}
