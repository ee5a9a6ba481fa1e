package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/winnow-llm/winnow/serve"
)

// dialect is one wire format of requests for generated text, and the request that came in it.
type dialect interface {
	shared() *plan
	object() string
	answers(ctx context.Context, m *serve.Model) []iter.Seq2[serve.Delta, error]
	whole(h head, all []serve.Delta, u usage) any   // the answer that is not streamed
	chunks(h head, choice int, d serve.Delta) []any // events of a piece of an answer
	last(h head, u json.RawMessage) any             // event with the counts
}

// endpoint is a route for generated text.
type endpoint struct {
	operation string // as traces and metrics call it
	prefix    string // of the answer's id
	parse     func(body []byte) (dialect, error)
}

// exchange is one request to an endpoint and its answer.
type exchange struct {
	s      *Server
	c      *gin.Context
	record *record
	head   head
	out    *stream
}

// generate answers requests to an endpoint.
func (s *Server) generate(e endpoint) gin.HandlerFunc {
	return s.exchange(e.operation, func(ctx context.Context, x *exchange) error { return x.run(ctx, e) })
}

// exchange answers requests by a function, whose context ends with the client or with the drain: it counts them, traces them, and tells
// the client of an error.
func (s *Server) exchange(operation string, answer func(context.Context, *exchange) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := s.gate.enter(); err != nil {
			s.telemetry.turnedAway(c.Request.Context(), operation, faultOf(err).Code)
			s.fail(c, err)
			return
		}
		defer s.gate.leave()
		x := &exchange{s: s, c: c, record: s.telemetry.start(c.Request, operation), out: newStream(c.Writer, s.opt.WriteTimeout)}
		defer x.record.end()
		c.Request = c.Request.WithContext(x.record.ctx) // so that log lines name the span
		ctx, cancel := s.cancellable(x.record.ctx)
		defer cancel()
		if err := answer(ctx, x); err != nil {
			x.fail(err)
		}
	}
}

// run takes a request from its body to the last byte of its answer.
func (x *exchange) run(ctx context.Context, e endpoint) error {
	body, err := x.s.body(x.c)
	if err != nil {
		return err
	}
	d, err := e.parse(body)
	if err != nil {
		return err
	}
	p := d.shared()
	x.record.asked(p)
	m, err := x.acquire(ctx, p)
	if err != nil {
		return err
	}
	defer m.Release()
	x.head = head{
		ID: e.prefix + strings.ReplaceAll(uuid.NewString(), "-", ""), Object: d.object(),
		Created: time.Now().Unix(), Model: m.Name(), Warnings: p.Warnings,
	}
	x.record.answering(x.head, m.Loading)
	ctx, cancel := context.WithCancel(ctx)
	answers := d.answers(ctx, m.Model)
	parts := together(ctx, answers)
	defer func() {
		cancel()
		for range parts { // the model is released when nobody uses it any more
		}
	}()
	if p.Stream {
		return x.stream(ctx, d, parts, len(answers))
	}
	return x.whole(ctx, d, parts, len(answers))
}

// acquire waits for the model. A client of a stream hears meanwhile that the connection lives.
func (x *exchange) acquire(ctx context.Context, p *plan) (*serve.Lease, error) {
	if !p.Stream {
		return x.s.pool.Acquire(ctx, p.Model)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var lease *serve.Lease
	var refused error
	done := make(chan struct{})
	go func() {
		defer close(done)
		lease, refused = x.s.pool.Acquire(ctx, p.Model)
	}()
	quiet := time.NewTicker(x.s.opt.Ping)
	defer quiet.Stop()
	for {
		select {
		case <-done:
			return lease, refused
		case <-quiet.C:
		}
		if err := x.out.ping(); err != nil {
			cancel()
			if <-done; lease != nil {
				lease.Release()
			}
			return nil, err
		}
	}
}

// whole waits for all answers and sends them at once.
func (x *exchange) whole(ctx context.Context, d dialect, parts <-chan part, n int) error {
	all, counts := make([]serve.Delta, n), make([]serve.Usage, n)
	for p := range parts {
		if p.err != nil {
			return p.err
		}
		x.record.piece(p)
		a := &all[p.choice]
		a.Text, a.Reasoning = a.Text+p.delta.Text, a.Reasoning+p.delta.Reasoning
		a.Tokens, a.Prompt = append(a.Tokens, p.delta.Tokens...), append(a.Prompt, p.delta.Prompt...)
		if p.delta.Finish != "" {
			a.Finish, a.Usage, counts[p.choice] = p.delta.Finish, p.delta.Usage, *p.delta.Usage
		}
	}
	if err := x.complete(ctx, all); err != nil {
		return err
	}
	u := tally(counts, d.shared().N)
	x.record.counted(u)
	return x.s.reply(x.c, http.StatusOK, d.whole(x.head, all, u))
}

// stream sends the pieces of all answers as they come. Nothing is sent before the first piece or the first ping, so that a request
// that fails early gets its status.
func (x *exchange) stream(ctx context.Context, d dialect, parts <-chan part, n int) error {
	quiet := time.NewTicker(x.s.opt.Ping)
	defer quiet.Stop()
	all, counts := make([]serve.Delta, n), make([]serve.Usage, n)
	for open := true; open; {
		select {
		case <-quiet.C:
			if err := x.out.ping(); err != nil {
				return err
			}
		case p, ok := <-parts:
			if open = ok; !ok {
				break
			}
			if p.err != nil {
				return p.err
			}
			x.record.piece(p)
			if p.delta.Finish != "" {
				all[p.choice].Finish, counts[p.choice] = p.delta.Finish, *p.delta.Usage
			}
			for _, event := range d.chunks(x.head, p.choice, p.delta) {
				if err := x.out.event(event); err != nil {
					return err
				}
				x.head.Warnings = nil // said once
			}
			quiet.Reset(x.s.opt.Ping)
		}
	}
	if err := x.complete(ctx, all); err != nil {
		return err
	}
	return x.close(d, tally(counts, d.shared().N))
}

// complete says why answers are missing, if any are: whoever ended the context before they did.
func (x *exchange) complete(ctx context.Context, all []serve.Delta) error {
	for i, a := range all {
		if a.Finish != "" {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return fmt.Errorf("choice %d ended without a reason", i)
	}
	return nil
}

// close ends a stream whose answers are complete.
func (x *exchange) close(d dialect, u usage) error {
	x.record.counted(u)
	if d.shared().Usage {
		raw, err := json.Marshal(u)
		if err != nil {
			return fmt.Errorf("encode usage: %w", err)
		}
		if err := x.out.event(d.last(x.head, raw)); err != nil {
			return err
		}
	}
	return x.out.done()
}

// fail answers with an error: as a body, or as the last event of a stream that has begun.
func (x *exchange) fail(err error) {
	f := x.s.report(x.c, err)
	x.record.failed(f)
	if f.Status == statusGone {
		x.c.Abort()
		return
	}
	if !x.out.begun {
		x.s.refuse(x.c, f)
		return
	}
	if err := x.out.event(errorOn(x.c, f)); err != nil {
		x.s.log.DebugContext(x.record.ctx, "error event not sent", "id", requestID(x.c), "err", err)
	}
}

// fail answers with an error where nothing was sent yet.
func (s *Server) fail(c *gin.Context, err error) { s.refuse(c, s.report(c, err)) }

// report finds how an error is answered, and logs what the client is not told.
func (s *Server) report(c *gin.Context, err error) *fault {
	f := faultOf(err)
	if f.Status >= http.StatusInternalServerError && f.Status != http.StatusServiceUnavailable && f.Status != http.StatusNotImplemented {
		s.log.ErrorContext(c.Request.Context(), "request failed", "id", requestID(c), "route", c.FullPath(), "err", err)
	}
	return f
}

// refuse sends a fault as the answer.
func (s *Server) refuse(c *gin.Context, f *fault) {
	c.Abort()
	switch {
	case f.Retry > 0:
		c.Header("Retry-After", strconv.Itoa(int(max(f.Retry, time.Second)/time.Second)))
	case f.Status >= http.StatusInternalServerError:
		c.Header("X-Should-Retry", "false") // as clients would by themselves
	}
	if err := s.reply(c, f.Status, errorOn(c, f)); err != nil {
		s.log.DebugContext(c.Request.Context(), "error not sent", "id", requestID(c), "err", err)
	}
}

// reply sends a JSON body.
func (s *Server) reply(c *gin.Context, status int, v any) error {
	var buf bytes.Buffer
	if err := encodeJSON(&buf, v); err != nil {
		return err
	}
	h := c.Writer.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(buf.Len()))
	c.Writer.WriteHeader(status)
	return write(c.Writer, http.NewResponseController(c.Writer), buf.Bytes(), s.opt.WriteTimeout)
}
