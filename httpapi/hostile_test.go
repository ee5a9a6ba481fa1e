package httpapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Item 18: names and origins that are not the server's.
func TestForeignCallers(t *testing.T) {
	r := start(t, Options{Hosts: []string{"Winnow.example"}, Origins: []string{"https://chat.example"}})
	for _, c := range []struct {
		method string
		header []string
		status int
	}{
		{"GET", []string{"Host", "evil.example"}, 403},
		{"GET", []string{"Host", "evil.example:11435"}, 403},
		{"GET", []string{"Host", "localhost.evil.example"}, 403},
		{"GET", []string{"Host", "169.254.1.1"}, 403},
		{"GET", []string{"Host", "localhost:1"}, 200},
		{"GET", []string{"Host", "[::1]:80"}, 200},
		{"GET", []string{"Host", "127.0.0.1"}, 200},
		{"GET", []string{"Host", "winnow.example"}, 200},
		{"GET", []string{"Origin", "https://evil.example"}, 403},
		{"GET", []string{"Origin", "null"}, 403},
		{"GET", []string{"Origin", "http://localhost.evil.example"}, 403},
		{"GET", []string{"Origin", "file://localhost"}, 403},
		{"GET", []string{"Origin", "http://localhost:3000"}, 200},
		{"GET", []string{"Origin", "https://chat.example"}, 200},
		{"OPTIONS", []string{"Origin", "https://evil.example", "Access-Control-Request-Method", "POST"}, 403},
		{"OPTIONS", []string{"Origin", "https://chat.example", "Access-Control-Request-Method", "POST"}, 204},
		{"OPTIONS", nil, 405},
	} {
		resp, _ := r.call(c.method, "/v1/models", "", c.header...)
		if resp.StatusCode != c.status {
			t.Errorf("%s %v: %d, want %d", c.method, c.header, resp.StatusCode, c.status)
		}
		allowed := resp.Header.Get("Access-Control-Allow-Origin")
		if origin := strings.Contains(fmt.Sprint(c.header), "Origin"); (allowed != "") != (origin && c.status < 400) {
			t.Errorf("%s %v: allows %q", c.method, c.header, allowed)
		}
		if c.status == 204 && resp.Header.Get("Access-Control-Allow-Headers") != "*" {
			t.Errorf("preflight: %v", resp.Header)
		}
	}
	r.healthy()
}

func TestRequestID(t *testing.T) {
	r := start(t, Options{})
	for id, same := range map[string]bool{"abc-1": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "a b": false, "é": false, "": false} {
		resp, _ := r.call("GET", "/health", "", "X-Request-Id", id)
		if got := resp.Header.Get("X-Request-Id"); got == "" || (got == id) != same {
			t.Errorf("%q came back as %q", id, got)
		}
	}
}

// Item 19: bodies and headers that are too large, too slow or of the wrong kind. Each is a raw exchange.
func TestHostileFrames(t *testing.T) {
	r := start(t, Options{BodyLimit: 1 << 10, BodyTimeout: 200 * time.Millisecond})
	post := "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
	body := "{" + hello + "}"
	for name, c := range map[string]struct {
		send   string
		status int
		code   string
	}{
		"large body":       {post + "Content-Type: application/json\r\nContent-Length: 2000\r\n\r\n" + strings.Repeat(" ", 2000), 413, "request_too_large"},
		"endless body":     {post + "Transfer-Encoding: chunked\r\n\r\n800\r\n" + strings.Repeat(" ", 2048) + "\r\n", 413, "request_too_large"},
		"slow body":        {post + "Content-Length: 50\r\n\r\n{", 408, "request_timeout"},
		"unread body":      {"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{", 200, "ok"},
		"body of no route": {"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", 404, codeRoute},
		"form":             {post + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\na=b", 415, codeMedia},
		"wrong type":       {post + "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415, codeMedia},
		"no type at all":   {post + "Content-Type: ;;\r\nContent-Length: 2\r\n\r\n{}", 415, codeMedia},
		"compressed":       {post + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415, codeMedia},
		"bad chunks":       {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, codeJSON},
		"large header":     {post + "X: " + strings.Repeat("x", 200<<10) + "\r\n\r\n", 431, ""},
		"many headers":     {post + strings.Repeat("X: y\r\n", 100_000) + "\r\n", 431, ""},
		"no length":        {post + "\r\n", 400, codeJSON},
		"two host headers": {post + "Host: evil.example\r\nContent-Length: 0\r\n\r\n", 400, ""},
		"no such method":   {"BREW /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, codeMethod},
		"odd path":         {"GET //v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, codeRoute},
		"dots":             {"GET /v1/models/%2e%2e%2fx HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "model_not_found"},
		"slash behind":     {"GET /v1/chat/completions/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, codeRoute},
		"no model":         {post + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body)+12, `{"model":"x"`+body[:0]+`,`+body[1:]), 404, "model_not_found"},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		go io.WriteString(conn, c.send) // the server may answer before it has read all
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			conn.Close()
			continue
		}
		got, err := io.ReadAll(resp.Body)
		if resp.StatusCode != c.status || !strings.Contains(string(got), c.code) {
			t.Errorf("%s: %d %.200s (%v), want %d %s", name, resp.StatusCode, got, err, c.status, c.code)
		}
		conn.Close()
		r.healthy()
	}
}

// Items 20 to 23 on the wire, and 25: prompts at the end of the context. After each the server answers as before.
func TestHostileRequests(t *testing.T) {
	r := start(t, Options{})
	for path, list := range map[string][]refusal{"/v1/chat/completions": badChats, "/v1/completions": badCompletions} {
		for _, c := range list {
			if status, body := r.post(path, c.body); status != 400 || !strings.Contains(body, `"code":"`+c.code+`"`) {
				t.Errorf("%.100s: %d %.200s", c.body, status, body)
			}
		}
		r.healthy()
	}
	ids := func(n int) string { return `{"temperature":0,"prompt":[` + strings.Repeat("5,", n-1) + `5]` }
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{ids(511) + `}`, 200, `"finish_reason":"length"`},
		{ids(511) + `,"max_tokens":1000}`, 200, `"completion_tokens":1,`},
		{ids(512) + `}`, 400, `the prompt has 512 tokens; this model's context is 512 tokens`},
		{ids(512) + `,"max_tokens":0}`, 200, `"prompt_tokens":512,`},
		{ids(513) + `,"max_tokens":0}`, 400, "context_length_exceeded"},
		{ids(1_000_000) + `}`, 400, "context_length_exceeded"},
		{`{"prompt":[511,512]}`, 400, `"param":"prompt"`},
		{`{"prompt":"a","stop_token_ids":[512]}`, 400, `"param":"stop_token_ids"`},
		{`{"model":"broken"}`, 500, "model_load_failed"},
		{`{"model":"../../x\n"}`, 404, "model_not_found"},
		{`{"model":"` + strings.Repeat("x", 64<<10) + `"}`, 404, "model_not_found"},
	} {
		status, body := r.post("/v1/completions", c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%.80s: %d %.300s, want %d %s", c.body, status, body, c.status, c.want)
		}
		if status, streamed := r.post("/v1/completions", strings.TrimSuffix(c.body, "}")+`,"stream":true}`); status != c.status {
			t.Errorf("%.80s, streamed: %d %.300s", c.body, status, streamed)
		}
		r.healthy()
	}
	if resp, _ := r.call("POST", "/v1/completions", `{"model":"broken"}`); resp.Header.Get("X-Should-Retry") != "false" {
		t.Errorf("a permanent failure may be tried again: %v", resp.Header)
	}
	if status, body := r.post("/v1/completions", `{"max_tokens":3}`); status != 200 {
		t.Errorf("then: %d %s", status, body)
	}
}

// What a template refuses is the client's affair, and no argument replaces what the server says.
func TestTemplateArguments(t *testing.T) {
	r := start(t, Options{})
	for fields, want := range map[string]string{
		`"chat_template_kwargs":{"messages":[]}`:               `"param":"chat_template_kwargs"`,
		`"chat_template_kwargs":{"add_generation_prompt":0}`:   `"param":"chat_template_kwargs"`,
		`"chat_template_kwargs":{"eos_token":"x"}`:             `"param":"chat_template_kwargs"`,
		`"chat_template_kwargs":{"unused":{"a":[1,2.5,null]}}`: `"finish_reason"`,
	} {
		if _, body := r.post("/v1/chat/completions", `{"model":"demo-moe","max_tokens":1,`+fields+`,`+hello+`}`); !strings.Contains(body, want) {
			t.Errorf("%s: %s", fields, body)
		}
	}
}

// The table has a rule for every error that can end a request; an unknown one stays inside.
func TestFaults(t *testing.T) {
	f := faultOf(fmt.Errorf("open /secret/path: %w", errors.ErrUnsupported))
	if f.Status != 500 || f.Code != codeInternal || strings.Contains(f.Message, "secret") {
		t.Errorf("%+v", f)
	}
	for _, r := range rules {
		if f := faultOf(fmt.Errorf("while testing: %w", r.when)); f.Status != r.fault.Status || f.Message == "" || f.Code == "" {
			t.Errorf("%v: %+v", r.when, f)
		}
	}
}
