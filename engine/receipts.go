package engine

import (
	"fmt"

	"github.com/winnow-llm/winnow/model"
)

// SparseStats is what the tokens that were computed for a request read, where selectors chose: not what those found in the prefix cache did,
// and once for those that were computed again.
type SparseStats struct {
	Read, Visible float64  // keys, summed over tokens, query heads and layers
	Probes        int      // tokens of which the rest was looked at too
	Mass          float64  // of the softmax over all keys, the share of those that were read, summed over Probes
	Least         float64  // of a probe; 1 where there was none
	Budget        int      // keys that decoding keeps by now; 0 where its selector has no budget
	Fallbacks     []string // what was changed for the sake of recall, and why
	Held, Freed   int      // pages of the cache that it has, and those that it needs no more, since no head reads in them: both together are its tokens'
}

// Recall is the share of the softmax that the probed tokens read, the mean; 1 where there was none.
func (s *SparseStats) Recall() float64 {
	if s.Probes == 0 {
		return 1
	}
	return s.Mass / float64(s.Probes)
}

// fallbackRecall is the recall of a probed token below which a sequence's budget is doubled, where its request is content with no less.
const fallbackRecall = 0.9

// reads is what a sequence's selectors read. Only the loop's goroutine touches it.
type reads struct {
	stats  SparseStats
	goal   float64             // recall below which the budget is doubled
	budget float32             // of the decode selector by now; 0 where it has none
	upto   int                 // leading tokens that are counted
	probed int                 // leading tokens whose probes have been looked at
	proofs map[int]model.Proof // by position, those of a step that is computed in parts
}

// readBy adds what selectors read in blocks from to to of a step. A probe that found too little doubles the budget from the next token on:
// that follows from the sequence's own tokens alone, so it is the same whatever else is in the batch.
func (e *Engine) readBy(step *model.Step, plan []advance, from, to int) error {
	receipts, err := e.model.Receipts(step, from, to)
	if err != nil || receipts == nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, a := range plan {
		r := a.seq.reads
		if r == nil {
			continue
		}
		if got := &receipts[i]; a.seq.computed >= r.upto {
			r.stats.Read, r.stats.Visible = r.stats.Read+got.Read, r.stats.Visible+got.Visible
			total := &e.scheduler.counts.Selected
			total.KeysRead, total.KeysVisible = total.KeysRead+got.Read, total.KeysVisible+got.Visible
		}
		for _, p := range receipts[i].Probes {
			if r.proofs == nil {
				r.proofs = map[int]model.Proof{}
			}
			sum := r.proofs[p.Position]
			r.proofs[p.Position] = model.Proof{Position: p.Position, Mass: sum.Mass + p.Mass, Of: sum.Of + p.Of}
		}
		if to < e.model.Blocks() {
			continue
		}
		r.upto = max(r.upto, a.seq.computed+a.rows)
		for position := a.seq.computed; position < a.seq.computed+a.rows; position++ {
			if p, ok := r.proofs[position]; ok && position >= r.probed {
				e.judge(a.seq, p)
			}
		}
		clear(r.proofs)
	}
	return nil
}

// judge takes the proof of a token in. The engine is locked.
func (e *Engine) judge(q *sequence, p model.Proof) {
	r := q.reads
	r.probed = p.Position + 1
	recall := p.Mass / float64(max(p.Of, 1))
	if r.stats.Probes++; r.stats.Probes == 1 || recall < r.stats.Least {
		r.stats.Least = recall
	}
	r.stats.Mass += recall
	total := &e.scheduler.counts.Selected
	total.Probes, total.ProbedMass = total.Probes+1, total.ProbedMass+recall
	if recall >= r.goal || p.Position < q.prompt || r.budget == 0 {
		return
	}
	total.Doubled++
	r.budget *= 2
	r.stats.Budget = int(r.budget)
	q.policy.Turns = append(q.policy.Turns, model.Turn{From: p.Position + 1, Knob: r.budget})
	r.stats.Fallbacks = append(r.stats.Fallbacks, fmt.Sprintf("token %d read %.3f of the softmax: the budget is %d from there on", p.Position, recall, int(r.budget)))
}
