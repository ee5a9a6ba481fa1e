package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/ollama/ollama/parser"

	"github.com/winnow-llm/winnow/serve"
	"github.com/winnow-llm/winnow/store"
)

const someDigest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

// TestChange sends lines of a change that a test makes up.
func TestChange(t *testing.T) {
	var seen context.Context
	fail := errors.New("no space left")
	steps := func(n int, end string, err error) change {
		return change{read: func(_ *serve.Library, o *object) (work, []string) {
			o.modelName()
			return func(ctx context.Context, see func(serve.Progress)) error {
				seen = ctx
				for i := range n {
					see(serve.Progress{Status: "pulling", Digest: someDigest, Total: int64(n), Completed: int64(i)})
				}
				if end != "" {
					see(serve.Progress{Status: end})
				}
				return err
			}, []string{"careful"}
		}}
	}
	r, _ := library(t)
	for name, c := range map[string]struct {
		change
		body   string
		status int
		lines  int
		last   string
	}{
		"silent end":   {steps(2, "", nil), `{"model":"x"}`, 200, 3, `{"status":"success","warnings":["careful"]}`},
		"its own end":  {steps(2, "success", nil), `{"model":"x"}`, 200, 3, `{"status":"success","warnings":["careful"]}`},
		"at once":      {steps(2, "success", nil), `{"name":"x","stream":false}`, 200, 1, `{"status":"success","warnings":["careful"]}`},
		"fails late":   {steps(2, "", fail), `{"model":"x"}`, 200, 3, `{"error":"no space left"}`},
		"fails early":  {steps(0, "", fail), `{"model":"x"}`, 500, 1, `{"error":"no space left"}`},
		"fails unseen": {steps(2, "", fail), `{"model":"x","stream":false}`, 500, 1, `{"error":"no space left"}`},
		"no model":     {steps(0, "", serve.ErrNoModel), `{"model":"x"}`, 404, 1, `{"error":"model: no such model"}`},
		"wrong digest": {steps(0, "", serve.ErrDigest), `{"model":"x"}`, 400, 1, `{"error":"wrong digest"}`},
		"unknown":      {steps(0, "", nil), `{"model":"x","foo":1}`, 200, 1, `{"status":"success","warnings":["careful","unknown field \"foo\" is ignored"]}`},
		"bad":          {steps(1, "", nil), `{"model":1}`, 400, 1, `{"error":"model: must be a string"}`},
		"quiet":        {change{steps(2, "", nil).read, true}, `{"model":"x"}`, 200, 0, ``},
	} {
		path := "/api/test/" + strings.ReplaceAll(name, " ", "-")
		r.server.routes.POST(path, r.server.exchange("test", func(ctx context.Context, x *exchange) error { return x.change(ctx, c.change) }))
		status, body := r.post(path, c.body)
		all := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
		if status != c.status || all[len(all)-1] != c.last || body != "" && len(all) != c.lines {
			t.Errorf("%s: %d %s", name, status, body)
		}
		if seen != nil && seen.Err() == nil {
			t.Errorf("%s: its context goes on", name)
		}
	}
}

// A stream that the server's end cuts off says so in its last line.
func TestChangeCutOff(t *testing.T) {
	r, _ := library(t)
	endless := change{read: func(*serve.Library, *object) (work, []string) {
		return func(ctx context.Context, see func(serve.Progress)) error {
			see(serve.Progress{Status: "pulling"})
			r.server.cutOff()
			<-ctx.Done()
			return ctx.Err()
		}, nil
	}}
	r.server.routes.POST("/api/test", r.server.exchange("test", func(ctx context.Context, x *exchange) error { return x.change(ctx, endless) }))
	status, body := r.post("/api/test", `{"model":"x"}`)
	if status != 200 || body != "{\"status\":\"pulling\"}\n{\"error\":\"server is shutting down\"}\n" {
		t.Errorf("%d %s", status, body)
	}
}

func TestLibraryHostile(t *testing.T) {
	r, _ := library(t)
	for want, all := range map[string][][2]string{
		"model: is required": {{"POST /api/pull", `{}`}, {"POST /api/push", `{"model":""}`}, {"POST /api/create", `{"from":"x"}`}, {"DELETE /api/delete", `{}`}},
		"JSON":               {{"POST /api/pull", `[]`}, {"POST /api/copy", ``}, {"DELETE /api/delete", `"x"`}},
		"source":             {{"POST /api/copy", `{"destination":"x"}`}, {"POST /api/copy", `{"source":1,"destination":"x"}`}},
		"destination":        {{"POST /api/copy", `{"source":"x"}`}},
		"stream":             {{"POST /api/pull", `{"model":"x","stream":1}`}},
		"insecure":           {{"POST /api/pull", `{"model":"x","insecure":"no"}`}},
		"from":               {{"POST /api/create", `{"model":"x"}`}, {"POST /api/create", `{"model":"x","from":1}`}},
		"files": {{"POST /api/create", `{"model":"x","files":["a"]}`}, {"POST /api/create", `{"model":"x","files":{"a":1}}`},
			{"POST /api/create", `{"model":"x","stream":false,"files":{"a":"` + someDigest + `"}}`}},
		"quantize":         {{"POST /api/create", `{"model":"x","from":"y","quantize":"q4_K_M"}`}},
		"adapters":         {{"POST /api/create", `{"model":"x","from":"y","adapters":{"a":"b"}}`}},
		"modelfile":        {{"POST /api/create", `{"model":"x","from":"y","modelfile":"FROM z"}`}, {"POST /api/create", `{"name":"x","modelfile":"FROM z"}`}},
		"license":          {{"POST /api/create", `{"model":"x","from":"y","license":[1]}`}, {"POST /api/create", `{"model":"x","from":"y","license":{}}`}},
		"parameters":       {{"POST /api/create", `{"model":"x","from":"y","parameters":[]}`}},
		"parameters.top_k": {{"POST /api/create", `{"model":"x","from":"y","parameters":{"top_k":"many"}}`}},
		"messages[0].role": {{"POST /api/create", `{"model":"x","from":"y","messages":[{"role":"tool"}]}`}, {"POST /api/create", `{"model":"x","from":"y","messages":[{"role":1}]}`}},
		"digest":           {{"POST /api/blobs/sha256:abc", "x"}, {"POST /api/blobs/..%2f..%2fetc%2fx", "x"}, {"POST /api/blobs/" + strings.ToUpper(someDigest), "x"}},
	} {
		for _, c := range all {
			method, path, _ := strings.Cut(c[0], " ")
			resp, body := r.call(method, path, c[1])
			if resp.StatusCode != 400 && !(resp.StatusCode == 404 && strings.Contains(path, "..")) || resp.StatusCode == 400 && !strings.Contains(body, want) {
				t.Errorf("%s: %s %s: %d %s", want, c[0], c[1], resp.StatusCode, body)
			}
		}
	}
	r.healthy()
}

func TestNoLibrary(t *testing.T) {
	r := start(t, Options{})
	for _, c := range [][2]string{
		{"POST", "/api/pull"}, {"POST", "/api/push"}, {"POST", "/api/create"}, {"POST", "/api/copy"}, {"DELETE", "/api/delete"},
		{"POST", "/api/blobs/" + someDigest}, {"HEAD", "/api/blobs/" + someDigest},
	} {
		resp, body := r.call(c[0], c[1], `{"model":"x","source":"x","destination":"y","from":"z"}`)
		if resp.StatusCode != 501 || c[0] != "HEAD" && !strings.Contains(body, "no store") {
			t.Errorf("%v: %d %s", c, resp.StatusCode, body)
		}
	}
	resp, body := r.call("POST", "/api/show", `{"model":"DEMO-MOE:latest"}`)
	if resp.StatusCode != 200 || !strings.Contains(body, `"model_info":{}`) || !strings.Contains(body, "FROM demo-moe") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, _ := r.call("POST", "/api/show", `{"model":"none"}`); resp.StatusCode != 404 {
		t.Errorf("%d", resp.StatusCode)
	}
}

// patient is a connection that keeps the deadlines it was given.
type patient struct {
	http.ResponseWriter
	deadlines []time.Time
}

func (p *patient) SetReadDeadline(t time.Time) error {
	p.deadlines = append(p.deadlines, t)
	return nil
}

// TestArrivingSlowly gives each piece of a file its own time.
func TestArrivingSlowly(t *testing.T) {
	p := &patient{}
	b := &arriving{ctx: t.Context(), control: http.NewResponseController(p), patience: time.Hour, body: iotest.OneByteReader(strings.NewReader("abc"))}
	raw, err := io.ReadAll(b)
	if string(raw) != "abc" || err != nil {
		t.Errorf("%q, %v", raw, err)
	}
	if n := len(p.deadlines); n < 4 || p.deadlines[1].Before(p.deadlines[0]) || time.Until(p.deadlines[n-2]) < time.Minute || !p.deadlines[n-1].IsZero() {
		t.Errorf("%v", p.deadlines)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errDraining)
	b.ctx = ctx
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, errDraining) || !errors.Is(b.err, errDraining) {
		t.Errorf("%v", err)
	}
}

// TestArriving reads files that stop coming, are cut short, or have no end.
func TestArriving(t *testing.T) {
	r := start(t, Options{BodyTimeout: time.Second, BodyLimit: 4, BlobLimit: 1000})
	got := make(chan string, 1)
	r.server.routes.POST("/api/test", func(c *gin.Context) {
		b := &arriving{ctx: c, control: http.NewResponseController(c.Writer), patience: r.server.opt.BodyTimeout,
			body: http.MaxBytesReader(c.Writer, c.Request.Body, r.server.opt.BlobLimit)}
		raw, err := io.ReadAll(b)
		got <- fmt.Sprintf("%d %v", len(raw), err)
		c.Status(http.StatusOK)
	})
	send := func(head string, pieces ...string) string {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			io.WriteString(conn, "POST /api/test HTTP/1.1\r\nHost: localhost\r\n"+head+"\r\n\r\n")
			for _, p := range pieces {
				if io.WriteString(conn, p); p == "" {
					conn.Close()
				}
			}
		}()
		return <-got
	}
	for name, s := range map[string]string{
		"stalls":    send("Content-Length: 24", "abc"),
		"cut short": send("Content-Length: 24", "abc", ""),
		"endless":   send("Content-Length: 2000", strings.Repeat("x", 2000)),
	} {
		want := map[string]string{"stalls": os.ErrDeadlineExceeded.Error(), "cut short": "client is gone", "endless": "too large"}[name]
		if !strings.Contains(s, want) {
			t.Errorf("%s: %s", name, s)
		}
	}
}

func TestModelfileText(t *testing.T) {
	f := serve.Modelfile{
		From: "base", Template: "{{ .Prompt }}\n", System: "Be brief.", License: []string{"free", "as in\nbeer"},
		Parameters: map[string]any{"stop": []any{"<|end|>", "a\nb"}, "temperature": 0.7, "num_ctx": 4e6, "use_mmap": true},
		Messages:   []serve.Message{{Role: "user", Content: `say "hi"`}, {Role: "assistant"}},
	}
	got := modelfileText("m", f)
	file, err := parser.ParseFile(strings.NewReader(got))
	if err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	var read []string
	for _, c := range file.Commands {
		read = append(read, c.Name+"="+c.Args)
	}
	want := []string{
		"model=base", "template={{ .Prompt }}\n", "system=Be brief.", "num_ctx=4000000", "stop=<|end|>", "stop=a\nb", "temperature=0.7", "use_mmap=true",
		`message=user: say "hi"`, "message=assistant: ", "license=free", "license=as in\nbeer",
	}
	if !slices.Equal(read, want) {
		t.Errorf("%q\nwant %q\nin %s", read, want, got)
	}
	if got := f.ParameterText(); !strings.HasPrefix(got, "num_ctx                        4000000\nstop                           \"<|end|>\"\n") {
		t.Errorf("%s", got)
	}
}

// What a file says of itself is shown, so far as JSON can say it.
func TestShowHostile(t *testing.T) {
	d := serve.Description{Meta: map[string]any{"a": math.NaN(), "b": []float32{float32(math.Inf(1))}, "c": "x", "d": nil, keyTemplate: "{{ x }}"}}
	raw, err := json.Marshal(newOllamaShow(&d))
	if err != nil || !strings.Contains(string(raw), `"model_info":{"c":"x","d":null}`) || !strings.Contains(string(raw), `"template":"{{ x }}"`) {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestLifetime(t *testing.T) {
	for raw, want := range map[string]time.Duration{
		`0`: 0, `"0"`: 0, `"5m"`: 5 * time.Minute, `90`: 90 * time.Second, `0.5`: time.Second / 2, `-1`: forever, `"-1s"`: forever, `"-2562047h"`: forever,
		`1e18`: forever, `"1h30m"`: 90 * time.Minute, `9e9`: 9e18,
	} {
		o, err := parseObject([]byte(`{"keep_alive":` + raw + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if d := o.lifetime("keep_alive"); o.err() != nil || d == nil || *d != want {
			t.Errorf("%s: %v, %v", raw, d, o.err())
		}
	}
}

func FuzzOllamaRequests(f *testing.F) {
	f.Add([]byte(`{` + chatBody + `,"options":{"top_k":1,"stop":["a"],"moe":{"top_k":[1],"mass":0.5}},"think":"low","keep_alive":"5m"}`))
	f.Add([]byte(`{"model":"m","prompt":"p","context":[1,2],"raw":true,"images":[]}`))
	f.Add([]byte(`{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{}}}]}]}`))
	f.Add([]byte(`{"name":"m","from":"x","files":{"a":"b"},"parameters":{"stop":["a"],"num_ctx":1e3},"messages":[{"role":"user"}],"license":["l"]}`))
	f.Add([]byte(`{"model":"m","input":["a"],"dimensions":3}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := parseOllamaChat(body); err == nil && (r.Model == "" || r.MaxTokens < 0 || len(r.Warnings) > mostWarnings) {
			t.Errorf("%+v", r)
		}
		if r, err := parseOllamaGenerate(body); err == nil && (r.Model == "" || r.idle != (r.prompt == "")) {
			t.Errorf("%+v", r)
		}
		_, _ = parseOllamaEmbed(body)
		_, _ = parseOllamaEmbedding(body)
		o, err := parseObject(body)
		if err != nil {
			return
		}
		for name, c := range changes {
			if do, _ := c.read(nil, o); do == nil && o.err() == nil {
				t.Errorf("%s: nothing to do", name)
			}
		}
	})
}

// A folder that was pulled is removed by its name at the hub, and unloaded with it.
func TestDeleteOfAPulledFolder(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "st"), os.DirFS("../model/testdata/stories260k")); err != nil {
		t.Fatal(err)
	}
	note := `{"names":["hf.co/o/st:latest"],"from":"o/st","files":{}}`
	if err := os.WriteFile(filepath.Join(root, "st", ".winnow-pull"), []byte(note), 0o644); err != nil {
		t.Fatal(err)
	}
	l := serve.NewLibrary(serve.LibraryOptions{
		Store: store.Store{Root: root}, Open: func(string, string) (*serve.Model, error) { return sources(t)[0].Open() },
	})
	r := startPool(t, Options{Library: l}, serve.PoolOptions{Models: l, KeepAlive: time.Hour})
	if status, body := r.post("/api/generate", `{"model":"hf.co/o/st","stream":false}`); status != 200 {
		t.Fatal(body)
	}
	if loaded := r.server.pool.Loaded(); len(loaded) != 1 || loaded[0].Name != "st" {
		t.Fatalf("%+v", loaded)
	}
	if resp, body := r.call("DELETE", "/api/delete", `{"model":"HF.co/O/st"}`); resp.StatusCode != 200 {
		t.Fatal(body)
	}
	if left, err := os.ReadDir(root); len(r.server.pool.Loaded()) != 0 || err != nil || len(left) != 0 {
		t.Errorf("%+v, %v, %v", r.server.pool.Loaded(), left, err)
	}
}
