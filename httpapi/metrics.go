package httpapi

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/winnow-llm/winnow/serve"
)

// scope names this package to OpenTelemetry.
const scope = "github.com/winnow-llm/winnow/httpapi"

// meters are the instruments that requests move. Prometheus names them with underscores, units and _total: winnow_requests_total,
// gen_ai_server_request_duration_seconds. Their labels are bounded: models of the pool, and words of this package and of package serve.
type meters struct {
	requests   metric.Int64Counter     // by model, operation, status
	answers    metric.Int64Counter     // by model, finish
	tokens     metric.Int64Counter     // by model, kind
	refusals   metric.Int64Counter     // of requests without a key of the server's
	duration   metric.Float64Histogram // seconds of a request, by model, operation
	firstToken metric.Float64Histogram // seconds until the first piece of an answer
	perToken   metric.Float64Histogram // seconds for each further token of a request's answers

	// Of each answer, by model.
	queue, prefill, decode, inference metric.Float64Histogram // seconds; the last is prefill and decode together

	// The same as the first three by the names, buckets and labels of OpenTelemetry's conventions.
	genDuration, genFirst, genPerToken metric.Float64Histogram
}

// Bounds of histograms, in seconds. Those of OpenTelemetry's conventions begin later for tokens than ours.
var (
	durationBounds = []float64{0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
	firstBounds    = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	tokenBounds    = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5}
	genTokenBounds = []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5}
	phaseBounds    = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80}
)

// newMetrics registers the instruments of requests, and returns the page that has them beside what engines say of themselves. Further
// options of the provider are the operator's: other readers. That two instruments clash is a bug of this file.
func newMetrics(pool *serve.Pool, further []sdk.Option) (m meters, page http.Handler) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithProducer(EngineMetrics(pool)),
		otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo())
	must(err)
	meter := sdk.NewMeterProvider(append([]sdk.Option{sdk.WithReader(exporter)}, further...)...).Meter(scope)
	m.register(meter)
	watchPool(meter, pool)
	watchCache(meter, pool)
	watchPrefixes(meter, pool)
	return m, promhttp.HandlerFor(withAliases(registry), promhttp.HandlerOpts{EnableOpenMetrics: true})
}

func (m *meters) register(meter metric.Meter) {
	for _, c := range []struct {
		dst        *metric.Int64Counter
		name, what string
	}{
		{&m.requests, "winnow.requests", "Requests for generated text and for embeddings"},
		{&m.answers, "winnow.answers", "Answers that came to their end, by why they ended"},
		{&m.tokens, "winnow.tokens", "Tokens of answered requests"},
		{&m.refusals, "winnow.auth.failures", "Requests without a valid key"},
	} {
		var err error
		*c.dst, err = meter.Int64Counter(c.name, metric.WithDescription(c.what))
		must(err)
	}
	for _, h := range []struct {
		dst        *metric.Float64Histogram
		name, what string
		bounds     []float64
	}{
		{&m.duration, "winnow.request.duration", "Time from a request to the end of its answer", durationBounds},
		{&m.firstToken, "winnow.time_to_first_token", "Time from a request to the first piece of its answer", firstBounds},
		{&m.perToken, "winnow.time_per_output_token", "Time for each token after the first", tokenBounds},
		{&m.queue, "winnow.answer.queue_time", "Time that an answer waited for its first step", phaseBounds},
		{&m.prefill, "winnow.answer.prefill_time", "Time from an answer's first step to its first token", phaseBounds},
		{&m.decode, "winnow.answer.decode_time", "Time from an answer's first token to its last", phaseBounds},
		{&m.inference, "winnow.answer.inference_time", "Time from an answer's first step to its last token", phaseBounds},
		{&m.genDuration, "gen_ai.server.request.duration", "Time from a request to the end of its answer", durationBounds},
		{&m.genFirst, "gen_ai.server.time_to_first_token", "Time from a request to the first piece of its answer", firstBounds},
		{&m.genPerToken, "gen_ai.server.time_per_output_token", "Time for each token after the first", genTokenBounds},
	} {
		var err error
		*h.dst, err = meter.Float64Histogram(h.name, metric.WithUnit("s"), metric.WithDescription(h.what),
			metric.WithExplicitBucketBoundaries(h.bounds...))
		must(err)
	}
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("winnow: bug: httpapi: metrics: %v", err))
	}
}
