package httpapi

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

// ollamaEmbedRequest is a request to /api/embed, or to /api/embeddings, which came before it.
type ollamaEmbedRequest struct {
	embeddingRequest
	keep   *time.Duration
	single bool // one prompt, and one vector for it
}

// parseOllamaEmbed decodes and checks a body of /api/embed. The error is a *fault.
func parseOllamaEmbed(body []byte) (*ollamaEmbedRequest, error) {
	o, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	r := &ollamaEmbedRequest{}
	switch raw := o.raw("input"); {
	case raw == nil:
	case raw[0] == '"':
		if s := first(o.text("input"), ""); s != "" {
			r.ask.Inputs = []serve.Input{{Text: s}}
		}
	default:
		list := first(decoded[[]*string](o, "input", "a string or an array of strings"), nil)
		if len(list) > mostInputs {
			o.bad("input", "must be at most %d strings", mostInputs)
		}
		for i, s := range list {
			if s == nil || *s == "" {
				o.bad(fmt.Sprintf("input[%d]", i), "must be a string that is not empty")
				break
			}
			r.ask.Inputs = append(r.ask.Inputs, serve.Input{Text: *s})
		}
	}
	r.ask.Truncate = o.flagOr("truncate", true)
	r.ask.Dimensions = int(first(o.integer("dimensions", 0, math.MaxInt32), 0))
	return r.finish(o)
}

// parseOllamaEmbedding decodes and checks a body of /api/embeddings. The error is a *fault.
func parseOllamaEmbedding(body []byte) (*ollamaEmbedRequest, error) {
	o, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	r := &ollamaEmbedRequest{single: true}
	if s := first(o.text("prompt"), ""); s != "" {
		r.ask.Inputs = []serve.Input{{Text: s}}
	}
	r.ask.Truncate = true
	return r.finish(o)
}

// finish reads what both routes have, and what is left.
func (r *ollamaEmbedRequest) finish(o *object) (*ollamaEmbedRequest, error) {
	r.format, r.model, r.keep = floats, o.modelName(), o.lifetime("keep_alive")
	if options := o.inner("options"); options != nil {
		var g serve.Generation
		_, r.warnings = readOptions(options, &g)
		r.ask.Context = g.Context
	}
	r.warnings = append(r.warnings, o.strangers()...)
	return r, o.err()
}

// ollamaEmbeddings are the answer to /api/embed.
type ollamaEmbeddings struct {
	Model   string      `json:"model"`
	Vectors [][]float32 `json:"embeddings"`
	ollamaTimes
	Warnings []string `json:"warnings,omitempty"`
}

// ollamaEmbed answers a request for embeddings.
func (x *exchange) ollamaEmbed(ctx context.Context, parse func(body []byte) (*ollamaEmbedRequest, error)) error {
	started := time.Now()
	body, err := x.s.body(x.c)
	if err != nil {
		return err
	}
	r, err := parse(body)
	if err != nil {
		return err
	}
	x.record.embedding(&r.embeddingRequest)
	m, err := x.lease(ctx, r.model, r.keep)
	if err != nil {
		return ollamaFault(r.model, err)
	}
	defer m.Release()
	times := newOllamaTimes(started, time.Since(started), nil)
	if r.ask.Context > m.Context() {
		r.warnings = append(r.warnings, fmt.Sprintf("options.num_ctx of %d is more than the %d tokens that this model has here", r.ask.Context, m.Context()))
	}
	out := &serve.Embeddings{Vectors: [][]float32{}}
	if len(r.ask.Inputs) > 0 { // else the model is only loaded
		if out, err = m.Embed(ctx, r.ask); err != nil {
			return ollamaFault(r.model, err)
		}
	}
	if n := len(out.Cut); n > 0 {
		r.warnings = append(r.warnings, fmt.Sprintf("%d of %d inputs, the first of them input %d, do not fit the context and were cut at its end",
			n, len(out.Vectors), out.Cut[0]))
	}
	x.record.counted(usage{Prompt: out.Prompt, Total: out.Prompt})
	if r.single {
		vector := []float32{}
		if len(out.Vectors) > 0 {
			vector = out.Vectors[0]
		}
		return x.s.reply(x.c, http.StatusOK, struct {
			Vector   []float32 `json:"embedding"`
			Warnings []string  `json:"warnings,omitempty"`
		}{vector, r.warnings})
	}
	times.Total, times.PromptCount = time.Since(started), out.Prompt
	return x.s.reply(x.c, http.StatusOK, ollamaEmbeddings{r.model, out.Vectors, times, r.warnings})
}
