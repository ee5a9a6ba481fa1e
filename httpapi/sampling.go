package httpapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/winnow-llm/winnow/serve"
)

// readSampling reads how tokens are to be chosen, in the words of OpenAI's API, vLLM and llama.cpp.
func readSampling(o *object, g *serve.Generation) {
	g.Temperature = o.number("temperature", 0, 2)
	g.TopP, g.TypicalP = o.share("top_p"), o.share("typical_p")
	g.MinP = o.number("min_p", 0, 1)
	if k := o.integer("top_k", -1, math.MaxInt32); k != nil {
		g.TopK = new(int(max(*k, 0)))
	}
	g.Seed = o.integer("seed", math.MinInt64, math.MaxInt64)
	g.Presence = o.number("presence_penalty", -2, 2)
	g.Frequency = o.number("frequency_penalty", -2, 2)
	g.Repetition = o.number("repetition_penalty", 0, 10)
	if g.Repetition != nil && *g.Repetition == 0 {
		o.bad("repetition_penalty", "must be above 0 and at most 10")
	}
	if r := o.number("repeat_penalty", 0, 10); r != nil && g.Repetition == nil && *r > 0 { // llama.cpp's word; its 0 does nothing
		g.Repetition = r
	}
	g.Bias = readBias(o)
	g.MinTokens = int(first(o.integer("min_tokens", 0, math.MaxInt32), 0))
	g.Priority = int(first(o.integer("priority", math.MinInt32, math.MaxInt32), 0))
	g.IgnoreEnd = o.flag("ignore_eos")
}

// share is a number above 0 and at most 1.
func (o *object) share(name string) *float32 {
	v := o.number(name, 0, 1)
	if v != nil && *v == 0 {
		o.bad(name, "must be above 0 and at most 1")
	}
	return v
}

// first is a value that is there, or else def.
func first[T any](v *T, def T) T {
	if v != nil {
		return *v
	}
	return def
}

// readBias reads logit_bias: an object of biases by token id or text, as OpenAI's and llama.cpp's clients send it, or llama.cpp's list of
// pairs, in which false bans.
func readBias(o *object) []serve.Bias {
	const want = "an object of numbers by token, or an array of pairs of a token and a number"
	raw := o.raw("logit_bias")
	if raw == nil {
		return nil
	}
	var out []serve.Bias
	if raw[0] == '[' {
		var pairs [][]json.RawMessage
		if err := json.Unmarshal(raw, &pairs); err != nil {
			o.bad("logit_bias", "must be %s", want)
			return nil
		}
		for i, p := range pairs {
			at := fmt.Sprintf("logit_bias[%d]", i)
			var token string
			if len(p) != 2 || json.Unmarshal(p[0], &token) != nil && json.Unmarshal(p[0], new(int32)) != nil {
				o.bad(at, "must be a token, by id or text, and a number")
				return nil
			}
			if isNumber(p[0]) {
				token = string(p[0])
			}
			out = append(out, o.bias(at, token, p[1]))
		}
	} else if in := o.inner("logit_bias"); in != nil {
		for _, token := range slices.Sorted(maps.Keys(in.fields)) {
			out = append(out, o.bias("logit_bias", token, in.fields[token]))
		}
	}
	if len(out) > serve.MostBiases {
		o.bad("logit_bias", "must be at most %d tokens", serve.MostBiases)
	}
	return out
}

// bias reads one entry. A token that is a whole number is an id, anything else a text.
func (o *object) bias(at, token string, raw json.RawMessage) (b serve.Bias) {
	switch id, err := strconv.ParseUint(token, 10, 31); {
	case err == nil:
		b.ID = int32(id)
	case token == "":
		o.bad(at, "has an empty token")
	default:
		b.Text = token
	}
	if string(raw) == "false" {
		b.Add = float32(math.Inf(-1))
		return b
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || !isNumber(raw) || v < -100 || v > 100 {
		o.bad(at, "must have numbers from -100 to 100, or false")
	}
	b.Add = float32(v)
	return b
}
