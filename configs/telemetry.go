package configs

import (
	"fmt"
	"slices"
	"strings"
)

// Telemetry is what the standard OTEL_* variables say about exporting. The exporters read the rest of them themselves: endpoints,
// protocol, headers, sampler, resource attributes.
type Telemetry struct {
	Traces  bool
	Metrics bool // beside GET /metrics, which is always there
	Logs    bool // beside the lines on standard error
}

// readTelemetry follows the OpenTelemetry specification, but for its default exporter: without an endpoint nothing leaves the
// machine.
func readTelemetry(environ []string) (t Telemetry, err error) {
	if v, _ := lookup(environ, "OTEL_SDK_DISABLED"); strings.EqualFold(v, "true") {
		return Telemetry{}, nil
	}
	for _, s := range []struct {
		on     *bool
		signal string
	}{{&t.Traces, "TRACES"}, {&t.Metrics, "METRICS"}, {&t.Logs, "LOGS"}} {
		if *s.on, err = exports(environ, s.signal); err != nil {
			return Telemetry{}, err
		}
	}
	return t, nil
}

// exports says whether a signal leaves the process.
func exports(environ []string, signal string) (bool, error) {
	name := "OTEL_" + signal + "_EXPORTER"
	words := []string{"otlp", "console", "none"}
	if signal == "METRICS" {
		words = append(words, "prometheus") // which GET /metrics is
	}
	exporter, named := lookup(environ, name)
	switch {
	case named && !slices.Contains(words, exporter):
		return false, fmt.Errorf("%w: %s is %q, want one of %s", ErrConfig, name, exporter, strings.Join(words, ", "))
	case named:
		return exporter == "otlp" || exporter == "console", nil
	}
	_, common := lookup(environ, "OTEL_EXPORTER_OTLP_ENDPOINT")
	_, own := lookup(environ, "OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT")
	return common || own, nil
}
