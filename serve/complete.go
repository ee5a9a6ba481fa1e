package serve

import (
	"context"
	"iter"
	"slices"

	"github.com/winnow-llm/winnow/text"
)

// Complete continues a text; the deltas and errors are as Chat's. Where the prompt is echoed, it comes first, with its
// log-probabilities if they were asked for: the first token's mean nothing.
func (m *Model) Complete(ctx context.Context, r CompletionRequest) iter.Seq2[Delta, error] {
	prompt := r.IDs
	if prompt == nil {
		end := within(ctx, "tokenize")
		prompt = m.document(r.Prompt)
		end()
	}
	return func(yield func(Delta, error) bool) {
		first, err := m.opening(ctx, prompt, &r)
		if r.PromptOnly && err == nil {
			first.Finish, first.Usage = FinishLength, &Usage{Prompt: len(prompt)}
			if first.Prompt, err = m.promptLogprobs(ctx, prompt, &r.Generation); r.ReturnIDs {
				first.IDs = slices.Clone(prompt)
			}
		}
		if err != nil || r.PromptOnly {
			yield(first, err)
			return
		}
		for d, err := range m.answer(ctx, prompt, tags{}, r.Generation) {
			first.add(d)
			if d, first = first, (Delta{}); !yield(d, err) {
				return
			}
		}
	}
}

// document encodes a prompt. An empty one is the beginning of a document, which models know by BOS or by the end of the one before.
func (m *Model) document(s string) []int32 {
	ids := m.Encode(s)
	if len(ids) > 0 {
		return ids
	}
	if m.vocab.BOS >= 0 {
		return []int32{m.vocab.BOS}
	}
	return m.ends[:min(1, len(m.ends))]
}

// opening checks a prompt and is what of it belongs to the answer.
func (m *Model) opening(ctx context.Context, prompt []int32, r *CompletionRequest) (Delta, error) {
	if err := m.checkIDs("prompt", prompt); err != nil {
		return Delta{}, err
	}
	if most := m.window(&r.Generation); len(prompt) > most || len(prompt) == most && !r.PromptOnly {
		return Delta{}, &ContextError{Prompt: len(prompt), Context: most}
	}
	experts, err := m.experts(&r.Generation)
	if err != nil || !r.Echo {
		return Delta{}, err
	}
	d := Delta{Text: r.Prompt}
	if r.IDs != nil {
		d.Text = m.Decode(prompt)
	}
	if r.Logprobs != nil {
		d.Tokens, err = m.score(ctx, prompt, experts, min(*r.Logprobs, MostAlternatives))
	}
	return d, err
}

// Decode is the text of ids, without control tokens.
func (m *Model) Decode(ids []int32) string {
	d := text.NewDecoder(m.tok)
	var out []byte
	for _, id := range ids {
		out = append(out, d.Next(id)...)
	}
	return string(append(out, d.Flush()...))
}
