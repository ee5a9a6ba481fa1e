package engine

import (
	"fmt"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
)

// read checks by which selectors a sequence is to read, and makes it the sequence's; nil reads everything.
func (e *Engine) read(q *sequence, r *model.Reading) error {
	if r == nil {
		return nil
	}
	p, err := e.model.Policy(r)
	if err != nil {
		return fmt.Errorf("%w: sparse: %w", ErrRequest, err)
	}
	if p.Prefill > 0 || p.Decode > 0 {
		q.policy, q.reads = &p, &reads{goal: fallbackRecall, budget: e.model.Budget(&p)}
		q.reads.stats.Budget, q.reads.stats.Least = int(q.reads.budget), 1
		if r.Recall > 0 {
			q.reads.goal = min(q.reads.goal, float64(r.Recall))
		}
	}
	if p.Cached != "" {
		q.variant += " reads:" + p.Cached
	}
	return nil
}

// The counters of a sequence whose keys a selector chooses.
//
// A prompt is planned in groups of Policy.Align tokens, from the first one on, so a step of it begins and ends between two groups, or at the
// prompt's end; and what is shared of it are whole groups. A generated token that reads by a selector has values that follow from how it was
// generated, which a prompt of the same tokens has not: it is never shared, and is computed by itself if it must be computed again.

// shareable is how many leading tokens have values that follow from the tokens, and from the sequence's variant, alone.
func (q *sequence) shareable() int {
	p := q.policy
	switch {
	case p == nil:
		return len(q.tokens)
	case p.Prefill > 0:
		return max(0, q.prompt-p.Tail) / p.Align * p.Align
	}
	return min(len(q.tokens), max(q.prompt, p.From))
}

// unit is how many tokens are computed and shared together at least.
func (q *sequence) unit() int {
	if q.policy == nil || q.computed >= q.prompt {
		return attention.PageTokens
	}
	return max(attention.PageTokens, q.policy.Align)
}

// stretch is how many of at most so many rows the sequence can advance by; 0 where they do not hold what is planned together.
func (q *sequence) stretch(rows int) int {
	p := q.policy
	if p == nil {
		return rows
	}
	to := q.computed + rows
	if p.Prefill > 0 && q.computed < q.prompt {
		if to < q.prompt {
			return max(0, to/p.Align*p.Align-q.computed)
		}
		to = q.prompt
	}
	if alone := max(q.prompt, p.From); p.Decode > 0 && to > alone {
		to = max(alone, q.computed+1)
	}
	return to - q.computed
}

// least is how many rows the first of those who catch up must have.
func (s *scheduler) least() int {
	for _, q := range s.running {
		if !q.held && !q.planned && q.policy != nil && q.computed < q.prompt {
			return min(q.policy.Align, q.behind())
		}
	}
	return 0
}
