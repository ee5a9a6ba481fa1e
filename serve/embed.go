package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/winnow-llm/winnow/engine"
)

// Pooling says which of a text's hidden states its embedding is made of.
type Pooling = engine.Pooling

// The ways to pool.
const (
	MeanPooling = engine.MeanPooling
	LastPooling = engine.LastPooling
)

// EmbedRequest asks for the embeddings of texts.
type EmbedRequest struct {
	Inputs     []Input // at least one
	Pooling    Pooling // "" = as the model's files say, else LastPooling: only the last token of a decoder has read the whole text
	Dimensions int     // how many of the leading values to keep; 0 = all
	Context    int     // most tokens of an input; 0 = as the model has
	Truncate   bool    // what an input has beyond them is left out, in place of an error
}

// Input is a text, or ids in its place. Special tokens in a text count, and BOS and EOS are added to it as the model's files say; ids are
// taken as they are.
type Input struct {
	Text string
	IDs  []int32
}

// Embeddings are vectors of length 1, one an input, in order.
type Embeddings struct {
	Vectors [][]float32
	Prompt  int   // tokens of all inputs
	Usage   Usage // of all inputs together: First and Total end with the last of them
	Cut     []int // places of the inputs that were not embedded to their end
}

// Embed computes the embeddings of all inputs, some side by side, or of none: the first that fails ends the others. An input that cannot
// be computed is found before any is; the error is a *RequestError that names it.
func (m *Model) Embed(ctx context.Context, r EmbedRequest) (*Embeddings, error) {
	pooling := cmp.Or(r.Pooling, m.pooling, LastPooling)
	if pooling != MeanPooling && pooling != LastPooling {
		return nil, &RequestError{Param: "pooling", Why: fmt.Sprintf(
			"the model's own is %s, which this server cannot do; ask for %q or %q", pooling, MeanPooling, LastPooling)}
	}
	if r.Dimensions > m.spec.Dim {
		return nil, &RequestError{Param: "dimensions", Why: fmt.Sprintf("%d are asked for, this model has %d", r.Dimensions, m.spec.Dim)}
	}
	out := &Embeddings{Vectors: make([][]float32, len(r.Inputs))}
	end := within(ctx, "tokenize")
	texts, err := m.texts(ctx, &r, out)
	end()
	if err != nil {
		return nil, err
	}
	for _, ids := range texts {
		out.Prompt += len(ids)
	}
	out.Usage.Prompt = out.Prompt
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	var mu sync.Mutex // guards out.Usage
	var working sync.WaitGroup
	for range min(len(texts), 2*m.net.Limits().Sequences) { // so that the next step's are there before a step ends
		working.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(texts) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				v, stats, err := m.engine.Embed(ctx, texts[i], pooling)
				if err == nil {
					mu.Lock()
					out.Usage.spanned(stats)
					mu.Unlock()
					out.Vectors[i], err = unit(v, cmp.Or(r.Dimensions, len(v)))
				}
				if err != nil {
					stop(fmt.Errorf("embed input %d: %w", i, err))
				}
			}
		})
	}
	working.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return out, nil
}

// texts are the ids of inputs that can all be computed; it notes which of them are cut.
func (m *Model) texts(ctx context.Context, r *EmbedRequest, into *Embeddings) ([][]int32, error) {
	most := m.context
	if r.Context > 0 {
		most = min(most, r.Context)
	}
	out := make([][]int32, len(r.Inputs))
	for i, in := range r.Inputs {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		param := "input"
		if len(r.Inputs) > 1 {
			param = fmt.Sprintf("input[%d]", i)
		}
		if out[i] = in.IDs; in.IDs == nil {
			out[i] = m.end(m.Encode(in.Text))
		}
		if err := m.checkIDs(param, out[i]); err != nil {
			return nil, err
		}
		switch n := len(out[i]); {
		case n == 0:
			return nil, &RequestError{Param: param, Why: "it has no tokens"}
		case n > most && r.Truncate:
			if out[i] = m.cut(out[i], most); len(out[i]) > most {
				return nil, &RequestError{Param: param, Why: fmt.Sprintf("a context of %d tokens has no room for its ends", most)}
			}
			into.Cut = append(into.Cut, i)
		case n > most:
			return nil, &RequestError{Param: param, Why: fmt.Sprintf("it has %d tokens; this model's context is %d tokens", n, most),
				Err: &ContextError{Prompt: n, Context: most}}
		}
	}
	return out, nil
}

// cut is a text's beginning of at most so many ids, with what the model's files want behind a text.
func (m *Model) cut(ids []int32, most int) []int32 {
	closing := len(m.end(nil))
	return m.end(slices.Clone(ids[:max(0, min(len(ids), most-closing))]))
}

// end puts behind a whole text what the model's files want there, unless it ends so already.
func (m *Model) end(ids []int32) []int32 {
	closing := m.vocab.Closing
	if len(closing) == 0 && m.vocab.EOS >= 0 {
		closing = []int32{m.vocab.EOS}
	}
	if !m.vocab.AddEOS || len(ids) >= len(closing) && slices.Equal(ids[len(ids)-len(closing):], closing) {
		return ids
	}
	return append(ids, closing...)
}

// errNotFinite is of a model whose numbers overflow.
var errNotFinite = errors.New("embedding is not finite")

// unit is the first n values of a vector, scaled to a length of 1 by itself. A vector of zeros stays.
func unit(v []float32, n int) ([]float32, error) {
	v = slices.Clone(v[:n])
	var squares float64
	for _, x := range v {
		squares += float64(x) * float64(x)
	}
	if math.IsNaN(squares) || math.IsInf(squares, 0) {
		return nil, errNotFinite
	}
	for i, x := range v {
		if squares > 0 {
			v[i] = float32(float64(x) / math.Sqrt(squares))
		}
	}
	return v, nil
}
