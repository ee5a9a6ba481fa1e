// Package httpapi is the wire: OpenAI's routes for chat, completions and embeddings, ollama's own API, the list of models, health and
// metrics, over gin. It decodes and checks what clients send, and hands the rest to package serve.
package httpapi

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/winnow-llm/winnow/serve"
)

// Options are what an operator decides about a server. The zero value is a server for this machine's own clients.
type Options struct {
	Version      string               // as GET /version says it
	Hosts        []string             // names under which it may be called; where it listens on loopback, beside the loopback names
	Origins      []string             // web origins that may call it beside its own and local ones: "https://chat.example", or "*"
	Library      *serve.Library       // the store that clients may look at and change; nil = there is none
	Keys         *Keys                // who may call; nil = everybody who can reach the server
	BodyLimit    int64                // bytes of a request; 0 = 8 MiB
	BlobLimit    int64                // bytes of a file that a client brings for the library; 0 = 1 TiB
	Requests     int                  // most requests for text or embeddings in progress; 0 = 1024
	Ping         time.Duration        // silence after which a stream gets a comment; 0 = 15 s
	BodyTimeout  time.Duration        // for a request's body to arrive, and for each piece of a file; 0 = 30 s
	WriteTimeout time.Duration        // for a client to take one write; 0 = 30 s
	DrainTimeout time.Duration        // for requests to end after Serve was told to stop; 0 = 30 s
	Tracer       trace.TracerProvider // nil = no traces
	Metrics      []metric.Option      // further readers of what GET /metrics has, and the resource that they name; a reader's producer is EngineMetrics
	Log          *slog.Logger         // nil = slog.Default()
}

func (o Options) filled() Options {
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.Ping, 15 * time.Second}, {&o.BodyTimeout, 30 * time.Second},
		{&o.WriteTimeout, 30 * time.Second}, {&o.DrainTimeout, 30 * time.Second},
	} {
		if *f.v <= 0 {
			*f.v = f.def
		}
	}
	if o.BodyLimit <= 0 {
		o.BodyLimit = 8 << 20
	}
	if o.BlobLimit <= 0 {
		o.BlobLimit = 1 << 40
	}
	if o.Requests <= 0 {
		o.Requests = 1024
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// Server answers HTTP requests with the models of a pool. It is an http.Handler; Serve runs it with its limits and its drain.
type Server struct {
	pool      *serve.Pool
	opt       Options
	log       *slog.Logger
	routes    *gin.Engine
	gate      *gate
	telemetry *telemetry
	loopback  bool               // it listens where only this machine's programs can call
	cut       context.Context    // ends when the drain's time is up
	cutOff    context.CancelFunc // ends it
}

// New makes a server. The pool stays the caller's, who closes it after Serve has returned.
func New(pool *serve.Pool, opt Options) *Server {
	opt = opt.filled()
	s := &Server{pool: pool, opt: opt, log: opt.Log, gate: newGate(opt.Requests), telemetry: newTelemetry(pool, &opt)}
	s.cut, s.cutOff = context.WithCancel(context.Background())
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.RedirectTrailingSlash, r.HandleMethodNotAllowed = false, true
	r.Use(s.observe, s.recover, s.guard, s.authenticate)
	r.NoRoute(func(c *gin.Context) {
		s.fail(c, &fault{Status: http.StatusNotFound, Type: typeRequest, Code: codeRoute, Message: "no such route"})
	})
	r.NoMethod(func(c *gin.Context) {
		s.fail(c, &fault{Status: http.StatusMethodNotAllowed, Type: typeRequest, Code: codeMethod, Message: "the route has no such method"})
	})
	chat := s.generate(endpoint{"chat", "chatcmpl-", parseChat})
	completions := s.generate(endpoint{"text_completion", "cmpl-", parseCompletion})
	embeddings := s.exchange("embeddings", func(ctx context.Context, x *exchange) error { return x.embed(ctx) })
	for _, base := range []string{"/v1", ""} {
		r.POST(base+"/chat/completions", chat)
		r.POST(base+"/completions", completions)
		r.POST(base+"/embeddings", embeddings)
		r.GET(base+"/models", s.models)
		r.GET(base+"/models/*id", s.model)
	}
	s.ollamaRoutes(r)
	r.GET("/health", s.health)
	r.GET("/ready", s.ready)
	r.GET("/version", s.version)
	r.GET("/debug/moe", s.experts)
	r.POST("/debug/moe", s.resizeExperts)
	r.GET("/metrics", gin.WrapH(s.telemetry.page))
	s.routes = r
	return s
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

// cancellable is a request's context, which also ends when a drain's time is up.
func (s *Server) cancellable(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(s.cut, func() { cancel(errDraining) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// Limits of connections.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	headerBytes   = 64 << 10
	closeTimeout  = 5 * time.Second // for connections to end after the last request did
)

// listensLocally says whether only programs of this machine reach an address.
func listensLocally(a net.Addr) bool {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.IP.IsLoopback()
	}
	return a.Network() == "unix"
}
