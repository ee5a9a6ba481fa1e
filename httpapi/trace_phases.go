package httpapi

import (
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/winnow-llm/winnow/serve"
)

// Names of the spans below a request's. Package serve adds template and tokenize.
const (
	spanLoad     = "model_load" // the request waited for its model
	spanQueue    = "queue"      // an answer waited for its first step
	spanPrefill  = "prefill"    // from there to its first token
	spanDecode   = "decode"     // from its first token to its last
	spanSampling = "sampling"   // the time of all its choices of tokens, see attrSum
)

// Attributes of these spans.
const (
	attrChoice = "winnow.choice.index"  // of the answer among the request's
	attrRead   = "winnow.prompt.tokens" // of the prompt, those that were computed: the rest was in the cache
	attrFound  = "winnow.prompt.cached_tokens"
	attrMade   = "winnow.generated_tokens"
	// Of a request whose keys selectors chose: the share that was read, and of the probed tokens, how much of the softmax they read.
	attrDensity = "winnow.sparse.density"
	attrRecall  = "winnow.sparse.recall"
	attrProbes  = "winnow.sparse.probes"
	// attrSum says that the span is a sum: tokens are chosen one a step, in prefill's last and in all of decode, and the span is as long as
	// all of it together and ends with the last token. A step chooses for all its sequences at once, and each counts the whole of it.
	attrSum = "winnow.sum_of_steps"
)

// mostTraced is how many answers of a request have spans.
const mostTraced = 32

// child adds a span that is over to the request's.
func (r *record) child(name string, from, to time.Time, attrs ...attribute.KeyValue) {
	_, span := r.t.tracer.Start(r.ctx, name, trace.WithTimestamp(from), trace.WithAttributes(attrs...))
	span.End(trace.WithTimestamp(to))
}

// phases adds the spans of all answers that came to their end.
func (r *record) phases() {
	for i := range r.answers[:min(len(r.answers), mostTraced)] {
		r.phasesOf(&r.answers[i])
	}
}

func (r *record) phasesOf(a *answered) {
	u, choice := &a.usage, attribute.Int(attrChoice, a.choice)
	if u.Started.IsZero() { // nothing was computed
		return
	}
	at := func(d time.Duration) time.Time { return u.Started.Add(d) }
	r.child(spanQueue, at(0), at(u.Queued), choice)
	r.child(spanPrefill, at(u.Queued), at(u.First), choice, attribute.Int(attrRead, u.Prompt-u.Cached), attribute.Int(attrFound, u.Cached))
	if u.Completion > 1 {
		r.child(spanDecode, at(u.First), at(u.Total), choice, attribute.Int(attrMade, u.Completion))
	}
	if s := u.Sparse; s != nil && s.Visible > 0 {
		r.span.SetAttributes(attribute.Float64(attrDensity, s.Read/s.Visible), attribute.Float64(attrRecall, s.Recall()), attribute.Int(attrProbes, s.Probes))
	}
	if u.Sampling > 0 {
		r.child(spanSampling, at(u.Total-u.Sampling), at(u.Total), choice, attribute.Int(attrSum, u.Completion))
	}
}

// latencies notes what the request took, by vLLM's names.
func (r *record) latencies(took time.Duration) {
	r.span.SetAttributes(attribute.Float64(latencyAll, took.Seconds()))
	if r.first > 0 {
		r.span.SetAttributes(attribute.Float64(latencyFirst, r.first.Seconds()))
	}
	for _, l := range []struct {
		name string
		of   func(u *serve.Usage) time.Duration
	}{
		{latencyQueue, func(u *serve.Usage) time.Duration { return u.Queued }},
		{latencyPrefill, func(u *serve.Usage) time.Duration { return u.First - u.Queued }},
		{latencyDecode, func(u *serve.Usage) time.Duration { return u.Total - u.First }},
		{latencyInference, func(u *serve.Usage) time.Duration { return u.Total - u.Queued }},
	} {
		longest, known := time.Duration(0), false
		for i := range r.answers {
			if u := &r.answers[i].usage; !u.Started.IsZero() {
				longest, known = max(longest, l.of(u)), true
			}
		}
		if known {
			r.span.SetAttributes(attribute.Float64(l.name, longest.Seconds()))
		}
	}
}

// reached notes the address that the client called, as this machine knows it.
func (r *record) reached(req *http.Request) {
	if a, ok := req.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		r.span.SetAttributes(attribute.String(attrAddress, a.IP.String()), attribute.Int(attrPort, a.Port))
	}
}
