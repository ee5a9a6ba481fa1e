package httpapi

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/winnow-llm/winnow/serve"
)

// telemetry counts and traces requests.
type telemetry struct {
	meters
	tracer trace.Tracer
	page   http.Handler // the metrics, in Prometheus's format
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
}

// start begins the record of a request. The span's parent is the client's, if it sends one.
func (t *telemetry) start(r *http.Request, operation string) *record {
	rec := &record{t: t, operation: operation, status: "ok", started: time.Now()}
	rec.ctx, rec.span = t.tracer.Start(parent.Extract(r.Context(), carrier(r.Header)), operation,
		trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
			attribute.String(attrOperation, operation), attribute.String(attrProvider, provider)))
	return rec
}

// piece notes when the answer began and how its choices ended.
func (r *record) piece(d serve.Delta) {
	if r.first == 0 {
		r.first = time.Since(r.started)
	}
	if d.Finish != "" {
		r.finishes = append(r.finishes, d.Finish)
	}
}

func (r *record) counted(u usage) { r.usage = u }

// failed notes how a request was refused.
func (r *record) failed(f *fault) {
	r.status, r.broken = f.Code, f.Status >= http.StatusInternalServerError
}

// end closes the span and counts the request.
func (r *record) end() {
	took := time.Since(r.started)
	r.endSpan()
	r.t.count(r, took)
}

// count enters a finished request in the metrics. Labels are bounded: the models of the pool and words of this package.
func (t *telemetry) count(r *record, took time.Duration) {
	ctx := context.WithoutCancel(r.ctx)
	of := metric.WithAttributes(attribute.String("model", r.model), attribute.String("operation", r.operation))
	t.requests.Add(ctx, 1, metric.WithAttributes(
		attribute.String("model", r.model), attribute.String("operation", r.operation), attribute.String("status", r.status)))
	t.duration.Record(ctx, took.Seconds(), of)
	if r.first > 0 {
		t.firstToken.Record(ctx, r.first.Seconds(), of)
	}
	if n := r.usage.Completion; n > 1 && r.first > 0 {
		t.perToken.Record(ctx, (took-r.first).Seconds()/float64(n-1), of)
	}
	for kind, n := range map[string]int{
		"prompt": r.usage.Prompt, "cached": r.usage.Details.Cached, "completion": r.usage.Completion,
	} {
		if n > 0 {
			t.tokens.Add(ctx, int64(n), metric.WithAttributes(attribute.String("model", r.model), attribute.String("kind", kind)))
		}
	}
}
