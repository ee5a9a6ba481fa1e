package main

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/winnow-llm/winnow/configs"
)

// openTraces exports spans over OTLP where the standard variables ask for it; else the provider is nil. flush sends what is left.
func openTraces(ctx context.Context, t configs.Telemetry) (provider trace.TracerProvider, flush func() error, err error) {
	if !t.Traces {
		return nil, func() error { return nil }, nil
	}
	exporter, err := otlptracehttp.New(ctx) // endpoint, headers and the like are the variables' too
	if err != nil {
		return nil, nil, fmt.Errorf("export traces: %w", err)
	}
	what, err := resource.New(ctx, // what the variables say overrides our own words
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "winnow"), attribute.String("service.version", version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("export traces: %w", err)
	}
	p := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(what))
	return p, func() error {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := p.Shutdown(last); err != nil {
			return fmt.Errorf("export the last traces: %w", err)
		}
		return nil
	}, nil
}
