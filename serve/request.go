package serve

import (
	"time"

	"github.com/winnow-llm/winnow/text"
)

// Generation says how an answer is made. The zero value asks for what the model's source and its files recommend, in this order.
type Generation struct {
	MaxTokens   int      // most tokens of the answer; 0 = as the model's source says, else as many as the context has room for
	Temperature *float32 // 0 takes the likeliest token; nil = as the files say, else 1
	TopP        *float32 // share of probability to draw from; nil = as the files say, else 1
	MinP        *float32 // least probability beside the likeliest token's; nil = as the files say, else 0
	TopK        *int     // how many tokens to draw from, 0 = all; nil = as the files say, else 0
	TypicalP    *float32 // share of probability to draw from, the most typical tokens first; nil = as the files say, else 1
	Repetition  *float32 // above 1 makes tokens of the prompt and the answer less likely; nil = as the files say, else 1
	Presence    *float32 // above 0 makes tokens of the answer less likely; nil = as the model's source says, else 0
	Frequency   *float32 // above 0 makes tokens of the answer less likely each time; nil likewise
	Bias        []Bias   // makes tokens likelier, or less likely
	MinTokens   int      // so many tokens come before the answer may end by itself or by StopIDs
	Priority    int      // the lowest number goes first; 0 is ordinary
	Seed        *int64   // the same seed and request give the same answer; nil = as the model's source says, else another one each time
	Stop        []string // the answer, or what is thought before it, ends before the first of these; nil = as the model's source says
	StopIDs     []int32  // ids that end the answer, beside the model's own
	Logprobs    *int     // alternatives to report beside each token, at most MostAlternatives; nil = no log-probabilities
	IgnoreEnd   bool     // go on after the model's own end tokens
	// PromptLogprobs asks for the prompt's own log-probabilities with the first delta, and for so many alternatives beside each.
	PromptLogprobs *int
	Context        int       // most tokens of prompt and answer together; 0 = as the model's source says, else as the model has
	RepeatLast     *int      // how many of the last tokens Repetition looks at, 0 = none, below 0 = all; nil = as the source says, else all
	ReturnIDs      bool      // the last delta has the ids of prompt and answer
	Sparse         *Sparsity // how closely it is read; nil = as the operator has it
	Experts        *Experts  // with how few experts it makes do, and Usage.Experts; nil = as the operator has it, and nothing is said
	Otherwise      Defaults
	// Where tokens are drafted, see Options.Draft, Expected is a text of which the answer may have much, and Drafts how many tokens a step drafts at
	// most, 0 = none; nil = as many as the engine would. Neither changes the answer.
	Expected string
	Drafts   *int
}

// Defaults are what holds where neither a request nor the model's files say how tokens are drawn. What is nil here too draws from all.
type Defaults struct {
	Temperature *float32
	TopP        *float32
	TopK        *int
	RepeatLast  *int
}

// Bias changes how likely tokens are.
type Bias struct {
	ID   int32
	Text string  // every token of this text, in place of ID; "" = ID
	Add  float32 // to the logit; negative infinity bans
}

// ChatRequest asks for the next turn of a conversation.
type ChatRequest struct {
	Messages     []Turn
	Suffix       string      // what follows the answer, for models that fill in; needs a template with a place for it
	Template     string      // Go template in place of the model's own; "" = the model's
	Before       []int32     // ids that the prompt begins with: an earlier conversation as ReturnIDs gave it
	Think        *Think      // whether to think first; nil = as the model does by itself
	Reasoning    bool        // thoughts come apart from the answer, as Delta.Reasoning
	TemplateArgs []text.Pair // further variables of the template, see Argument; the reserved ones are refused
	Generation
}

// Think asks a model to think before it answers, or not to.
type Think struct {
	On    bool
	Level string // "low", "medium", "high" or another word of the template's; "" = none
}

// CompletionRequest asks for a text to be continued.
type CompletionRequest struct {
	Prompt     string  // special tokens in it count; "" without IDs = the beginning of a document
	IDs        []int32 // the prompt as ids, in place of Prompt
	Echo       bool    // the answer begins with the prompt
	PromptOnly bool    // generate nothing: count the prompt, and echo it if asked
	Generation
}

// Why an answer ends.
const (
	FinishStop   = "stop"   // the model ended it, or a stop string or id did
	FinishLength = "length" // MaxTokens, or the context, is used up
)

// Delta is a piece of an answer. The pieces' texts, joined, are the answer: whole runes, without the stop string.
type Delta struct {
	Text string
	// Reasoning is a piece of what the model thinks, where it was asked for apart; it comes before all Text.
	Reasoning string
	IDs       []int32        // of prompt and answer, with the last delta, where they were asked for
	Tokens    []TokenLogprob // what Text and Reasoning are made of, and the tags around thoughts; empty unless Logprobs was asked for
	Prompt    []TokenLogprob // the prompt, with the first delta; empty unless PromptLogprobs was asked for
	Finish    string         // Finish constant with the last delta, else ""
	Usage     *Usage         // with the last delta, else nil
}

// add appends the next delta.
func (d *Delta) add(next Delta) {
	d.Text, d.Reasoning = d.Text+next.Text, d.Reasoning+next.Reasoning
	d.Tokens, d.Prompt = append(d.Tokens, next.Tokens...), append(d.Prompt, next.Prompt...)
	if next.Finish != "" {
		d.Finish, d.Usage, d.IDs = next.Finish, next.Usage, next.IDs
	}
}

// TokenLogprob is a token with its log-probability under the model's own distribution, before temperature and the like.
type TokenLogprob struct {
	ID      int32
	Bytes   []byte  // what it adds to the text: not always whole runes, and cut short where a stop string begins
	Logprob float32 // <= 0
	Rank    int     // 1 = the likeliest; 0 = nobody counted
	Top     []TokenLogprob
}

// Foretold counts tokens that were foretold.
type Foretold struct{ Accepted, Rejected int }

// Usage is what an answer took.
type Usage struct {
	Prompt     int           // tokens of the prompt
	Cached     int           // of these, tokens that were found computed
	Completion int           // tokens generated, those that ended the answer included
	Accepted   int           // of these, tokens that were foretold, see Options.Draft, and computed with the one before
	Rejected   int           // tokens that were foretold and computed, and are not those of the answer
	ByModel    Foretold      // of both, those that a draft model foretold
	ByHead     Foretold      // of both, those that a head of the model foretold
	Reasoning  int           // of Completion, tokens of thoughts, with the tags around them; 0 unless thoughts came apart
	Started    time.Time     // when it came to the engine
	Queued     time.Duration // from Started until its first step
	First      time.Duration // from Started until the first token
	Total      time.Duration // from Started until the last token
	Sampling   time.Duration // of Total: choosing its tokens, as far as it was measured
	Experts    *ExpertUsage  // nil unless Generation.Experts asks
	Sparse     *SparseUsage  // nil where everything was read
}
