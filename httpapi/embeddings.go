package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/winnow-llm/winnow/serve"
)

// mostInputs is how many texts one request may have.
const mostInputs = 2048

// encoding is how a vector is written.
type encoding string

const (
	floats encoding = "float"
	packed encoding = "base64" // of its values as float32, the low byte first
)

// embeddingRequest is a request to /v1/embeddings.
type embeddingRequest struct {
	model    string
	ask      serve.EmbedRequest
	format   encoding
	warnings []string
}

// parseEmbedding decodes and checks a body. The error is a *fault.
func parseEmbedding(body []byte) (*embeddingRequest, error) {
	o, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	r := &embeddingRequest{format: floats}
	if name := o.text("model"); name != nil {
		r.model = *name
	}
	r.readInputs(o)
	if n := o.integer("dimensions", 1, math.MaxInt32); n != nil {
		r.ask.Dimensions = int(*n)
	}
	choice(o, "encoding_format", &r.format, string(floats), string(packed))
	choice(o, "pooling", &r.ask.Pooling, string(serve.MeanPooling), string(serve.LastPooling))
	r.warnings = o.finish()
	return r, o.err()
}

// readInputs reads what to embed, none of it empty.
func (r *embeddingRequest) readInputs(o *object) {
	raw := o.raw("input")
	if raw == nil {
		o.bad("input", "is required: a string, an array of strings, token ids, or an array of arrays of token ids")
		return
	}
	for i, p := range o.prompts("input", mostInputs) {
		if p.text == "" && p.ids == nil {
			at := "input"
			if raw[0] == '[' {
				at = fmt.Sprintf("input[%d]", i)
			}
			o.bad(at, "must not be empty")
			return
		}
		r.ask.Inputs = append(r.ask.Inputs, serve.Input{Text: p.text, IDs: p.ids})
	}
}

// choice reads a word that is one of a few; absent leaves what dst holds.
func choice[T ~string](o *object, name string, dst *T, words ...string) {
	switch v := o.text(name); {
	case v == nil:
	case slices.Contains(words, *v):
		*dst = T(*v)
	default:
		o.bad(name, "must be one of %s", strings.Join(words, ", "))
	}
}

// embeddingBody is the answer.
type embeddingBody struct {
	Object   string          `json:"object"`
	Data     []embeddingItem `json:"data"`
	Model    string          `json:"model"`
	Usage    embeddingUsage  `json:"usage"`
	Warnings []string        `json:"warnings,omitempty"` // what of the request was ignored
}

type embeddingItem struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding any    `json:"embedding"` // numbers, or a string
}

type embeddingUsage struct {
	Prompt int `json:"prompt_tokens"`
	Total  int `json:"total_tokens"`
}

// embed answers a request for embeddings.
func (x *exchange) embed(ctx context.Context) error {
	body, err := x.s.body(x.c)
	if err != nil {
		return err
	}
	r, err := parseEmbedding(body)
	if err != nil {
		return err
	}
	x.record.embedding(r)
	m, err := x.s.pool.Acquire(ctx, r.model)
	if err != nil {
		return err
	}
	defer m.Release()
	x.record.answering(head{Model: m.Name()}, m.Loading)
	out, err := m.Embed(ctx, r.ask)
	if err != nil {
		return err
	}
	answer := embeddingBody{
		Object: "list", Data: make([]embeddingItem, len(out.Vectors)), Model: m.Name(),
		Usage: embeddingUsage{out.Prompt, out.Prompt}, Warnings: r.warnings,
	}
	for i, v := range out.Vectors {
		answer.Data[i] = embeddingItem{"embedding", i, r.format.of(v)}
	}
	x.record.embedded(&out.Usage)
	x.record.counted(usage{Prompt: out.Prompt, Total: out.Prompt})
	return x.s.reply(x.c, http.StatusOK, answer)
}

// of is a vector as JSON writes it.
func (e encoding) of(v []float32) any {
	if e == floats {
		return v
	}
	raw := make([]byte, 0, 4*len(v))
	for _, f := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
	}
	return base64.StdEncoding.EncodeToString(raw)
}
