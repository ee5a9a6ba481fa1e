package httpapi

import (
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// Who asks for OpenMetrics gets the traces behind the figures, of requests that are traced.
func TestExemplars(t *testing.T) {
	const traced, untraced = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319c"
	r := start(t, Options{Tracer: sdk.NewTracerProvider(sdk.WithSampler(sdk.ParentBased(sdk.AlwaysSample())))})
	for _, parent := range []string{"00-" + traced + "-b7ad6b7169203331-01", "00-" + untraced + "-b7ad6b7169203331-00"} {
		r.call("POST", "/v1/chat/completions", `{"model":"demo-moe","max_tokens":4,`+hello+`}`, "Traceparent", parent)
	}
	resp, page := r.call("GET", "/metrics", "", "Accept", "application/openmetrics-text;version=1.0.0")
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(page, "# EOF\n") {
		t.Errorf("content type %q", kind)
	}
	for _, name := range []string{
		"winnow_request_duration_seconds", "winnow_time_to_first_token_seconds", "gen_ai_server_time_per_output_token_seconds",
		"winnow_answer_queue_time_seconds",
	} {
		if !regexp.MustCompile(`(?m)^` + name + `_bucket\{.*\} \S+ # \{.*trace_id="` + traced + `"`).MatchString(page) {
			t.Errorf("%s has no exemplar", name)
		}
	}
	if strings.Contains(page, untraced) {
		t.Error("an exemplar is of a trace that nobody keeps")
	}
	if _, page = r.call("GET", "/metrics", ""); strings.Contains(page, traced) {
		t.Error("exemplars in a format that has none")
	}
}

// An alias adds up what differs in labels that vLLM does not have, and leaves out what belongs to no model.
func TestAliasesAddUp(t *testing.T) {
	registry := prometheus.NewRegistry()
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "winnow_answers_total"}, []string{"model", "finish"})
	first := prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Name: "winnow_time_to_first_token_seconds", Buckets: []float64{1, 2}}, []string{"model", "operation"})
	registry.MustRegister(answers, first)
	answers.WithLabelValues("a", "stop").Add(2)
	answers.WithLabelValues("a", "length").Add(3)
	answers.WithLabelValues("", "stop").Add(5)
	for i, operation := range []string{"chat", "text_completion", "chat"} {
		first.WithLabelValues("a", operation).Observe(float64(i) + 0.5)
	}
	first.WithLabelValues("b", "chat").Observe(1.5)
	families, err := withAliases(registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]*dto.Metric{}
	for _, f := range families {
		for _, m := range f.Metric {
			if strings.HasPrefix(f.GetName(), "vllm:") {
				key := f.GetName()
				for _, l := range m.Label {
					key += " " + l.GetName() + "=" + l.GetValue()
				}
				got[key] = m
			}
		}
	}
	if len(got) != 4 {
		t.Errorf("%v", got)
	}
	for key, want := range map[string]float64{"stop": 2, "length": 3} {
		if n := got["vllm:request_success_total finished_reason="+key+" model_name=a"].GetCounter().GetValue(); n != want {
			t.Errorf("%v answers ended by %s, want %v", n, key, want)
		}
	}
	h := got["vllm:time_to_first_token_seconds model_name=a"].GetHistogram()
	if h.GetSampleCount() != 3 || h.GetSampleSum() != 4.5 || h.Bucket[0].GetCumulativeCount() != 1 || h.Bucket[1].GetCumulativeCount() != 2 {
		t.Errorf("%v", h)
	}
}
