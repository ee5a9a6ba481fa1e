package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/winnow-llm/winnow/serve"
)

// receipt is what the engine said of one answer.
type receipt struct {
	generation serve.Generation // with its seed
	finish     string
	usage      *serve.Usage // nil for an answer that was stopped
}

// durations prints counts and times under the names that ollama's users know. Loading is told with the first answer.
func (r *receipt) durations(out io.Writer, loaded time.Duration) {
	u := r.usage
	prefill, decode := u.First-u.Queued, u.Total-u.First
	fmt.Fprintf(out, "total duration:       %s\n", short(u.Total+loaded))
	if loaded > 0 {
		fmt.Fprintf(out, "load duration:        %s\n", short(loaded))
	}
	fmt.Fprintf(out, "prompt eval count:    %d token(s)\n", u.Prompt)
	fmt.Fprintf(out, "prompt cached count:  %d token(s)\n", u.Cached)
	fmt.Fprintf(out, "prompt eval duration: %s\n", short(prefill))
	fmt.Fprintf(out, "prompt eval rate:     %.2f tokens/s\n", rate(u.Prompt-u.Cached, prefill))
	fmt.Fprintf(out, "eval count:           %d token(s)\n", u.Completion)
	fmt.Fprintf(out, "eval duration:        %s\n", short(decode))
	fmt.Fprintf(out, "eval rate:            %.2f tokens/s\n", rate(u.Completion-1, decode)) // the first token is the prompt's
	if x := u.Experts; x != nil && x.Rows > 0 {
		fmt.Fprintf(out, "experts per token:    %.2f, with %.1f %% of their weight\n", float64(x.Chosen)/float64(x.Rows), 100*x.Mass/float64(x.Rows))
	}
}

func rate(tokens int, d time.Duration) float64 {
	return max(0, float64(tokens)) / max(1e-9, d.Seconds())
}

// short rounds a duration to what is worth reading.
func short(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// print shows what the answer was made of: the prompt and what of it was found, how tokens were drawn, what the model ran.
func (r *receipt) print(out io.Writer, m *serve.Model) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if u := r.usage; u != nil {
		fmt.Fprintf(w, "prompt\t%d tokens: %d found in the cache, %d computed\n", u.Prompt, u.Cached, u.Prompt-u.Cached)
		fmt.Fprintf(w, "left out\tnothing of the conversation\n")
		fmt.Fprintf(w, "answer\t%d tokens, ended by %s\n", u.Completion, r.reason(m.Context()))
		fmt.Fprintf(w, "context\t%d of %d tokens\n", u.Prompt+u.Completion, m.Context())
	} else {
		fmt.Fprintf(w, "answer\tstopped by the user; the engine counts whole answers alone\n")
	}
	fmt.Fprintf(w, "sampling\t%s\n", r.sampling(m))
	experts, used, layers, pruned := mixture(m)
	if layers > 0 {
		fmt.Fprintf(w, "experts\t%d of %d a token, in %d layers; %d pruned\n", used, experts, layers, pruned)
	}
	return w.Flush()
}

// reason is why the answer ended, in words.
func (r *receipt) reason(context int) string {
	switch {
	case r.finish == serve.FinishStop:
		return "the model, or a stop text"
	case r.generation.MaxTokens > 0 && r.usage.Completion == r.generation.MaxTokens:
		return fmt.Sprintf("max_tokens, which is %d", r.generation.MaxTokens)
	}
	return fmt.Sprintf("the end of the context of %d tokens", context)
}

func (r *receipt) sampling(m *serve.Model) string {
	s := m.Sampling(r.generation)
	if s.Temperature == 0 {
		return "the likeliest token"
	}
	var all []string
	for _, p := range parameters {
		if p.used != nil {
			all = append(all, p.name+" "+p.used(&s))
		}
	}
	return fmt.Sprintf("%s, seed %d", strings.Join(all, ", "), *r.generation.Seed)
}

// mixture counts a model's experts: in a layer, used for a token, layers that have any, and router rows without an expert.
func mixture(m *serve.Model) (experts, used, layers, pruned int) {
	for _, l := range m.Spec().Layers {
		if l.Router == nil {
			continue
		}
		experts, used, layers = l.Router.Experts, l.Router.K, layers+1
		for _, e := range l.Map.Phys {
			if e < 0 {
				pruned++
			}
		}
	}
	return experts, used, layers, pruned
}
