package httpapi

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/winnow-llm/winnow/serve"
)

// scope names this package to OpenTelemetry.
const scope = "github.com/winnow-llm/winnow/httpapi"

// meters are the instruments that requests move. Their names become winnow_requests_total and so on.
type meters struct {
	requests   metric.Int64Counter     // by model, operation, status
	duration   metric.Float64Histogram // seconds of a request, by model, operation
	firstToken metric.Float64Histogram // seconds until the first piece of an answer
	perToken   metric.Float64Histogram // seconds for each further token of a request's answers
	tokens     metric.Int64Counter     // by model, kind
	refusals   metric.Int64Counter     // of requests without a key of the server's
}

// Bounds of histograms, in seconds.
var (
	durationBounds = []float64{0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
	firstBounds    = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	tokenBounds    = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5}
)

// newTelemetry registers the instruments in a registry of their own, and gauges that look at the pool's engines when they are read.
// That two instruments clash is a bug of this file.
func newTelemetry(pool *serve.Pool, tracers trace.TracerProvider) *telemetry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo())
	must(err)
	meter := sdk.NewMeterProvider(sdk.WithReader(exporter)).Meter(scope)
	if tracers == nil {
		tracers = noop.NewTracerProvider()
	}
	t := &telemetry{tracer: tracers.Tracer(scope), page: promhttp.HandlerFor(registry, promhttp.HandlerOpts{})}
	t.requests, err = meter.Int64Counter("winnow.requests", metric.WithDescription("Requests for generated text and for embeddings"))
	must(err)
	t.tokens, err = meter.Int64Counter("winnow.tokens", metric.WithDescription("Tokens of answered requests"))
	must(err)
	t.refusals, err = meter.Int64Counter("winnow.auth.failures", metric.WithDescription("Requests without a valid key"))
	must(err)
	for _, h := range []struct {
		dst        *metric.Float64Histogram
		name, what string
		bounds     []float64
	}{
		{&t.duration, "winnow.request.duration", "Time from a request to the end of its answer", durationBounds},
		{&t.firstToken, "winnow.time_to_first_token", "Time from a request to the first piece of its answer", firstBounds},
		{&t.perToken, "winnow.time_per_output_token", "Time for each token after the first", tokenBounds},
	} {
		*h.dst, err = meter.Float64Histogram(h.name, metric.WithUnit("s"), metric.WithDescription(h.what),
			metric.WithExplicitBucketBoundaries(h.bounds...))
		must(err)
	}
	watchEngines(meter, pool)
	watchPool(meter, pool)
	return t
}

// watchEngines registers what the engines of loaded models are busy with.
func watchEngines(meter metric.Meter, pool *serve.Pool) {
	gauge := func(name, what string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithDescription(what))
		must(err)
		return g
	}
	counter := func(name, what string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter(name, metric.WithDescription(what))
		must(err)
		return c
	}
	running := gauge("winnow.sequences.running", "Sequences that hold pages of the cache")
	waiting := gauge("winnow.sequences.waiting", "Sequences that wait for their turn")
	pages := gauge("winnow.pages", "Pages of the cache: used by sequences, cached for prompts that begin alike, free")
	steps := counter("winnow.steps", "Steps of the engine")
	rows := counter("winnow.rows", "Tokens that steps computed")
	preempted := counter("winnow.preemptions", "Times a sequence lost its pages to another")
	evicted := counter("winnow.pages.evicted", "Cached pages that were taken for other tokens")
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, l := range pool.Loaded() {
			u, model := l.Engine, attribute.String("model", l.Name)
			of := metric.WithAttributes(model)
			o.ObserveInt64(running, int64(u.Running), of)
			o.ObserveInt64(waiting, int64(u.Waiting), of)
			for state, n := range map[string]int{
				"used": u.PagesUsed, "cached": u.PagesCached, "free": u.PagesTotal - u.PagesUsed - u.PagesCached,
			} {
				o.ObserveInt64(pages, int64(n), metric.WithAttributes(model, attribute.String("state", state)))
			}
			o.ObserveInt64(steps, u.Steps, of)
			o.ObserveInt64(rows, u.Rows, of)
			o.ObserveInt64(preempted, u.Preempted, of)
			o.ObserveInt64(evicted, u.Evicted, of)
		}
		return nil
	}, running, waiting, pages, steps, rows, preempted, evicted)
	must(err)
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("winnow: bug: httpapi: metrics: %v", err))
	}
}
