package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/winnow-llm/winnow/configs"
)

// collector takes what is sent over OTLP, by path.
type collector struct {
	mu   sync.Mutex
	sent map[string][]byte
}

func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && r.Header.Get("X-Test") == "yes" {
		c.sent[r.URL.Path] = append(c.sent[r.URL.Path], b...)
	}
}

// A collector that the standard variables name gets traces, metrics and logs of this service, and nothing that anybody said.
func TestTelemetryIsSent(t *testing.T) {
	alone(t)
	c := &collector{sent: map[string][]byte{}}
	there := httptest.NewServer(c)
	defer there.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", there.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-test=yes")
	t.Setenv("OTEL_SERVICE_NAME", "winnow-under-test")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=none-at-all")
	url, stop := serving(t, "demo", "--log", "debug")
	if status, body := ask(t, url, "demo"); status != 200 {
		t.Error(body)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for path, words := range map[string][]string{
		"/v1/traces":  {"chat demo", "gen_ai.request.model", "sampling", "gen_ai.latency.e2e"},
		"/v1/metrics": {"winnow.request.duration", "winnow.inter_token_latency", "winnow.pages", "gen_ai.server.time_to_first_token"},
		"/v1/logs":    {"/v1/chat/completions", "draining"},
	} {
		for _, word := range append(words, "service.name", "winnow-under-test", "none-at-all", version) {
			if !bytes.Contains(c.sent[path], []byte(word)) {
				t.Errorf("%s has %d bytes without %q", path, len(c.sent[path]), word)
			}
		}
		if bytes.Contains(c.sent[path], []byte("Tell me")) {
			t.Errorf("%s has the prompt", path)
		}
	}
}

// Without variables nothing is set up. A collector that does not answer holds up neither requests nor the end.
func TestDeadCollector(t *testing.T) {
	alone(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+ln.Addr().String())
	url, stop := serving(t, "demo")
	if status, body := ask(t, url, "demo"); status != 200 {
		t.Error(body)
	}
	if err := stop(); err != nil { // which is bounded
		t.Error(err)
	}
	x, err := openExports(t.Context(), configs.Telemetry{}, slog.Default())
	if err != nil || x.tracer != nil || x.log != slog.Default() || len(x.ends) > 0 {
		t.Errorf("%+v, %v", x, err)
	}
	if readers, err := x.readers(t.Context(), nil); len(readers) > 0 || err != nil {
		t.Errorf("%v, %v", readers, err)
	}
}

func TestBadTelemetryIsRefused(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "pigeon")
	for _, asked := range []configs.Telemetry{{Traces: true}, {Logs: true}} {
		if _, err := openExports(t.Context(), asked, slog.Default()); err == nil || !strings.Contains(err.Error(), "protocol") {
			t.Errorf("%+v: %v", asked, err)
		}
	}
}

// Lines of a request name its span on both ways; a level holds for both.
func TestLinesNameTheirSpan(t *testing.T) {
	var text, other bytes.Buffer
	stderr := traced{slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelInfo})}
	log := slog.New(slog.NewMultiHandler(stderr, likewise{slog.NewTextHandler(&other, &slog.HandlerOptions{Level: slog.LevelDebug}), stderr}))
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	log.With("a", 1).InfoContext(ctx, "within")
	log.Info("outside")
	log.DebugContext(ctx, "too little")
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 2 || !strings.HasSuffix(lines[0], "msg=within a=1 trace_id=01000000000000000000000000000000 span_id=0200000000000000") ||
		!strings.HasSuffix(lines[1], "msg=outside") {
		t.Errorf("%q", lines)
	}
	if n := strings.Count(other.String(), "\n"); n != 2 {
		t.Errorf("the other way has %q", other.String())
	}
}

// One complaint a minute is logged, and how many were not.
func TestComplaintsAreFew(t *testing.T) {
	var out bytes.Buffer
	c := &complaints{log: slog.New(slog.NewTextHandler(&out, nil))}
	for range 100 {
		c.Handle(errors.New("nobody there"))
	}
	c.last = c.last.Add(-time.Minute)
	c.Handle(errors.New("nobody there"))
	if lines := strings.Count(out.String(), "\n"); lines != 2 || !strings.Contains(out.String(), "more=99") {
		t.Errorf("%s", out.String())
	}
}
