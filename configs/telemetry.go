package configs

import (
	"fmt"
	"strings"
)

// Telemetry is what the standard OTEL_* variables say about exporting. The exporter reads the rest of them itself: endpoint,
// headers, sampler, resource attributes.
type Telemetry struct {
	Traces bool // export spans over OTLP
}

// readTelemetry follows the OpenTelemetry specification, but for its default exporter: without an endpoint nothing leaves the
// machine.
func readTelemetry(environ []string) (Telemetry, error) {
	if v, _ := lookup(environ, "OTEL_SDK_DISABLED"); strings.EqualFold(v, "true") {
		return Telemetry{}, nil
	}
	exporter, named := lookup(environ, "OTEL_TRACES_EXPORTER")
	switch {
	case exporter == "otlp":
		return Telemetry{Traces: true}, nil
	case exporter == "none":
		return Telemetry{}, nil
	case named:
		return Telemetry{}, fmt.Errorf("%w: OTEL_TRACES_EXPORTER is %q, want otlp or none", ErrConfig, exporter)
	}
	_, common := lookup(environ, "OTEL_EXPORTER_OTLP_ENDPOINT")
	_, traces := lookup(environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
	return Telemetry{Traces: common || traces}, nil
}
