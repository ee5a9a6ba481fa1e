package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/serve"
)

// perplexity is the result of a measurement.
type perplexity struct {
	Model       string  `json:"model"`
	Experts     string  `json:"moe,omitempty"` // as --moe asked
	Sparse      string  `json:"sparse,omitempty"`
	KVType      string  `json:"kv_type,omitempty"`
	Perplexity  float64 `json:"perplexity"`
	Uncertainty float64 `json:"uncertainty"` // one standard error
	Nats        float64 `json:"nats"`        // mean negative log-likelihood of a token
	Ctx         int     `json:"ctx"`
	Chunks      int     `json:"chunks"`
	Tokens      int     `json:"tokens"` // scored
	Seconds     float64 `json:"seconds"`
	TokensPerS  float64 `json:"tokens_per_second"` // computed, scored or not
}

func (e *evaluation) runPerplexity(c *cobra.Command, name string) (err error) {
	cfg, log, err := settings(c)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(c)
	defer stop()
	raw, err := os.ReadFile(e.perplexity)
	if err != nil {
		return err
	}
	m, err := openMachine(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	talker, err := m.scorer(name, e.ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, talker.Close()) }()

	chunks, err := e.cut(talker, string(raw))
	if err != nil {
		return err
	}
	sparse := talker.Sparsity()
	reads, err := sparse.Reading(e.ctx)
	if err != nil {
		return err
	}
	started, sum := time.Now(), nll{vocab: talker.Spec().Vocab}
	for i, ids := range chunks {
		err := talker.Engine().Score(ctx, engine.Scoring{IDs: ids.fed, Experts: e.experts, Reads: reads}, func(first int, logits []float32) { sum.add(first, logits, ids.said) })
		if err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
		if (i+1)%10 == 0 {
			log.Info("perplexity so far", slog.Int("chunks", i+1), slog.Int("of", len(chunks)), slog.Float64("perplexity", math.Exp(sum.mean())))
		}
	}
	seconds := time.Since(started).Seconds()
	p := perplexity{
		Model: name, Experts: askedOf(e.experts), Sparse: spoken(&cfg, sparse), KVType: cfg.KVType,
		Perplexity: math.Exp(sum.mean()), Uncertainty: sum.deviation() * math.Exp(sum.mean()), Nats: sum.mean(),
		Ctx: e.ctx, Chunks: len(chunks), Tokens: sum.count, Seconds: seconds, TokensPerS: float64(e.ctx*len(chunks)) / seconds,
	}
	if e.asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(p)
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "perplexity %.4f +- %.4f over %d chunks of %d tokens (%.1f tokens/s)\n",
		p.Perplexity, p.Uncertainty, p.Chunks, p.Ctx, p.TokensPerS)
	return err
}

// scoredRows is how many rows of logits a step of a measurement computes.
const scoredRows = 128

// scorer opens a model for one sequence of n tokens whose every position is scored.
func (m *machine) scorer(name string, n int) (*serve.Model, error) {
	c, err := openCheckpoint(m.config.Models, name)
	if err != nil {
		return nil, err
	}
	spec, err := model.Describe(c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := m.own(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	opt := m.options()
	pages := (n + attention.PageTokens - 1) / attention.PageTokens
	opt.Context, opt.Sequences, opt.Rows = n, scoredRows, max(opt.Rows, scoredRows)
	room := model.Limits{Rows: opt.Rows, Sequences: opt.Sequences}
	opt.CacheBytes = int64(pages)*int64(spec.PageBytes(model.KV{Format: quant.F32})) + spec.DenseBytes(model.KV{Format: quant.F16, Pruned: 50}, room) // enough for smaller formats too
	return m.opened(serve.Open(name, c, opt))
}

// chunk is a run of the text: what the model is given, and what it should have said.
type chunk struct{ fed, said []int32 }

// cut makes chunks of a text. Where the model's file wants BOS, the text begins with it and so does each chunk, in place of its first
// token.
func (e *evaluation) cut(m *serve.Model, s string) ([]chunk, error) {
	ids, vocab := m.Encode(s), m.Tokenizer().Vocab()
	if e.ctx < 2 || len(ids) < 2*e.ctx {
		return nil, fmt.Errorf("%s has %d tokens, two chunks of at least 2 tokens are needed, and --ctx is %d", e.perplexity, len(ids), e.ctx)
	}
	n := len(ids) / e.ctx
	if e.chunks > 0 {
		n = min(n, e.chunks)
	}
	out := make([]chunk, n)
	for i := range out {
		said := ids[i*e.ctx : (i+1)*e.ctx]
		fed := said
		if vocab.AddBOS && vocab.BOS >= 0 {
			fed = slices.Clone(said)
			fed[0] = vocab.BOS
		}
		out[i] = chunk{fed, said}
	}
	return out, nil
}

// nll sums up negative log-likelihoods of tokens.
type nll struct {
	vocab        int
	count        int
	sum, squares float64
}

// add takes the logits that follow positions first, first+1, ... of a chunk. Positions of its first half only give context; the last
// one's successor is in no chunk.
func (n *nll) add(first int, logits []float32, said []int32) {
	for row := range len(logits) / n.vocab {
		at := first + row
		if at < len(said)/2 || at+1 >= len(said) {
			continue
		}
		v := surprise(logits[row*n.vocab:(row+1)*n.vocab], said[at+1])
		n.count, n.sum, n.squares = n.count+1, n.sum+v, n.squares+v*v
	}
}

// surprise is the negative log-probability of an id under logits.
func surprise(logits []float32, id int32) float64 {
	top := float64(slices.Max(logits))
	total := 0.0
	for _, v := range logits {
		total += math.Exp(float64(v) - top)
	}
	return top + math.Log(total) - float64(logits[id])
}

func (n *nll) mean() float64 { return n.sum / float64(n.count) }

// deviation is the standard error of the mean.
func (n *nll) deviation() float64 {
	variance := n.squares/float64(n.count) - n.mean()*n.mean()
	return math.Sqrt(max(0, variance) / max(1, float64(n.count-1)))
}
