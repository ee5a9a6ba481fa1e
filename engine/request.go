package engine

import (
	"errors"
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/model"
)

// Errors that refuse a request before it takes part in a step.
var (
	ErrRequest   = errors.New("engine: request out of range")           // a number of it cannot be meant
	ErrContext   = errors.New("engine: prompt longer than the context") // as *ContextError, which has the numbers
	ErrQueueFull = errors.New("engine: too many requests wait")
)

// Errors that end a request under way.
var (
	ErrStep   = errors.New("engine: a step failed") // the device reported why; other requests go on
	ErrClosed = errors.New("engine: closed")        // also for requests that come later
)

// ContextError says that a prompt can never be served: there are no pages for it, or no room for a token after it.
type ContextError struct {
	Prompt  int // tokens of the prompt
	Context int // tokens a sequence may have in this engine, see Engine.Context
}

func (e *ContextError) Error() string {
	return fmt.Sprintf("engine: prompt of %d tokens in a context of %d tokens", e.Prompt, e.Context)
}

// Unwrap makes it an ErrContext.
func (e *ContextError) Unwrap() error { return ErrContext }

// Request asks for the tokens that follow a prompt.
type Request struct {
	Prompt []int32 // at least one token
	// MaxTokens is how many new tokens to generate: 0 for as many as the context holds, a number below 0 for none. A request for
	// none computes and caches the prompt, and yields nothing. What would pass the end of the context is cut off there.
	MaxTokens int
	MinTokens int // so many new tokens come before one of Stop may be chosen
	Sampling  Sampling
	Stop      []int32 // ids that end the generation; the id itself is yielded and counted, with Finish Stop
	// Priority orders requests, the lowest number first and equals by arrival: who is admitted, who has rows first, and the last one loses
	// its pages first. One that waits takes the place of running ones with a higher number.
	Priority int
	// Alternatives is how many of the likeliest ids to report beside the chosen one, 0 to model.MostAlternatives, all with
	// log-probabilities; -1 for none and no log-probability either.
	Alternatives int
	Reads        *model.Reading // by which selectors the tokens read; nil = everything
	Experts      *model.Experts // with how few experts the tokens make do; nil = the model's own
	Counted      bool           // asks for Stats.Experts: what experts did
	Routes       bool           // asks for Stats.Experts.IDs too; it needs Counted
	// Where an engine drafts, see Options.Draft, Expected is a text of which the answer may have much, in which it looks too, and Draft is how many
	// tokens a step drafts at most: 0 = MostDraft, a number below 0 for none. Neither changes a token.
	Expected []int32
	Draft    int
}

// Sampling says how a token is chosen. The zero value takes the likeliest. The steps come in this order: penalties and biases, then
// temperature, top-k, typical-p, top-p and min-p, each on what the one before has left.
type Sampling struct {
	Repetition  float32 // logits of ids in the prompt and the answer: those above 0 are divided by it, others multiplied; 0 and 1 do nothing
	RepeatLast  int     // how many of the last tokens Repetition looks at; 0 = all
	Presence    float32 // taken from the logits of ids that were generated
	Frequency   float32 // taken from the logits of ids that were generated, once for each time
	Bias        []Bias  // added to logits; an id may have several
	Temperature float32 // logits are divided by it; 0 takes the likeliest
	TopK        int     // keep the k likeliest; 0 keeps all
	TypicalP    float32 // keep the fewest most typical whose probabilities reach it; 0 and 1 keep all
	TopP        float32 // keep the fewest likeliest whose probabilities reach it; 0 and 1 keep all
	MinP        float32 // keep what is at least so many times as likely as the likeliest; 0 keeps all
	Seed        uint64  // with the token's position it fixes the draw, whatever else is in the batch
}

// Bias makes an id likelier, or less likely.
type Bias struct {
	ID  int32
	Add float32 // to its logit; negative infinity bans it
}

// MostBiases is how many biases a request may have.
const MostBiases = 1024

// Finish is why a generation ended; empty while it goes on.
type Finish string

// The ways to end.
const (
	Stop   Finish = "stop"   // the token is one of Request.Stop
	Length Finish = "length" // MaxTokens or the context's end is reached
)

// Token is one generated token.
type Token struct {
	ID       int32
	Position int           // its index in the sequence, so the first one has the prompt's length
	Logprob  float32       // under the model's own distribution, before Sampling; 0 unless Request.Alternatives asks
	Best     []Alternative // the likeliest ids, likeliest first
	Finish   Finish        // set with the last token
	Drafted  bool          // it was foretold, and computed in one step with the token before it
	Rejected int           // tokens that were drafted in its place and behind it, and did not hold
	ByModel  bool          // a draft model foretold those of its step, Rejected ones included; see Options.Drafter
	ByHead   bool          // likewise, a head of the model
	Stats    *Stats        // set with the first token, and complete with the last; where Request.Counted or Reads asks, with all
}

// Alternative is an id that could have been chosen.
type Alternative struct {
	ID      int32
	Logprob float32
}

// mostPenalty bounds penalties: beyond it logits say nothing any more.
const mostPenalty = 1000

// check refuses what no step could compute. Vocab and context are the engine's.
func (r *Request) check(vocab, context int) error {
	if err := checkIDs(r.Prompt, vocab); err != nil {
		return err
	}
	if len(r.Expected) > 0 {
		if err := checkIDs(r.Expected, vocab); err != nil {
			return err
		}
	}
	for _, n := range []struct {
		name     string
		got, top float64
	}{
		{"temperature", float64(r.Sampling.Temperature), math.MaxFloat32},
		{"min-tokens", float64(r.MinTokens), math.MaxInt32},
		{"top-k", float64(r.Sampling.TopK), math.MaxInt32},
		{"top-p", float64(r.Sampling.TopP), 1},
		{"typical-p", float64(r.Sampling.TypicalP), 1},
		{"repetition penalty", float64(r.Sampling.Repetition), mostPenalty},
		{"repeat window", float64(r.Sampling.RepeatLast), math.MaxInt32},
		{"size of presence penalty", math.Abs(float64(r.Sampling.Presence)), mostPenalty},
		{"size of frequency penalty", math.Abs(float64(r.Sampling.Frequency)), mostPenalty},
		{"number of biases", float64(len(r.Sampling.Bias)), MostBiases},
		{"number of stop ids", float64(len(r.Stop)), MostBiases},
		{"min-p", float64(r.Sampling.MinP), 1},
		{"alternatives plus one", float64(r.Alternatives) + 1, model.MostAlternatives + 1},
	} {
		if !(n.got >= 0 && n.got <= n.top) { // so that NaN is refused
			return fmt.Errorf("%w: %s is %v, want 0 to %v", ErrRequest, n.name, n.got, n.top)
		}
	}
	for _, b := range r.Sampling.Bias {
		if b.ID < 0 || int(b.ID) >= vocab || !(b.Add <= math.MaxFloat32) {
			return fmt.Errorf("%w: bias %v of id %d in a vocabulary of %d", ErrRequest, b.Add, b.ID, vocab)
		}
	}
	for _, id := range r.Stop {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("%w: stop id %d in a vocabulary of %d", ErrRequest, id, vocab)
		}
	}
	if len(r.Prompt) > context || len(r.Prompt) == context && r.MaxTokens >= 0 {
		return &ContextError{len(r.Prompt), context}
	}
	return nil
}

func checkIDs(ids []int32, vocab int) error {
	if len(ids) == 0 {
		return fmt.Errorf("%w: no tokens", ErrRequest)
	}
	for i, id := range ids {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("%w: token %d has id %d in a vocabulary of %d", ErrRequest, i, id, vocab)
		}
	}
	return nil
}

// limit is how many tokens the request's sequence may come to have.
func (r *Request) limit(context int) int {
	switch {
	case r.MaxTokens < 0:
		return len(r.Prompt)
	case r.MaxTokens == 0 || r.MaxTokens > context-len(r.Prompt):
		return context
	}
	return len(r.Prompt) + r.MaxTokens
}
