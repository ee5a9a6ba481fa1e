package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// traced writes which span a line belongs to, where a request has one.
type traced struct{ slog.Handler }

func (t traced) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return t.Handler.Handle(ctx, r)
}

func (t traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{t.Handler.WithAttrs(attrs)} }
func (t traced) WithGroup(name string) slog.Handler       { return traced{t.Handler.WithGroup(name)} }

// likewise takes the lines that another one takes.
type likewise struct {
	slog.Handler
	other slog.Handler
}

func (l likewise) Enabled(ctx context.Context, level slog.Level) bool {
	return l.other.Enabled(ctx, level) && l.Handler.Enabled(ctx, level)
}

func (l likewise) WithAttrs(attrs []slog.Attr) slog.Handler {
	return likewise{l.Handler.WithAttrs(attrs), l.other}
}
func (l likewise) WithGroup(name string) slog.Handler {
	return likewise{l.Handler.WithGroup(name), l.other}
}

// complaints is where OpenTelemetry reports what it could not do, as that a collector does not answer. One of them a minute is logged.
type complaints struct {
	log *slog.Logger

	mu   sync.Mutex
	last time.Time // of a line
	more int       // since then
}

// Handle takes one complaint.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	now, more := time.Now(), c.more
	quiet := !c.last.IsZero() && now.Sub(c.last) < time.Minute
	if c.more++; !quiet {
		c.last, c.more = now, 0
	}
	c.mu.Unlock()
	if !quiet {
		c.log.Warn("telemetry is not sent", "err", err, "more", more)
	}
}
