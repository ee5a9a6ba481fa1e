package httpapi

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/winnow-llm/winnow/serve"
)

// head is what every answer and every chunk of it begins with.
type head struct {
	ID       string   `json:"id"`
	Object   string   `json:"object"`
	Created  int64    `json:"created"` // Unix seconds
	Model    string   `json:"model"`
	Warnings []string `json:"warnings,omitempty"` // what of the request was ignored
}

// usage counts tokens.
type usage struct {
	Prompt     int            `json:"prompt_tokens"`
	Completion int            `json:"completion_tokens"`
	Total      int            `json:"total_tokens"`
	Details    promptDetails  `json:"prompt_tokens_details"`
	Answer     *answerDetails `json:"completion_tokens_details,omitempty"` // nil unless the model thought, or tokens were drafted
	Experts    *expertUsage   `json:"moe,omitempty"`                       // nil unless it was asked for
	Sparse     *sparseUsage   `json:"sparse,omitempty"`                    // nil where everything was read
}

type promptDetails struct {
	Cached int `json:"cached_tokens"`
}

type answerDetails struct {
	Reasoning  int `json:"reasoning_tokens"`
	*predicted     // nil where no tokens were drafted
}

// predicted counts drafted tokens by OpenAI's names, which has them for its predicted outputs.
type predicted struct {
	Accepted int `json:"accepted_prediction_tokens"` // that are tokens of the answer
	Rejected int `json:"rejected_prediction_tokens"` // that are not
	// Of both, those that a draft model foretold; left out where none are.
	ModelAccepted int `json:"draft_model_accepted_tokens,omitempty"`
	ModelRejected int `json:"draft_model_rejected_tokens,omitempty"`
	// Likewise, those that the model's own layer for that foretold (multi-token prediction).
	HeadAccepted int `json:"mtp_accepted_tokens,omitempty"`
	HeadRejected int `json:"mtp_rejected_tokens,omitempty"`
}

// tally sums the usage of choices; n choices of one prompt read it once.
func tally(all []serve.Usage, n int) usage {
	var u usage
	var answer answerDetails
	var drafted predicted
	for i, one := range all {
		if i%n == 0 {
			u.Prompt += one.Prompt
			u.Details.Cached += one.Cached
		}
		u.Completion += one.Completion
		answer.Reasoning += one.Reasoning
		drafted.Accepted += one.Accepted
		drafted.Rejected += one.Rejected
		drafted.ModelAccepted += one.ByModel.Accepted
		drafted.ModelRejected += one.ByModel.Rejected
		drafted.HeadAccepted += one.ByHead.Accepted
		drafted.HeadRejected += one.ByHead.Rejected
	}
	if drafted != (predicted{}) {
		answer.predicted = &drafted
	}
	if answer != (answerDetails{}) {
		u.Answer = &answer
	}
	u.Experts, u.Sparse = tallyExperts(all), tallySparse(all)
	u.Total = u.Prompt + u.Completion
	return u
}

// chunkUsage is the key of a stream's chunks: absent, null, or the counts. With include_usage all chunks have it.
type chunkUsage struct {
	Usage json.RawMessage `json:"usage,omitempty"`
}

var nullUsage = chunkUsage{Usage: json.RawMessage("null")}

// alternative is a token that could have been chosen.
type alternative struct {
	Token   string  `json:"token"`
	Logprob float32 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

// tokenLogprob is one token of a chat answer with its alternatives.
type tokenLogprob struct {
	alternative
	Top []alternative `json:"top_logprobs"`
}

// chatLogprobs are the log-probabilities of a message or a piece of one.
type chatLogprobs struct {
	Content []tokenLogprob `json:"content"`
	Refusal *string        `json:"refusal"`
}

func newAlternative(t serve.TokenLogprob) alternative {
	a := alternative{Token: tokenText(t), Logprob: finite(t.Logprob), Bytes: make([]int, len(t.Bytes))}
	for i, b := range t.Bytes {
		a.Bytes[i] = int(b)
	}
	return a
}

func newChatLogprobs(tokens []serve.TokenLogprob) *chatLogprobs {
	l := &chatLogprobs{Content: make([]tokenLogprob, len(tokens))}
	for i, t := range tokens {
		l.Content[i] = tokenLogprob{alternative: newAlternative(t), Top: make([]alternative, len(t.Top))}
		for k, b := range t.Top {
			l.Content[i].Top[k] = newAlternative(b)
		}
	}
	return l
}

// promptTokens are the log-probabilities of a prompt as vLLM sends them: for each token null, or what might stand there by id: the
// likeliest, and the token itself.
type promptTokens []map[string]promptToken

type promptToken struct {
	Logprob float32 `json:"logprob"`
	Rank    int     `json:"rank"` // 1 = the likeliest
	Text    string  `json:"decoded_token"`
}

func newPromptTokens(tokens []serve.TokenLogprob) promptTokens {
	var out promptTokens
	for i, t := range tokens {
		if i == 0 { // nothing comes before it
			out = append(out, nil)
			continue
		}
		at := map[string]promptToken{}
		for _, one := range append(t.Top, t) {
			at[strconv.Itoa(int(one.ID))] = promptToken{finite(one.Logprob), one.Rank, tokenText(one)}
		}
		out = append(out, at)
	}
	return out
}

// tokenText is a token's bytes as far as JSON can say them; part of a rune is U+FFFD here and exact in bytes.
func tokenText(t serve.TokenLogprob) string { return strings.ToValidUTF8(string(t.Bytes), "\uFFFD") }

// leastLogprob stands for the log-probability of what cannot be drawn, as JSON has no infinity.
const leastLogprob = -9999

func finite(v float32) float32 {
	if v >= leastLogprob {
		return min(v, 0)
	}
	return leastLogprob
}
