package serve

import (
	"context"
	"iter"
)

// Chat answers a conversation. The last delta carries Finish and Usage, unless an error ends the answer before: a *RequestError or
// *ContextError before the first delta, ErrQueueFull, ErrClosed, the cause that ctx ended for, or a fault of the engine.
func (m *Model) Chat(ctx context.Context, r ChatRequest) iter.Seq2[Delta, error] {
	return func(yield func(Delta, error) bool) {
		end := within(ctx, "template")
		spans, err := m.render(Conversation(r.Messages), r.TemplateArgs)
		end()
		if err != nil {
			yield(Delta{}, err)
			return
		}
		end = within(ctx, "tokenize")
		prompt := m.begin(m.tok.Encode(nil, spans...))
		end()
		for d, err := range m.answer(ctx, prompt, r.Generation) {
			if !yield(d, err) {
				return
			}
		}
	}
}
