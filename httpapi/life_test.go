package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

// long asks for as much as the context holds.
const long = `{"stream":true,"ignore_eos":true,"max_tokens":500}`

// open begins a request and reads its first event.
func (r *rig) open(ctx context.Context, body string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "POST", r.url+"/v1/completions", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: ") {
		r.t.Fatalf("%q, %v", line, err)
	}
	return resp
}

// idle waits until no sequence of any model is running or waiting and no page is in use.
func (r *rig) idle() {
	r.t.Helper()
	for range 1000 {
		busy := 0
		for _, l := range r.server.pool.Loaded() {
			busy += l.Engine.Running + l.Engine.Waiting + l.Engine.PagesUsed
		}
		if busy == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatal("the engine is not idle")
}

// Item 32: clients that leave while they wait or in mid-stream free what they held.
func TestClientsThatLeave(t *testing.T) {
	r := start(t, Options{})
	for range 3 {
		ctx, leave := context.WithCancel(t.Context())
		resp := r.open(ctx, long)
		leave()
		resp.Body.Close()
		r.idle()
	}
	ctx, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 12 { // more than run at once, so that some leave the queue
		all.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "POST", r.url+"/v1/completions", strings.NewReader(strings.Replace(long, "true", "false", 1)))
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	leave()
	all.Wait()
	r.idle()
	r.healthy()
}

// A client that does not read is given up and holds nobody back.
func TestClientThatDoesNotRead(t *testing.T) {
	r := start(t, Options{WriteTimeout: 100 * time.Millisecond})
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(1 << 10); err != nil {
		t.Fatal(err)
	}
	body := `{"stream":true,"ignore_eos":true,"max_tokens":500,"logprobs":5,"n":4,"prompt":["a","b"]}`
	if _, err := fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if status, out := r.post("/v1/completions", `{"max_tokens":3}`); status != 200 {
		t.Errorf("beside it: %d %s", status, out)
	}
	r.idle()
}

// Item 33: more requests than run at once all end; more than may wait are told to come again.
func TestManyRequests(t *testing.T) {
	r := start(t, Options{Requests: 60})
	var mu sync.Mutex
	statuses := map[int]int{}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			resp, body := r.call("POST", "/v1/completions", `{"max_tokens":5,"temperature":0,"prompt":"Once"}`)
			mu.Lock()
			defer mu.Unlock()
			statuses[resp.StatusCode]++
			if resp.StatusCode == 429 && (resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "rate_limit_exceeded")) {
				t.Errorf("%v %s", resp.Header, body)
			}
		})
	}
	all.Wait()
	if statuses[200] < 60 || statuses[200]+statuses[429] != 100 {
		t.Errorf("statuses %v", statuses)
	}
	if status, body := r.post("/v1/completions", `{"max_tokens":8,"n":16,"prompt":["a","b","c","d","e","f","g","h"],"ignore_eos":true}`); status != 200 {
		t.Errorf("128 choices: %d %.200s", status, body)
	}
	r.idle()
}

// Item 33: when the server is told to stop, streams end by themselves within the drain, new requests are refused.
func TestDrain(t *testing.T) {
	r := start(t, Options{DrainTimeout: 5 * time.Minute})
	if status, _ := r.post("/v1/completions", `{"max_tokens":1}`); status != 200 {
		t.Fatal(status)
	}
	if resp, _ := r.call("GET", "/ready", ""); resp.StatusCode != 200 {
		t.Errorf("ready: %d", resp.StatusCode)
	}
	resp := r.open(t.Context(), strings.Replace(long, "500", "100", 1))
	defer resp.Body.Close()
	r.stop()
	for !r.server.gate.draining() {
		time.Sleep(time.Millisecond)
	}
	refused, body := r.call("POST", "/v1/completions", `{}`)
	if refused.StatusCode != 503 || refused.Header.Get("Retry-After") == "" || !strings.Contains(body, "shutting_down") {
		t.Errorf("new request: %d %s", refused.StatusCode, body)
	}
	if resp, _ := r.call("GET", "/ready", ""); resp.StatusCode != 503 {
		t.Errorf("ready: %d", resp.StatusCode)
	}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
		t.Errorf("stream ends with %.200q, %v", rest[max(0, len(rest)-200):], err)
	}
}

// A stream that outlasts the drain ends with an error event.
func TestDrainTimeout(t *testing.T) {
	r := start(t, Options{DrainTimeout: time.Millisecond})
	resp := r.open(t.Context(), strings.Replace(long, `"max_tokens":500`, `"max_tokens":500,"n":16,"prompt":["a","b","c","d"]`, 1))
	defer resp.Body.Close()
	r.stop()
	rest, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Split(strings.TrimSpace(string(rest)), "\n\n")
	if last := all[len(all)-1]; !strings.Contains(last, `{"error":{`) || !strings.Contains(last, "shutting_down") {
		t.Errorf("stream ends with %q", last)
	}
	r.idle()
}

// A stream says that it lives while nothing comes, and a status can still be sent until it has.
func TestPings(t *testing.T) {
	r := start(t, Options{Ping: time.Millisecond})
	_, body := r.post("/v1/chat/completions", `{"model":"demo-moe","stream":true,"max_tokens":3,`+hello+`}`)
	if !strings.Contains(body, ": ping\n\n") || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("%s", body)
	}
	events(t, body)
}

// Nothing is ready before the pinned models are loaded, and a model that fails to load does not stop the others.
func TestReadiness(t *testing.T) {
	r := startPool(t, Options{Version: "v1"}, serve.PoolOptions{Models: serve.Sources(sources(t)), Pinned: []string{plainModel}})
	if resp, body := r.call("GET", "/ready", ""); resp.StatusCode != 503 || !strings.Contains(body, "loading") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if status, _ := r.post("/v1/completions", `{"model":"broken"}`); status != 500 {
		t.Errorf("broken: %d", status)
	}
	if status, body := r.post("/v1/completions", `{"model":"stories/260k:latest","max_tokens":1}`); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	for path, want := range map[string]string{
		"/ready": `"ready"`, "/version": `"v1"`, "/models/stories/260k:latest": `"max_model_len":512`, "/v1/models/stories%2F260k:latest": `"id":"stories/260k:latest"`,
		"/v1/models/Stories/260K": `"id":"stories/260k:latest"`,
		"/v1/models":              `"id":"broken"`,
	} {
		if resp, body := r.call("GET", path, ""); resp.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}
