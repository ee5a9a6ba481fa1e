package serve

import (
	"context"
	"iter"
	"slices"
)

// Chat answers a conversation. The last delta carries Finish and Usage, unless an error ends the answer before: a *RequestError or
// *ContextError before the first delta, ErrQueueFull, ErrClosed, the cause that ctx ended for, or a fault of the engine.
func (m *Model) Chat(ctx context.Context, r ChatRequest) iter.Seq2[Delta, error] {
	return func(yield func(Delta, error) bool) {
		prompt, tags, err := m.prompt(ctx, &r)
		if err != nil {
			yield(Delta{}, err)
			return
		}
		for d, err := range m.answer(ctx, prompt, tags, r.Generation) {
			if !yield(d, err) {
				return
			}
		}
	}
}

// prompt is a conversation as ids, and the tags by which to take thoughts apart; none where nobody asked for that.
func (m *Model) prompt(ctx context.Context, r *ChatRequest) ([]int32, tags, error) {
	if err := m.checkIDs("context", r.Before); err != nil {
		return nil, tags{}, err
	}
	end := within(ctx, "template")
	w, err := m.write(r)
	end()
	if err != nil {
		return nil, tags{}, err
	}
	if !r.Reasoning {
		w.tags = tags{}
	}
	defer within(ctx, "tokenize")()
	n := 16
	for _, s := range w.spans {
		n += len(s.Text) / 3 // about as many ids
	}
	ids := m.tok.Encode(make([]int32, 0, n), w.spans...)
	if len(r.Before) == 0 {
		return m.begin(ids), w.tags, nil
	}
	if len(ids) > 0 && ids[0] == m.vocab.BOS {
		ids = ids[1:] // the prompt has begun already
	}
	return slices.Concat(r.Before, ids), w.tags, nil
}
