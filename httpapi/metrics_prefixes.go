package httpapi

import (
	"context"

	"go.opentelemetry.io/otel/metric"

	"github.com/winnow-llm/winnow/serve"
)

// watchPrefixes registers what is kept of prompts on disk, for all models together. What each model finds there is its engine's to count.
func watchPrefixes(meter metric.Meter, pool *serve.Pool) {
	pages, err := meter.Int64ObservableGauge("winnow.prefix_disk.pages", metric.WithDescription("Pages of prompts that are kept on disk"))
	must(err)
	bytes, err := meter.Int64ObservableGauge("winnow.prefix_disk.bytes", metric.WithDescription("Bytes of the files that they are in"))
	must(err)
	errors, err := meter.Int64ObservableCounter("winnow.prefix_disk.errors",
		metric.WithDescription("Files of pages that were damaged, or could not be read or written"))
	must(err)
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		n := pool.Prefixes()
		o.ObserveInt64(pages, int64(n.Pages))
		o.ObserveInt64(bytes, n.Bytes)
		o.ObserveInt64(errors, n.Errors)
		return nil
	}, pages, bytes, errors)
	must(err)
}
