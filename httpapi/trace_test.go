package httpapi

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// drawing is a trace as text: spans below their parents, in order of their beginnings, with attributes. What differs from run to run, as
// times, is a star.
func drawing(spans []sdk.ReadOnlySpan) string {
	var b strings.Builder
	var draw func(s sdk.ReadOnlySpan, depth string)
	draw = func(s sdk.ReadOnlySpan, depth string) {
		fmt.Fprintf(&b, "%s%s (%s)\n", depth, s.Name(), s.SpanKind())
		attrs := slices.Clone(s.Attributes())
		slices.SortFunc(attrs, func(a, b attribute.KeyValue) int { return cmp.Compare(a.Key, b.Key) })
		for _, a := range attrs {
			v := fmt.Sprint(a.Value.AsInterface())
			switch key := string(a.Key); {
			case strings.HasPrefix(key, "gen_ai.latency."), key == attrFirstChunk, key == attrResponseID, key == attrPort:
				v = "*"
			}
			fmt.Fprintf(&b, "%s    %s = %s\n", depth, a.Key, v)
		}
		for _, c := range below(spans, s) {
			draw(c, depth+"  ")
		}
	}
	for _, s := range spans {
		if s.Parent().IsRemote() || !s.Parent().IsValid() {
			draw(s, "")
		}
	}
	return b.String()
}

// below are the children of a span, by their beginnings, but sums of time behind what they sum up.
func below(spans []sdk.ReadOnlySpan, parent sdk.ReadOnlySpan) (out []sdk.ReadOnlySpan) {
	for _, s := range spans {
		if s.Parent().SpanID() == parent.SpanContext().SpanID() {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b sdk.ReadOnlySpan) int {
		if a.Name() != b.Name() && (a.Name() == spanSampling || b.Name() == spanSampling) {
			return cmp.Compare(strings.Count(a.Name(), spanSampling), strings.Count(b.Name(), spanSampling))
		}
		return a.StartTime().Compare(b.StartTime())
	})
	return out
}

// checkTimes proves that children lie within their parent, and that the phases of one answer follow each other.
func checkTimes(t *testing.T, spans []sdk.ReadOnlySpan) {
	t.Helper()
	for _, s := range spans {
		if s.EndTime().Before(s.StartTime()) {
			t.Errorf("%s ends before it begins", s.Name())
		}
		ends := map[attribute.Value]sdk.ReadOnlySpan{}
		for _, c := range below(spans, s) {
			if c.StartTime().Before(s.StartTime()) || c.EndTime().After(s.EndTime()) {
				t.Errorf("%s from %v to %v is not within %s from %v to %v", c.Name(), c.StartTime(), c.EndTime(), s.Name(), s.StartTime(), s.EndTime())
			}
			var choice attribute.Value
			for _, a := range c.Attributes() {
				if a.Key == attrChoice {
					choice = a.Value
				}
			}
			switch before := ends[choice]; {
			case choice.Type() == attribute.EMPTY: // answers make their prompts side by side
				continue
			case c.Name() == spanSampling: // a sum, which ends with the last phase
				if !c.EndTime().Equal(before.EndTime()) {
					t.Errorf("sampling ends at %v, %s at %v", c.EndTime(), before.Name(), before.EndTime())
				}
				continue
			case before != nil && c.StartTime().Before(before.EndTime()):
				t.Errorf("%s begins before %s ends", c.Name(), before.Name())
			}
			ends[choice] = c
		}
	}
}

// One streamed chat that waits for its model, kept as text.
func TestTraceGolden(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	r := start(t, Options{Tracer: sdk.NewTracerProvider(sdk.WithSpanProcessor(spans))})
	resp, body := r.call("POST", "/v1/chat/completions",
		`{"model":"demo-moe","stream":true,"temperature":0.5,"top_p":0.9,"top_k":40,"seed":7,"max_tokens":4,"stop":["zzz"],"presence_penalty":0.1,`+
			`"frequency_penalty":0.2,`+hello+`}`,
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate", "vendor=1", "Baggage", "user=secret")
	if resp.StatusCode != 200 {
		t.Fatal(body)
	}
	r.traced(spans, 1)
	got := drawing(spans.Ended())
	file := filepath.Join("testdata", "trace.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	checkTimes(t, spans.Ended())
	for _, s := range spans.Ended() {
		if c := s.SpanContext(); c.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" || c.TraceState().String() != "vendor=1" {
			t.Errorf("%s is of trace %v with state %q", s.Name(), c.TraceID(), c.TraceState())
		}
	}
}

// Every way to ask has its phases, each answer its own.
func TestPhases(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	r := start(t, Options{Tracer: sdk.NewTracerProvider(sdk.WithSpanProcessor(spans))})
	for _, c := range []struct {
		path, body string
		want       map[string]int // spans by name
	}{
		{"/v1/chat/completions", `{"model":"demo-moe","max_tokens":3,"n":2,` + hello + `}`,
			map[string]int{spanLoad: 1, "template": 2, "tokenize": 2, spanQueue: 2, spanPrefill: 2, spanDecode: 2, spanSampling: 2}},
		{"/v1/chat/completions", `{"model":"demo-moe","max_tokens":1,"stream":true,` + hello + `}`,
			map[string]int{"template": 1, "tokenize": 1, spanQueue: 1, spanPrefill: 1, spanSampling: 1}},
		{"/v1/completions", `{"model":"demo-moe","max_tokens":3,"prompt":["Once","upon"],"stream":true}`,
			map[string]int{"tokenize": 2, spanQueue: 2, spanPrefill: 2, spanDecode: 2, spanSampling: 2}},
		{"/v1/completions", `{"model":"demo-moe","prompt":[1,2,3],"max_tokens":0}`, map[string]int{}},
		{"/v1/embeddings", `{"model":"demo-moe","input":["Once","upon","a time"]}`, map[string]int{"tokenize": 1, spanQueue: 1, spanPrefill: 1}},
		{"/v1/completions", `{"model":"broken","prompt":"x"}`, map[string]int{}},
	} {
		spans.Reset()
		r.post(c.path, c.body)
		r.traced(spans, 1)
		got := map[string]int{}
		for _, s := range spans.Ended() {
			if s.Parent().IsValid() {
				got[s.Name()]++
			}
			if len(s.Events()) > 0 || strings.Contains(fmt.Sprint(s.Attributes()), "Once") {
				t.Errorf("%s says %v %v", s.Name(), s.Attributes(), s.Events())
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.body, got, c.want)
		}
		checkTimes(t, spans.Ended())
	}
}

// traced waits until so many requests' spans have ended: a client has its answer a moment before.
func (r *rig) traced(spans *tracetest.SpanRecorder, n int) {
	r.t.Helper()
	for range 1000 {
		if len(requestSpans(spans)) >= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	r.t.Fatalf("%d spans of requests have ended, want %d", len(requestSpans(spans)), n)
}
