package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/bridges/otelslog"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/winnow-llm/winnow/configs"
	"github.com/winnow-llm/winnow/httpapi"
	"github.com/winnow-llm/winnow/serve"
)

// exports is what leaves the process for a collector, as the standard variables ask. Spans, figures and lines wait for it in queues that
// drop what has no room, so a slow or dead collector holds up nobody.
type exports struct {
	asked    configs.Telemetry
	resource *resource.Resource
	tracer   trace.TracerProvider // nil = no traces
	log      *slog.Logger         // to standard error, and to the collector if asked
	stderr   *slog.Logger
	ends     []func(context.Context) error
	once     sync.Once
}

// flushTimeout is how long the end of the process waits for what is left to be sent.
const flushTimeout = 5 * time.Second

// openExports starts to export traces and logs; log writes to standard error. Close ends it.
func openExports(ctx context.Context, asked configs.Telemetry, log *slog.Logger) (*exports, error) {
	x := &exports{asked: asked, log: log, stderr: log}
	if asked == (configs.Telemetry{}) {
		return x, nil
	}
	otel.SetErrorHandler(&complaints{log: log})
	var err error
	x.resource, err = resource.New(ctx, // what the variables say overrides our own words
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "winnow"), attribute.String("service.version", version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe this service to OpenTelemetry: %w", err)
	}
	if asked.Traces {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("export traces: %w", err)
		}
		p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(x.resource)) // the sampler is the variables' too
		x.tracer, x.ends = p, append(x.ends, p.Shutdown)
	}
	if asked.Logs {
		exporter, err := autoexport.NewLogExporter(ctx)
		if err != nil {
			x.close()
			return nil, fmt.Errorf("export logs: %w", err)
		}
		p := sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)), sdklog.WithResource(x.resource))
		x.ends = append(x.ends, p.Shutdown)
		lines := otelslog.NewHandler("winnow", otelslog.WithLoggerProvider(p))
		x.log = slog.New(slog.NewMultiHandler(log.Handler(), likewise{lines, log.Handler()}))
	}
	return x, nil
}

// readers are the metrics' that send them, with the engines' own among them.
func (x *exports) readers(ctx context.Context, pool *serve.Pool) ([]metric.Option, error) {
	if !x.asked.Metrics {
		return nil, nil
	}
	autoexport.WithFallbackMetricProducer(func(context.Context) (metric.Producer, error) { return httpapi.EngineMetrics(pool), nil })
	r, err := autoexport.NewMetricReader(ctx)
	if err != nil {
		return nil, fmt.Errorf("export metrics: %w", err)
	}
	x.ends = append(x.ends, r.Shutdown)
	return []metric.Option{metric.WithReader(r), metric.WithResource(x.resource)}, nil
}

// close sends what is left, or as much of it as there is time for. A second close does nothing.
func (x *exports) close() {
	x.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		errs := make([]error, len(x.ends))
		var ending sync.WaitGroup
		for i, end := range x.ends {
			ending.Go(func() { errs[i] = end(ctx) })
		}
		ending.Wait()
		if err := errors.Join(errs...); err != nil {
			x.stderr.Warn("the last telemetry was not sent", "err", err)
		}
	})
}
