package httpapi

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/winnow-llm/winnow/serve"
)

// BenchmarkTelemetry is the cost of recording one request from its start to its end, with one piece a token. A step of 16 streams pays 16
// tokens' part of it: ns/token is that of one.
func BenchmarkTelemetry(b *testing.B) {
	for _, traces := range []string{"off", "unsampled", "on"} {
		for _, tokens := range []int{16, 256} {
			b.Run(fmt.Sprintf("traces=%s/tokens=%d", traces, tokens), func(b *testing.B) {
				opt := Options{Metrics: []sdkmetric.Option{sdkmetric.WithReader(sdkmetric.NewManualReader())}}
				switch traces {
				case "unsampled":
					opt.Tracer = sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample()))
				case "on":
					p := sdk.NewTracerProvider(sdk.WithBatcher(tracetest.NewNoopExporter()))
					defer p.Shutdown(b.Context())
					opt.Tracer = p
				}
				t := newTelemetry(serve.NewPool(serve.PoolOptions{Models: serve.Sources(nil)}), &opt)
				req, err := http.NewRequestWithContext(b.Context(), "POST", "http://localhost/v1/chat/completions", nil)
				if err != nil {
					b.Fatal(err)
				}
				req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
				ask := &plan{Model: "m", N: 1, Stream: true}
				ask.MaxTokens = tokens
				last := &serve.Usage{Prompt: 100, Completion: tokens, Queued: 1, First: 2, Total: 9, Sampling: 1}
				b.ReportAllocs()
				for b.Loop() {
					r := t.start(req, "chat")
					r.asked(ask)
					r.answering(head{ID: "id", Model: "m"}, 0)
					for range tokens - 1 {
						r.piece(part{delta: serve.Delta{Text: "x"}})
					}
					last.Started = time.Now()
					r.piece(part{delta: serve.Delta{Finish: serve.FinishLength, Usage: last}})
					r.counted(tally([]serve.Usage{*last}, 1))
					r.end()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*tokens), "ns/token")
			})
		}
	}
}
