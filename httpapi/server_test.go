package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model/demo"
	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The models that tests serve: one that chats, and one without a template.
const (
	chatModel  = "demo-moe"
	plainModel = "stories/260k:latest"
)

// rig is a server on a port of this machine, and a client of it.
type rig struct {
	t      *testing.T
	url    string
	server *Server
	stop   context.CancelFunc
	ended  chan error
}

// someExperts is memory for 30 of the demo's 48 experts, in F32.
const someExperts = 30 * 3 * 256 * 128 * 4

// sources are the model of stories and the embedded demo, opened on the reference device; of the demo not all experts are in memory.
func sources(t *testing.T) []serve.Source {
	loop := engine.NewLoop()
	t.Cleanup(loop.Close)
	source := func(name string, open func() (*store.Checkpoint, error)) serve.Source {
		return serve.Source{Name: name, Created: time.Unix(1_700_000_000, 0), Open: func() (*serve.Model, error) {
			c, err := open()
			if err != nil {
				return nil, err
			}
			return serve.Open(name, c, serve.Options{
				Device: tensor.Reference(), Loop: loop, DType: "f32", Context: 512, Sequences: 4, Rows: 64, Queue: 64, Check: true,
				Profiles: []serve.ExpertProfile{even(t)}, ExpertBytes: someExperts,
			})
		}}
	}
	broken := serve.Source{Name: "broken", Open: func() (*serve.Model, error) { return nil, store.ErrFormat }}
	return []serve.Source{
		source(plainModel, func() (*store.Checkpoint, error) { return store.Open("../model/testdata/stories260k") }),
		source(chatModel, func() (*store.Checkpoint, error) { return store.OpenBytes(demo.Name, demo.GGUF) }),
		broken,
	}
}

// even is a profile of the demo that saw all its experts chosen equally often.
func even(t *testing.T) serve.ExpertProfile {
	c, err := store.OpenBytes(demo.Name, demo.GGUF)
	if err != nil {
		t.Error(err)
		return serve.ExpertProfile{}
	}
	p := serve.ExpertProfile{Model: c.Fingerprint(), Usage: make([][]int64, 6)}
	for i := range p.Usage {
		p.Usage[i] = []int64{1, 1, 1, 1, 1, 1, 1, 1}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return p
}

func start(t *testing.T, opt Options) *rig {
	t.Helper()
	return startPool(t, opt, serve.PoolOptions{Models: serve.Sources(sources(t))})
}

// startPool starts a server with a pool of the test's own.
func startPool(t *testing.T, opt Options, of serve.PoolOptions) *rig {
	t.Helper()
	of.Check = true
	pool := serve.NewPool(of)
	opt.Log = slog.New(slog.DiscardHandler)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &rig{t: t, url: "http://" + ln.Addr().String(), server: New(pool, opt), stop: stop, ended: make(chan error, 1)}
	go func() { r.ended <- r.server.Serve(ctx, narrow{ln}) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-r.ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := pool.Close(); err != nil {
			t.Errorf("close pool: %v", err)
		}
	})
	return r
}

// narrow is a listener whose connections buffer little, so that a client that does not read is noticed soon.
type narrow struct{ net.Listener }

func (n narrow) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
	}
	return c, err
}

// call sends a request with a JSON body, or none, and reads the whole answer.
func (r *rig) call(method, path, body string, header ...string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(b)
}

func (r *rig) post(path, body string) (int, string) {
	r.t.Helper()
	resp, out := r.call("POST", path, body)
	return resp.StatusCode, out
}

// healthy checks that the server still answers.
func (r *rig) healthy() {
	r.t.Helper()
	if resp, body := r.call("GET", "/health", ""); resp.StatusCode != 200 || body != "{\"status\":\"ok\"}\n" {
		r.t.Fatalf("health: %d %s", resp.StatusCode, body)
	}
}

// parse decodes JSON that a test relies on.
func parse[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader([]byte(body)))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %.400s", err, body)
	}
	return v
}

// events splits a stream into the data of its events, and checks its frame.
func events(t *testing.T, body string) []string {
	t.Helper()
	var out []string
	for _, e := range strings.Split(strings.TrimSuffix(body, "\n\n"), "\n\n") {
		if strings.HasPrefix(e, ": ") {
			continue
		}
		data, ok := strings.CutPrefix(e, "data: ")
		if !ok || strings.Contains(data, "\n") {
			t.Fatalf("event %q", e)
		}
		out = append(out, data)
	}
	return out
}
