package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/model"
)

// Pooling says which of a text's hidden states its embedding is made of: those that the model's last norm gives for each token.
type Pooling string

// The ways to pool.
const (
	MeanPooling Pooling = "mean" // the mean over all tokens
	LastPooling Pooling = "last" // that of the last token, the only one that has read the whole text
)

// Embed computes the pooled hidden state of ids: as many values as the model is wide, of no particular length. It takes part in steps as
// generations do, without logits.
//
// Twice as many embeddings as a step holds are under way at once, and do not count as waiting requests; later ones wait here, so that
// whoever has thousands may ask for all of them without filling the queue of others. The Stats begin when it no longer waits here.
func (e *Engine) Embed(ctx context.Context, ids []int32, p Pooling) ([]float32, *Stats, error) {
	if p != MeanPooling && p != LastPooling {
		return nil, nil, fmt.Errorf("%w: pooling %q, want %q or %q", ErrRequest, p, MeanPooling, LastPooling)
	}
	if err := e.checkText(ids); err != nil {
		return nil, nil, err
	}
	select {
	case e.embeddings <- struct{}{}:
		defer func() { <-e.embeddings }()
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	q := newEmbedding(ids, p, e.model.Spec().Dim)
	leave, err := e.enter(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	<-q.out.signal // nothing comes before its end
	if _, _, err := e.collect(q); err != nil {
		return nil, nil, err
	}
	if p == MeanPooling {
		for i := range q.sum {
			q.sum[i] /= float32(len(ids))
		}
	}
	return q.sum, q.stats(), nil
}

// checkText refuses ids that cannot be computed because one is unknown, or because they do not fit the context.
func (e *Engine) checkText(ids []int32) error {
	if err := checkIDs(ids, e.model.Spec().Vocab); err != nil {
		return err
	}
	if len(ids) > e.Context() {
		return &ContextError{len(ids), e.Context()}
	}
	return nil
}

// newEmbedding makes the sequence that sums the hidden states of ids.
func newEmbedding(ids []int32, p Pooling, dim int) *sequence {
	return &sequence{
		tokens: slices.Clone(ids), prompt: len(ids), limit: len(ids), pooling: p, sum: make([]float32, dim),
		alternatives: -1, out: outbox{signal: make(chan struct{}, 1)},
	}
}

// pooled is how many rows' hidden states go to its sum when it advances by rows: the last ones of them.
func (q *sequence) pooled(rows int) int {
	switch to := q.computed + rows; {
	case q.pooling == MeanPooling:
		return max(0, to-max(q.seen, q.computed))
	case q.pooling == LastPooling && to == len(q.tokens):
		return 1
	}
	return 0
}

// requests is how many sequences there are beside embeddings.
func (s *scheduler) requests() (n int) {
	for _, list := range [][]*sequence{s.running, s.waiting} {
		for _, q := range list {
			if q.pooling == "" {
				n++
			}
		}
	}
	return n
}

// fillSums writes a plan's sums as columns. The parts of the plan and the rows of the step are in the same order.
func fillSums(step *model.Step, plan []advance) {
	for i, a := range plan {
		n := int32(a.seq.pooled(a.rows))
		if n == 0 {
			continue
		}
		for row := step.Start[i+1] - n; row < step.Start[i+1]; row++ {
			step.Pool = append(step.Pool, row)
		}
		step.PoolStart = append(step.PoolStart, int32(len(step.Pool)))
		step.Sums = append(step.Sums, a.seq.sum)
	}
}

// readSums fetches what a step's sums have become. Their sequences hand them out only when they are complete, so nobody else looks.
func readSums(m *model.Model, step *model.Step) {
	for i, sum := range step.Sums {
		model.ReadF32(m.Queue(), m.Batch().Pooled.Sums.Slice(i, i+1), sum)
	}
}
