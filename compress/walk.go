package compress

import (
	"context"
	"fmt"
	"iter"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
)

// Text is a calibration text as a model reads it.
type Text struct {
	SHA256    string                    // 64 hex digits, of what the ids were made of
	Sequences iter.Seq2[[]int32, error] // runs of ids, each a context of its own; a slice is read before the next is asked for
}

// stepRows is how many rows a step has where nobody says, and stepSequences how many sequences at most.
const (
	stepRows      = 512
	stepSequences = 64
)

// walk hands a text to models of the same limits in steps, which each of them takes. Rows come in the order of the text: a step is either
// some whole sequences or a part of a longer one.
type walk struct {
	models []*model.Model
	step   model.Step
	next   []int32 // rows: the id that follows in the sequence, -1 = none
	pages  int32   // of the cache, that the step's sequences have
	want   bool    // logits of every row are wanted
	dirty  bool    // a step was begun since whoever feeds it reset this
	after  func(s *model.Step) error
}

// walkLimits are those of a model that is walked over, of which the caller says how many rows a step and tokens a sequence have at most.
func walkLimits(asked model.Limits) model.Limits {
	rows := asked.Rows
	if rows <= 0 {
		rows = stepRows
	}
	sequences := min(rows, stepSequences)
	return model.Limits{
		Rows: rows, Context: asked.Context, Sequences: sequences, Wanted: 1,
		Pages: max(pagesOf(asked.Context), rows/attention.PageTokens+sequences),
	}
}

func pagesOf(tokens int) int { return (tokens + attention.PageTokens - 1) / attention.PageTokens }

// checkSequence says what about a sequence no model with these limits can read: ErrText.
func checkSequence(ids []int32, m *model.Model) error {
	if len(ids) < 1 || len(ids) > m.Limits().Context {
		return fmt.Errorf("%w: a sequence of %d tokens, want 1 to %d", ErrText, len(ids), m.Limits().Context)
	}
	for _, id := range ids {
		if id < 0 || int(id) >= m.Spec().Vocab {
			return fmt.Errorf("%w: id %d, the model has %d", ErrText, id, m.Spec().Vocab)
		}
	}
	return nil
}

// fits says whether a sequence can join those that wait for the next step.
func (w *walk) fits(n int) bool {
	lim := w.models[0].Limits()
	return len(w.step.IDs) == 0 || len(w.step.IDs)+n <= lim.Rows && len(w.step.Past) < lim.Sequences
}

// idle says whether all that was fed has been run.
func (w *walk) idle() bool { return len(w.step.IDs) == 0 }

// feed takes a sequence that fits. One longer than a step is run at once, others with those that follow.
func (w *walk) feed(ctx context.Context, ids []int32) error {
	rows := w.models[0].Limits().Rows
	if w.idle() {
		w.pages, w.next = 0, w.next[:0]
		w.step.Reset()
	}
	pages := make([]int32, pagesOf(len(ids)))
	for i := range pages {
		pages[i] = w.pages
		w.pages++
	}
	for past := 0; past < len(ids); past += rows {
		part := ids[past:min(past+rows, len(ids))]
		for i := range part {
			if w.want {
				w.step.Want = append(w.step.Want, int32(len(w.step.IDs)+i))
			}
		}
		w.step.IDs = append(w.step.IDs, part...)
		w.next = append(w.next, ids[past+1:min(past+rows+1, len(ids))]...)
		if len(w.next) < len(w.step.IDs) {
			w.next = append(w.next, -1)
		}
		w.step.Start, w.step.Past = append(w.step.Start, int32(len(w.step.IDs))), append(w.step.Past, int32(past))
		w.step.Pages = append(w.step.Pages, pages)
		if len(ids) > rows {
			if err := w.run(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// run steps the models over what waits, and lets after see it.
func (w *walk) run(ctx context.Context) error {
	if w.idle() {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.dirty = true
	for _, m := range w.models {
		m.Batch().Fill(m.Queue(), &w.step)
		m.Forward(m.Batch())
		if err := m.Queue().Sync(); err != nil {
			return fmt.Errorf("step of %d tokens: %w", len(w.step.IDs), err)
		}
	}
	if err := w.after(&w.step); err != nil {
		return err
	}
	w.step.Reset()
	w.next = w.next[:0]
	return nil
}
