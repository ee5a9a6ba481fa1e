package httpapi

import (
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
)

// Names of OpenTelemetry's conventions for generative AI, as of semantic conventions 1.41.
const (
	provider         = "winnow"
	attrOperation    = "gen_ai.operation.name"
	attrProvider     = "gen_ai.provider.name"
	attrModel        = "gen_ai.request.model"
	attrStream       = "gen_ai.request.stream"
	attrMaxTokens    = "gen_ai.request.max_tokens"
	attrTemperature  = "gen_ai.request.temperature"
	attrTopP         = "gen_ai.request.top_p"
	attrTopK         = "gen_ai.request.top_k"
	attrPresence     = "gen_ai.request.presence_penalty"
	attrFrequency    = "gen_ai.request.frequency_penalty"
	attrSeed         = "gen_ai.request.seed"
	attrStop         = "gen_ai.request.stop_sequences"
	attrChoices      = "gen_ai.request.choice.count"
	attrResponseID   = "gen_ai.response.id"
	attrAnswering    = "gen_ai.response.model"
	attrFinishes     = "gen_ai.response.finish_reasons"
	attrFirstChunk   = "gen_ai.response.time_to_first_chunk" // seconds
	attrInputTokens  = "gen_ai.usage.input_tokens"
	attrOutputTokens = "gen_ai.usage.output_tokens"
	attrCachedTokens = "gen_ai.usage.cache_read.input_tokens"
	attrOutput       = "gen_ai.output.type"
	attrEncodings    = "gen_ai.request.encoding_formats"
	attrDimensions   = "gen_ai.embeddings.dimension.count"
	attrError        = "error.type"
	attrAddress      = "server.address"
	attrPort         = "server.port"
)

// Names that vLLM gives to what a request took, in seconds; of several answers to a request, the longest.
const (
	latencyQueue     = "gen_ai.latency.time_in_queue"
	latencyFirst     = "gen_ai.latency.time_to_first_token"
	latencyPrefill   = "gen_ai.latency.time_in_model_prefill"
	latencyDecode    = "gen_ai.latency.time_in_model_decode"
	latencyInference = "gen_ai.latency.time_in_model_inference"
	latencyAll       = "gen_ai.latency.e2e"
)

// parent reads the span that a client works in.
var parent = propagation.TraceContext{}

type carrier = propagation.HeaderCarrier

// longestName is how much of a client's word for a model stands in a span.
const longestName = 200

// asked notes what the client wants.
func (r *record) asked(p *plan) {
	if !r.span.IsRecording() {
		return
	}
	r.named(p.Model)
	r.span.SetAttributes(attribute.Bool(attrStream, p.Stream), attribute.Int(attrChoices, p.N), attribute.String(attrOutput, "text"))
	if p.MaxTokens > 0 {
		r.span.SetAttributes(attribute.Int(attrMaxTokens, p.MaxTokens))
	}
	for key, v := range map[string]*float32{
		attrTemperature: p.Temperature, attrTopP: p.TopP, attrPresence: p.Presence, attrFrequency: p.Frequency,
	} {
		if v != nil {
			r.span.SetAttributes(decimal(key, *v))
		}
	}
	if p.TopK != nil {
		r.span.SetAttributes(attribute.Int(attrTopK, *p.TopK))
	}
	if p.Seed != nil {
		r.span.SetAttributes(attribute.Int64(attrSeed, *p.Seed))
	}
	if len(p.Stop) > 0 {
		r.span.SetAttributes(attribute.StringSlice(attrStop, p.Stop))
	}
}

// decimal is an attribute with the number that the client wrote: 0.2, and not what 32 bits make of it.
func decimal(key string, v float32) attribute.KeyValue {
	text := strconv.FormatFloat(float64(v), 'g', -1, 32)
	exact, err := strconv.ParseFloat(text, 64)
	if err != nil {
		exact = float64(v)
	}
	return attribute.Float64(key, exact)
}

// embedding notes what the client wants embedded.
func (r *record) embedding(e *embeddingRequest) {
	if !r.span.IsRecording() {
		return
	}
	r.named(e.model)
	r.span.SetAttributes(attribute.StringSlice(attrEncodings, []string{string(e.format)}))
	if n := e.ask.Dimensions; n > 0 {
		r.span.SetAttributes(attribute.Int(attrDimensions, n))
	}
}

// named notes the client's word for a model.
func (r *record) named(model string) {
	if name := model[:min(len(model), longestName)]; name != "" {
		r.span.SetName(r.operation + " " + name)
		r.span.SetAttributes(attribute.String(attrModel, name))
	}
}

// answering notes which model answers, under which id where the answer has one, and how long the model was waited for.
func (r *record) answering(h head, loading time.Duration) {
	r.model = h.Model
	if !r.span.IsRecording() {
		return
	}
	if loading > 0 {
		now := time.Now()
		r.child(spanLoad, now.Add(-loading), now, attribute.String(attrAnswering, h.Model))
	}
	r.span.SetName(r.operation + " " + h.Model)
	r.span.SetAttributes(attribute.String(attrAnswering, h.Model))
	if h.ID != "" {
		r.span.SetAttributes(attribute.String(attrResponseID, h.ID))
	}
}

// endSpan notes how it ended after so long.
func (r *record) endSpan(took time.Duration) {
	if !r.span.IsRecording() {
		return
	}
	r.phases()
	r.latencies(took)
	if r.first > 0 {
		r.span.SetAttributes(attribute.Float64(attrFirstChunk, r.first.Seconds()))
	}
	if len(r.finishes) > 0 {
		r.span.SetAttributes(attribute.StringSlice(attrFinishes, r.finishes))
	}
	if r.usage.Total > 0 {
		r.span.SetAttributes(attribute.Int(attrInputTokens, r.usage.Prompt), attribute.Int(attrOutputTokens, r.usage.Completion),
			attribute.Int(attrCachedTokens, r.usage.Details.Cached))
	}
	if r.status != "ok" {
		r.span.SetAttributes(attribute.String(attrError, r.status))
	}
	if r.broken {
		r.span.SetStatus(codes.Error, r.status)
	}
	r.span.End()
}
