package httpapi

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/winnow-llm/winnow/serve"
)

// requestSpans are the ended spans of requests, without those below them.
func requestSpans(r *tracetest.SpanRecorder) []sdk.ReadOnlySpan {
	return slices.DeleteFunc(r.Ended(), func(s sdk.ReadOnlySpan) bool { return s.SpanKind() != trace.SpanKindServer })
}

// A request is one span below the client's, and moves the counters of its model.
func TestTelemetry(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	r := start(t, Options{Tracer: sdk.NewTracerProvider(sdk.WithSpanProcessor(spans))})
	const traced = "0af7651916cd43dd8448eb211c80319c"
	for _, parent := range []string{"00-" + traced + "-b7ad6b7169203331-01", "00-zz-malformed"} {
		resp, body := r.call("POST", "/v1/chat/completions",
			`{"model":"demo-moe","temperature":0,"seed":7,"max_tokens":4,"stop":["zzz"],"n":2,`+hello+`}`, "Traceparent", parent)
		if resp.StatusCode != 200 {
			t.Fatal(body)
		}
	}
	r.post("/v1/completions", `{"model":"user\nsaid","prompt":"secret words"}`)
	r.post("/v1/completions", `{"model":"broken"}`)
	ended := requestSpans(spans)
	if len(ended) != 4 {
		t.Fatalf("%d spans", len(ended))
	}
	s := ended[0]
	if s.Name() != "chat demo-moe" || s.SpanKind() != trace.SpanKindServer || s.Parent().TraceID().String() != traced || s.Status().Code != codes.Unset {
		t.Errorf("span %q, kind %v, parent %v, status %v", s.Name(), s.SpanKind(), s.Parent().TraceID(), s.Status())
	}
	attrs := fmt.Sprint(s.Attributes())
	for _, want := range []string{
		attrOperation, attrProvider, attrModel, attrTemperature, attrSeed, attrMaxTokens, attrStop, attrChoices, attrResponseID, attrAnswering,
		attrFinishes, attrInputTokens, attrOutputTokens,
	} {
		if !strings.Contains(attrs, want) {
			t.Errorf("no %s in %s", want, attrs)
		}
	}
	if strings.Contains(attrs, "cat") {
		t.Errorf("prompt in %s", attrs)
	}
	if ended[1].Parent().IsValid() || ended[2].Status().Code != codes.Unset || ended[3].Status().Code != codes.Error {
		t.Errorf("parent %v, statuses %v, %v", ended[1].Parent(), ended[2].Status(), ended[3].Status())
	}
	_, page := r.call("GET", "/metrics", "")
	for _, want := range []string{
		`winnow_requests_total{model="demo-moe",operation="chat",status="ok"} 2`,
		`winnow_requests_total{model="",operation="text_completion",status="model_not_found"} 1`,
		`winnow_requests_total{model="",operation="text_completion",status="model_load_failed"} 1`,
		`winnow_tokens_total{kind="completion",model="demo-moe"} 16`,
		`winnow_time_to_first_token_seconds_count{model="demo-moe",operation="chat"} 2`,
		`winnow_request_duration_seconds_count{model="demo-moe",operation="chat"} 2`,
		`winnow_sequences_running{model="demo-moe"} 0`,
		`winnow_pages{model="demo-moe",state="used"} 0`,
		`winnow_answers_total{finish="length",model="demo-moe"} 4`,
		`winnow_generated_tokens_total{model="demo-moe"} 16`,
		`winnow_inter_token_latency_seconds_count{model="demo-moe"} 12`,
		`winnow_answer_queue_time_seconds_count{model="demo-moe"} 4`,
		`winnow_decode_stall_seconds_count{model="demo-moe"} `,
		`winnow_step_duration_seconds_count{model="demo-moe"} `,
		`gen_ai_server_request_duration_seconds_count{error_type="model_not_found",gen_ai_operation_name="text_completion",gen_ai_provider_name="winnow"} 1`,
		`gen_ai_server_time_per_output_token_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="winnow",` +
			`gen_ai_request_model="demo-moe",gen_ai_response_model="demo-moe"} 2`,
		`vllm:num_requests_running{model_name="demo-moe"} 0`,
		`vllm:kv_cache_usage_perc{model_name="demo-moe"} 0`,
		`vllm:generation_tokens_total{model_name="demo-moe"} 16`,
		`vllm:request_success_total{finished_reason="length",model_name="demo-moe"} 4`,
		`vllm:time_to_first_token_seconds_bucket{model_name="demo-moe",le="+Inf"} 2`,
		`vllm:e2e_request_latency_seconds_count{model_name="demo-moe"} 2`,
		`vllm:inter_token_latency_seconds_count{model_name="demo-moe"} 12`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(page, "said") || strings.Contains(page, "otel_scope") {
		t.Errorf("labels: %s", page)
	}
}

// What a server that is stopping refuses is counted.
func TestTurnedAway(t *testing.T) {
	r := start(t, Options{})
	r.server.gate.close()
	if status, body := r.post("/v1/completions", `{"prompt":"x"}`); status != 503 {
		t.Errorf("%d %s", status, body)
	}
	_, page := r.call("GET", "/metrics", "")
	if !strings.Contains(page, `winnow_requests_total{model="",operation="text_completion",status="`+faultOf(errDraining).Code+`"} 1`) {
		t.Error(page)
	}
}

// A panic ends its request and nothing else.
func TestPanics(t *testing.T) {
	r := start(t, Options{})
	r.server.routes.GET("/panic", func(*gin.Context) { panic("winnow: bug: on purpose") })
	if resp, body := r.call("GET", "/panic", ""); resp.StatusCode != 500 || !strings.Contains(body, codeInternal) || strings.Contains(body, "bug") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	r.healthy()
	for p := range together(t.Context(), []iter.Seq2[serve.Delta, error]{func(func(serve.Delta, error) bool) { panic("on purpose") }}) {
		if !errors.Is(p.err, errPanic) {
			t.Errorf("%+v", p)
		}
	}
}
