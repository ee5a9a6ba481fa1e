package httpapi

import (
	"context"

	"go.opentelemetry.io/otel/metric"

	"github.com/winnow-llm/winnow/serve"
)

// watchPool registers which models come and go, and what they take.
func watchPool(meter metric.Meter, pool *serve.Pool) {
	var all []metric.Observable
	gauge := func(name, what string, opt ...metric.Int64ObservableGaugeOption) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, append(opt, metric.WithDescription(what))...)
		must(err)
		all = append(all, g)
		return g
	}
	counter := func(name, what string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter(name, metric.WithDescription(what))
		must(err)
		all = append(all, c)
		return c
	}
	loaded := gauge("winnow.models.loaded", "Models that are loaded")
	waiting := gauge("winnow.models.waiting", "Requests that wait for a model to be loaded, or for room")
	memory := gauge("winnow.models.memory", "Memory that models take: weights, cache and buffers", metric.WithUnit("By"))
	budget := gauge("winnow.models.memory.limit", "Memory that models may take together; 0 = no limit", metric.WithUnit("By"))
	loads := counter("winnow.model.loads", "Models that were loaded")
	failures := counter("winnow.model.load.failures", "Loads that failed")
	unloads := counter("winnow.model.unloads", "Models that were unloaded")
	took, err := meter.Float64ObservableCounter("winnow.model.load.duration", metric.WithUnit("s"), metric.WithDescription("Time that loads took"))
	must(err)
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		c := pool.Counters()
		o.ObserveInt64(loaded, int64(c.Loaded))
		o.ObserveInt64(waiting, int64(c.Waiting))
		o.ObserveInt64(memory, c.Memory)
		o.ObserveInt64(budget, c.Budget)
		o.ObserveInt64(loads, c.Loads)
		o.ObserveInt64(failures, c.Failures)
		o.ObserveInt64(unloads, c.Unloads)
		o.ObserveFloat64(took, c.Loading.Seconds())
		return nil
	}, append(all, took)...)
	must(err)
}
