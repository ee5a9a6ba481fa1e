package httpapi

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/winnow-llm/winnow/serve"
)

// telemetry counts and traces requests.
type telemetry struct {
	meters
	tracer trace.Tracer
	page   http.Handler // the metrics, in Prometheus's formats
}

// newTelemetry registers the metrics of a server.
func newTelemetry(pool *serve.Pool, opt *Options) *telemetry {
	tracers := opt.Tracer
	if tracers == nil {
		tracers = noop.NewTracerProvider()
	}
	t := &telemetry{tracer: tracers.Tracer(scope)}
	t.meters, t.page = newMetrics(pool, opt.Metrics)
	return t
}

// record is what is remembered of one request for its span and the metrics. It is of the request's own goroutine.
type record struct {
	t         *telemetry
	ctx       context.Context // the request's, with its span
	span      trace.Span
	operation string
	model     string // the loaded model's own name, never the client's word for it
	status    string // "ok", or the code of the fault
	broken    bool   // the fault is the server's
	started   time.Time
	first     time.Duration // until the first piece; 0 = none came
	finishes  []string
	usage     usage
	answers   []answered
}

// answered is an answer that came to its end.
type answered struct {
	choice int
	usage  serve.Usage
}

// start begins the record of a request. The span's parent is the client's, if it sends one.
func (t *telemetry) start(r *http.Request, operation string) *record {
	rec := &record{t: t, operation: operation, status: "ok", started: time.Now()}
	rec.ctx, rec.span = t.tracer.Start(parent.Extract(r.Context(), carrier(r.Header)), operation, trace.WithSpanKind(trace.SpanKindServer))
	if rec.span.IsRecording() {
		rec.span.SetAttributes(attribute.String(attrOperation, operation), attribute.String(attrProvider, provider))
		rec.reached(r)
	}
	return rec
}

// piece notes when the answer began and how its choices ended.
func (r *record) piece(p part) {
	if r.first == 0 {
		r.first = time.Since(r.started)
	}
	if p.delta.Finish != "" {
		r.finishes = append(r.finishes, p.delta.Finish)
		r.answers = append(r.answers, answered{p.choice, *p.delta.Usage})
	}
}

// embedded notes what all embeddings of a request took.
func (r *record) embedded(u *serve.Usage) { r.answers = append(r.answers, answered{usage: *u}) }

func (r *record) counted(u usage) { r.usage = u }

// failed notes how a request was refused.
func (r *record) failed(f *fault) {
	r.status, r.broken = f.Code, f.Status >= http.StatusInternalServerError
}

// end closes the span and counts the request.
func (r *record) end() {
	took := time.Since(r.started)
	r.t.count(r, took) // while the span is open, so that exemplars are of it
	r.endSpan(took)
}

// turnedAway counts a request that was refused before anybody looked at it. It has no span, since a server that is too busy for requests is
// too busy to say much about each.
func (t *telemetry) turnedAway(ctx context.Context, operation, code string) {
	t.requests.Add(ctx, 1, metric.WithAttributes(
		attribute.String("model", ""), attribute.String("operation", operation), attribute.String("status", code)))
}

// count enters a finished request in the metrics.
func (t *telemetry) count(r *record, took time.Duration) {
	ctx := context.WithoutCancel(r.ctx)
	model, operation := attribute.String("model", r.model), attribute.String("operation", r.operation)
	of := metric.WithAttributeSet(attribute.NewSet(model, operation))
	gen := []attribute.KeyValue{attribute.String(attrOperation, r.operation), attribute.String(attrProvider, provider)}
	if r.model != "" {
		gen = append(gen, attribute.String(attrModel, r.model), attribute.String(attrAnswering, r.model))
	}
	genOf := metric.WithAttributeSet(attribute.NewSet(gen...))
	t.requests.Add(ctx, 1, metric.WithAttributes(model, operation, attribute.String("status", r.status)))
	t.duration.Record(ctx, took.Seconds(), of)
	if r.status == "ok" {
		t.genDuration.Record(ctx, took.Seconds(), genOf)
	} else {
		t.genDuration.Record(ctx, took.Seconds(), metric.WithAttributes(append(gen, attribute.String(attrError, r.status))...))
	}
	if r.first > 0 {
		t.firstToken.Record(ctx, r.first.Seconds(), of)
		t.genFirst.Record(ctx, r.first.Seconds(), genOf)
	}
	if n := r.usage.Completion; n > 1 && r.first > 0 {
		each := (took - r.first).Seconds() / float64(n-1)
		t.perToken.Record(ctx, each, of)
		t.genPerToken.Record(ctx, each, genOf)
	}
	for _, c := range []struct {
		kind string
		n    int
	}{{"prompt", r.usage.Prompt}, {"cached", r.usage.Details.Cached}, {"completion", r.usage.Completion}} {
		if c.n > 0 {
			t.tokens.Add(ctx, int64(c.n), metric.WithAttributes(model, attribute.String("kind", c.kind)))
		}
	}
	t.countAnswers(ctx, r, model)
}

// countAnswers enters the answers that came to their end, whatever became of the request.
func (t *telemetry) countAnswers(ctx context.Context, r *record, model attribute.KeyValue) {
	for _, finish := range r.finishes {
		t.answers.Add(ctx, 1, metric.WithAttributes(model, attribute.String("finish", finish)))
	}
	of := metric.WithAttributeSet(attribute.NewSet(model))
	for i := range r.answers {
		u := &r.answers[i].usage
		if u.Started.IsZero() { // nothing was computed
			continue
		}
		t.queue.Record(ctx, u.Queued.Seconds(), of)
		t.prefill.Record(ctx, (u.First - u.Queued).Seconds(), of)
		t.inference.Record(ctx, (u.Total - u.Queued).Seconds(), of)
		if u.Completion > 0 {
			t.decode.Record(ctx, (u.Total - u.First).Seconds(), of)
		}
	}
}
