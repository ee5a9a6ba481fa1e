package serve

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/winnow-llm/winnow/engine"
)

// scope names this package to OpenTelemetry.
const scope = "github.com/winnow-llm/winnow/serve"

// Histogram counts values by size, as an engine's Usage has them.
type Histogram = engine.Histogram

// within begins a span of the request that ctx belongs to. What it returns ends the span. Where nobody records the request it costs
// nothing.
func within(ctx context.Context, name string) (end func()) {
	at := trace.SpanFromContext(ctx)
	if !at.IsRecording() {
		return func() {}
	}
	_, span := at.TracerProvider().Tracer(scope).Start(ctx, name)
	return func() { span.End() }
}

// timed takes the times of an answer to its newest token. The engine says them with the first token and with the last; an answer that ends
// before the engine's does, at a stop string, ends now, and of its choices only the first one's time is known.
func (u *Usage) timed(s *engine.Stats) {
	if s == nil {
		u.Total = time.Since(u.Started)
		return
	}
	u.Cached, u.Started, u.Queued, u.Sampling, u.Experts, u.Sparse = s.Cached, s.Arrived, s.Queued, s.Sampling, s.Experts, s.Sparse
	u.First = s.Queued + s.Prefill
	u.Total = u.First + s.Decode
}

// drafted counts what was foretold of an answer with its next token.
func (u *Usage) drafted(t *engine.Token) {
	u.Rejected += t.Rejected
	if t.Drafted {
		u.Accepted++
	}
	for _, by := range []struct {
		it bool
		*Foretold
	}{{t.ByModel, &u.ByModel}, {t.ByHead, &u.ByHead}} {
		if by.it {
			by.Rejected += t.Rejected
		}
		if by.it && t.Drafted {
			by.Accepted++
		}
	}
}

// spanned makes the times those of everything so far and of one embedding more.
func (u *Usage) spanned(s *engine.Stats) {
	begun, ended := s.Arrived.Add(s.Queued), s.Arrived.Add(s.Queued+s.Prefill)
	started := s.Arrived
	if !u.Started.IsZero() {
		started = earlier(u.Started, started)
		begun = earlier(u.Started.Add(u.Queued), begun)
		ended = later(u.Started.Add(u.Total), ended)
	}
	u.Started, u.Queued, u.Total = started, begun.Sub(started), ended.Sub(started)
	u.First = u.Total
	u.Cached += s.Cached
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
