package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"unicode/utf8"

	"github.com/winnow-llm/winnow/serve"
)

// completionRequest is a request to /v1/completions.
type completionRequest struct {
	plan
	prompts []prompt
	echo    bool
	empty   bool  // max_tokens is 0: nothing is generated
	offset  []int // by choice: characters of text sent so far
	begun   []bool
}

// prompt is a text, or ids in its place.
type prompt struct {
	text string
	ids  []int32
}

const (
	defaultTokens   = 16 // max_tokens where a completion request has none
	mostTextLogprob = 5  // alternatives
)

// parseCompletion decodes and checks a body. The error is a *fault.
func parseCompletion(body []byte) (dialect, error) {
	o, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	r := &completionRequest{plan: readPlan(o), prompts: o.prompts("prompt", mostPrompts), echo: o.flag("echo")}
	r.MaxTokens = defaultTokens
	if most := o.integer("max_tokens", 0, 1<<31-1); most != nil {
		r.MaxTokens, r.empty = int(*most), *most == 0
	}
	if top := o.integer("logprobs", 0, mostTextLogprob); top != nil {
		r.Logprobs = new(int(*top))
	}
	if best := o.integer("best_of", 0, 20); best != nil {
		switch {
		case int(*best) < r.N && *best != 0:
			o.bad("best_of", "must be at least n, which is %d", r.N)
		case int(*best) > r.N:
			o.fail(unsupportedField("best_of"))
		}
	}
	r.Warnings = o.finish()
	r.offset, r.begun = make([]int, len(r.prompts)*r.N), make([]bool, len(r.prompts)*r.N)
	return r, o.err()
}

// prompts reads a text, ids, or an array of either, at most that many. Without any the prompt is the beginning of a document.
func (o *object) prompts(name string, most int) []prompt {
	raw := o.raw(name)
	if raw == nil {
		return []prompt{{}}
	}
	if raw[0] == '"' {
		if s := o.text(name); s != nil {
			return []prompt{{text: *s}}
		}
		return nil
	}
	list := decoded[[]json.RawMessage](o, name, "a string, an array of strings, token ids, or an array of arrays of token ids")
	switch {
	case list == nil:
		return nil
	case len(*list) == 0:
		o.bad(name, "must not be empty")
		return nil
	case isNumber((*list)[0]):
		return []prompt{{ids: o.ids(name, raw)}}
	case len(*list) > most:
		o.bad(name, "must be at most %d", most)
		return nil
	}
	out := make([]prompt, len(*list))
	for i, one := range *list {
		at := fmt.Sprintf("%s[%d]", name, i)
		switch {
		case one[0] == '"' && (*list)[0][0] == '"':
			if err := json.Unmarshal(one, &out[i].text); err != nil {
				o.bad(at, "must be a string")
			}
		case one[0] == '[' && (*list)[0][0] == '[':
			if out[i].ids = o.ids(at, one); len(out[i].ids) == 0 {
				o.bad(at, "must have at least one token id")
			}
		default:
			o.bad(at, "must be a string or an array of token ids, as the first one is")
		}
	}
	return out
}

func (r *completionRequest) shared() *plan { return &r.plan }

func (r *completionRequest) object() string { return "text_completion" }

// answers are n choices of each prompt, those of the first one first.
func (r *completionRequest) answers(ctx context.Context, m *serve.Model) []iter.Seq2[serve.Delta, error] {
	var out []iter.Seq2[serve.Delta, error]
	for _, p := range r.prompts {
		for i := range r.N {
			out = append(out, m.Complete(ctx, serve.CompletionRequest{
				Prompt: p.text, IDs: p.ids, Echo: r.echo, PromptOnly: r.empty, Generation: r.of(i),
			}))
		}
	}
	return out
}

// textChoice is an answer, or a piece of one.
type textChoice struct {
	Text     string        `json:"text"`
	Index    int           `json:"index"`
	Logprobs *textLogprobs `json:"logprobs"`
	Finish   *string       `json:"finish_reason"`
	Prompt   promptTokens  `json:"prompt_logprobs,omitempty"`
	Experts  *choiceExpert `json:"moe,omitempty"` // with the end of the answer
}

// textLogprobs are columns with a row for each token.
type textLogprobs struct {
	Tokens   []string             `json:"tokens"`
	Logprobs []*float32           `json:"token_logprobs"` // null for a token that has nothing before it
	Top      []map[string]float32 `json:"top_logprobs"`
	Offset   []int                `json:"text_offset"` // characters from the start of the text
}

// logprobs makes the columns of a piece of choice i.
func (r *completionRequest) logprobs(i int, tokens []serve.TokenLogprob) *textLogprobs {
	if r.Logprobs == nil {
		return nil
	}
	l := &textLogprobs{Tokens: []string{}, Logprobs: []*float32{}, Top: []map[string]float32{}, Offset: []int{}}
	for _, t := range tokens {
		l.Tokens = append(l.Tokens, tokenText(t))
		l.Offset = append(l.Offset, r.offset[i])
		r.offset[i] += utf8.RuneCountInString(l.Tokens[len(l.Tokens)-1])
		if r.echo && !r.begun[i] {
			l.Logprobs, l.Top = append(l.Logprobs, nil), append(l.Top, nil)
		} else {
			top := make(map[string]float32, len(t.Top))
			for k := len(t.Top) - 1; k >= 0; k-- { // of tokens that look alike the likeliest counts
				top[tokenText(t.Top[k])] = finite(t.Top[k].Logprob)
			}
			l.Logprobs, l.Top = append(l.Logprobs, new(finite(t.Logprob))), append(l.Top, top)
		}
		r.begun[i] = true
	}
	return l
}

// textBody is an answer, or an event of a stream.
type textBody struct {
	head
	Choices []textChoice `json:"choices"`
	chunkUsage
}

// whole is the answer that is not streamed.
func (r *completionRequest) whole(h head, all []serve.Delta, u usage) any {
	choices := make([]textChoice, len(all))
	for i, a := range all {
		choices[i] = textChoice{Text: a.Text, Index: i, Logprobs: r.logprobs(i, a.Tokens), Finish: &a.Finish, Experts: newChoiceExpert(a.Usage)}
		choices[i].Prompt = newPromptTokens(all[i-i%r.N].Prompt)
	}
	return struct {
		head
		Choices []textChoice `json:"choices"`
		Usage   usage        `json:"usage"`
	}{h, choices, u}
}

// chunks are the events of a piece of choice i.
func (r *completionRequest) chunks(h head, i int, d serve.Delta) []any {
	c := textChoice{Text: d.Text, Index: i, Logprobs: r.logprobs(i, d.Tokens)}
	if d.Finish != "" {
		c.Finish, c.Experts = &d.Finish, newChoiceExpert(d.Usage)
	}
	b := textBody{head: h, Choices: []textChoice{c}}
	if r.Usage {
		b.chunkUsage = nullUsage
	}
	return []any{b}
}

// last is the event with the counts.
func (r *completionRequest) last(h head, u json.RawMessage) any {
	return textBody{head: h, Choices: []textChoice{}, chunkUsage: chunkUsage{u}}
}
