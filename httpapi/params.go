package httpapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	"github.com/winnow-llm/winnow/serve"
)

// Limits of one request.
const (
	mostChoices  = 16      // n
	mostPrompts  = 128     // of one completion request
	mostStops    = 4       // stop strings
	mostStopText = 1 << 12 // bytes of one
	mostStopIDs  = 64
	mostMessages = 10_000
	mostWarnings = 16
)

// plan is what a request for generated text asks for in every dialect.
type plan struct {
	Model    string // "" = the server's default
	N        int    // choices for each prompt
	Stream   bool
	Usage    bool // a stream ends with a chunk that has the usage
	Warnings []string
	serve.Generation
}

// of is the generation of the i-th choice: with a seed each has its own, so that the choices differ and can be had again. What is asked
// of the prompt the first one answers for all.
func (p *plan) of(i int) serve.Generation {
	g := p.Generation
	if i > 0 {
		g.PromptLogprobs = nil
	}
	if g.Seed != nil {
		g.Seed = new(*g.Seed + int64(i))
	}
	return g
}

// readPlan reads the fields that the dialects share.
func readPlan(o *object) plan {
	p := plan{N: 1}
	if name := o.text("model"); name != nil {
		p.Model = *name
	}
	if n := o.integer("n", 1, mostChoices); n != nil {
		p.N = int(*n)
	}
	p.Stream = o.flag("stream")
	if so := o.inner("stream_options"); so != nil {
		if !p.Stream {
			o.bad("stream_options", "is for streams: stream must be true")
		}
		p.Usage = so.flag("include_usage")
		so.flag("include_obfuscation")
	}
	readSampling(o, &p.Generation)
	p.Stop = readStop(o, mostStops)
	if raw := o.raw("stop_token_ids"); raw != nil {
		p.StopIDs = o.ids("stop_token_ids", raw)
		if len(p.StopIDs) > mostStopIDs {
			o.bad("stop_token_ids", "must be at most %d ids", mostStopIDs)
		}
	}
	p.Experts, p.Sparse = readExperts(o), readSparse(o)
	readDrafts(o, &p.Generation)
	if n := o.integer("prompt_logprobs", 0, serve.MostAlternatives); n != nil {
		if p.PromptLogprobs = new(int(*n)); p.Stream {
			o.bad("prompt_logprobs", "is not for streams")
		}
	}
	return p
}

// readStop reads a stop string or a few.
func readStop(o *object, most int) []string {
	raw := o.raw("stop")
	if raw == nil {
		return nil
	}
	var all []string
	if raw[0] == '"' {
		all = []string{*o.text("stop")}
	} else if v := decoded[[]*string](o, "stop", "a string or an array of strings"); v != nil {
		if len(*v) > most {
			o.bad("stop", "must be at most %d strings", most)
			return nil
		}
		for i, s := range *v {
			if s == nil {
				o.bad(fmt.Sprintf("stop[%d]", i), "must be a string")
				return nil
			}
			all = append(all, *s)
		}
	}
	for _, s := range all {
		if s == "" || len(s) > mostStopText {
			o.bad("stop", "each string must have 1 to %d bytes", mostStopText)
		}
	}
	return all
}

// ids reads an array of token ids. Whether the model has them shows later.
func (o *object) ids(name string, raw json.RawMessage) []int32 {
	var wide []json.RawMessage
	if err := json.Unmarshal(raw, &wide); err != nil {
		o.bad(name, "must be an array of token ids")
		return nil
	}
	out := make([]int32, len(wide))
	for i, v := range wide {
		id, err := strconv.ParseInt(string(v), 10, 32)
		if err != nil || id < 0 {
			o.bad(fmt.Sprintf("%s[%d]", name, i), "must be a token id")
			return nil
		}
		out[i] = int32(id)
	}
	return out
}

// harmless are fields that change nothing about the answer, here or anywhere.
var harmless = []string{
	"user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
	"verbosity", "parallel_tool_calls", "cache_prompt", "id_slot", "timings_per_token", "request_id",
	"cache_salt", "keep_alive",
}

// refused are the fields that Winnow knows and does not support, with the values that ask for nothing and are accepted.
var refused = map[string][]any{
	"length_penalty": {1.}, "use_beam_search": {false}, "mirostat": {0.},
	"tools": {[]any{}}, "tool_choice": {"none", "auto"}, "functions": {[]any{}}, "function_call": {"none", "auto"},
	"response_format": {map[string]any{"type": "text"}}, "modalities": {[]any{"text"}, []any{}}, "audio": {}, "web_search_options": {},
	"moderation": {}, "store": {false}, "include_stop_str_in_output": {false}, "skip_special_tokens": {true},
	"add_generation_prompt": {true}, "continue_final_message": {false}, "chat_template": {},
	"guided_json": {}, "guided_regex": {}, "guided_choice": {}, "guided_grammar": {}, "structural_tag": {}, "structured_outputs": {},
	"grammar": {""}, "json_schema": {}, "truncate_prompt_tokens": {}, "return_token_ids": {false}, "num_ctx": {}, "options": {},
	"suffix": {""}, "best_of": {1.}, "echo": {false}, "thinking_budget": {},
}

// finish looks at what is left of a request after its dialect has read it: a field that is refused fails, an unknown one is noted.
func (o *object) finish() (warnings []string) {
	for _, name := range harmless {
		o.raw(name)
	}
	for _, name := range o.unseen() {
		idle, known := refused[name]
		if !known {
			if len(warnings) < mostWarnings {
				warnings = append(warnings, fmt.Sprintf("unknown field %.64q is ignored", name))
			}
			continue
		}
		raw := o.raw(name)
		if raw == nil {
			continue
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			o.bad(name, "is out of range")
			continue
		}
		if !containsDeep(idle, v) {
			o.fail(unsupportedField(o.path + name))
		}
	}
	return warnings
}

func containsDeep(list []any, v any) bool {
	for _, w := range list {
		if reflect.DeepEqual(v, w) {
			return true
		}
	}
	return false
}
