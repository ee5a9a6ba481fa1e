package httpapi

import (
	"time"

	"github.com/winnow-llm/winnow/serve"
)

// ollamaLine is one line of an answer to /api/chat or /api/generate, or all of it.
type ollamaLine struct {
	Model    string         `json:"model"` // as the client calls it
	Created  time.Time      `json:"created_at"`
	Message  *ollamaMessage `json:"message,omitempty"`  // of a chat
	Response *string        `json:"response,omitempty"` // of a prompt
	Thinking string         `json:"thinking,omitempty"`
	Done     bool           `json:"done"`
	Reason   string         `json:"done_reason,omitempty"`
	Context  []int32        `json:"context,omitempty"`
	ollamaTimes
	Experts  *ollamaExperts  `json:"moe,omitempty"`    // what experts did, with the last line; nil unless it was asked for
	Sparse   *sparseUsage    `json:"sparse,omitempty"` // what was read, likewise
	Logprobs []ollamaLogprob `json:"logprobs,omitempty"`
	Warnings []string        `json:"warnings,omitempty"` // what of the request was ignored or changed, with the last line
}

type ollamaMessage struct {
	Role     string `json:"role"`
	Content  string `json:"content"`
	Thinking string `json:"thinking,omitempty"`
}

// ollamaTimes are what an answer took, in nanoseconds and tokens.
type ollamaTimes struct {
	Total       time.Duration `json:"total_duration,omitempty"`
	Load        time.Duration `json:"load_duration,omitempty"`
	PromptCount int           `json:"prompt_eval_count,omitempty"` // those that were found computed, too
	CachedCount *int          `json:"prompt_eval_cached_count,omitempty"`
	Prompt      time.Duration `json:"prompt_eval_duration,omitempty"`
	Count       int           `json:"eval_count,omitempty"`
	Eval        time.Duration `json:"eval_duration,omitempty"`
}

// ollamaExperts is what experts did for an answer: the figures of OpenAI's usage.moe and, where they were asked for, the ids of its choices.
type ollamaExperts struct {
	*expertUsage
	*choiceExpert
}

func newOllamaExperts(u *serve.Usage) *ollamaExperts {
	if u == nil || u.Experts == nil {
		return nil
	}
	return &ollamaExperts{tallyExperts([]serve.Usage{*u}), newChoiceExpert(u)}
}

// ollamaToken is a token that was chosen, or could have been.
type ollamaToken struct {
	Token   string  `json:"token"`
	Logprob float32 `json:"logprob"`
	Bytes   []int   `json:"bytes,omitempty"`
}

type ollamaLogprob struct {
	ollamaToken
	Top []ollamaToken `json:"top_logprobs,omitempty"`
}

func newOllamaLogprobs(tokens []serve.TokenLogprob) (out []ollamaLogprob) {
	for _, t := range tokens {
		l := ollamaLogprob{ollamaToken: ollamaToken(newAlternative(t))}
		for _, b := range t.Top {
			l.Top = append(l.Top, ollamaToken(newAlternative(b)))
		}
		out = append(out, l)
	}
	return out
}

// line is a line of an answer that says a piece of it.
func (r *ollamaRequest) line(d serve.Delta) ollamaLine {
	l := ollamaLine{Model: r.Model, Created: time.Now().UTC(), Logprobs: newOllamaLogprobs(d.Tokens)}
	if r.chat {
		l.Message = &ollamaMessage{Role: "assistant", Content: d.Text, Thinking: d.Reasoning}
	} else {
		l.Response, l.Thinking = &d.Text, d.Reasoning
	}
	return l
}

// last is the line that ends an answer, with a piece of it.
func (r *ollamaRequest) last(d serve.Delta, t ollamaTimes) ollamaLine {
	l := r.line(d)
	l.Done, l.Reason, l.Context, l.ollamaTimes, l.Warnings = true, d.Finish, d.IDs, t, r.Warnings
	if l.Experts = newOllamaExperts(d.Usage); d.Usage != nil {
		l.Sparse = tallySparse([]serve.Usage{*d.Usage})
	}
	return l
}

// newOllamaTimes is what an answer took, from its request to now.
func newOllamaTimes(started time.Time, loading time.Duration, u *serve.Usage) ollamaTimes {
	t := ollamaTimes{Total: time.Since(started), Load: max(loading, 1)}
	if u != nil {
		t.PromptCount, t.CachedCount, t.Count = u.Prompt, &u.Cached, u.Completion
		t.Prompt, t.Eval = max(u.First-u.Queued, 1), max(u.Total-u.First, 1) // clocks tick in their own steps
	}
	return t
}
