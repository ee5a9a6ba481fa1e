package httpapi

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/winnow-llm/winnow/serve"
)

// watchCache registers what of prompts was found made, and what was not.
func watchCache(meter metric.Meter, pool *serve.Pool) {
	hits, err := meter.Int64ObservableCounter("winnow.cache.hits",
		metric.WithDescription("Conversations found rendered, and runs of text found tokenised"))
	must(err)
	misses, err := meter.Int64ObservableCounter("winnow.cache.misses", metric.WithDescription("Those that were looked for in vain"))
	must(err)
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		n := pool.Cache()
		for kind, count := range map[string][2]int64{
			"rendered": {n.WrittenHits, n.WrittenMisses}, "tokenised": {n.TokenisedHits, n.TokenisedMisses},
		} {
			of := metric.WithAttributes(attribute.String("kind", kind))
			o.ObserveInt64(hits, count[0], of)
			o.ObserveInt64(misses, count[1], of)
		}
		return nil
	}, hits, misses)
	must(err)
}
