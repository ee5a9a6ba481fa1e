package serve

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/store"
)

// parameters are what a source recommends beside its sampling. The zero value recommends nothing.
type parameters struct {
	presence, frequency float32
	seed                *int64
	maxTokens           int
	context             int
	repeatLast          *int
	stop                []string
}

// Limits of a model's own stop strings.
const (
	mostOwnStops = 64
	mostStopText = 1 << 12 // bytes
)

// readParameters reads a model's parameters by ollama's names. Those that shape how a model is loaded, or that nobody knows, are passed
// over. The error wraps store.ErrFormat.
func readParameters(all map[string]any) (p parameters, s sampling, err error) {
	r := parameterReader{all: all}
	s.Temperature, s.TopP, s.MinP = r.number("temperature", 0, 100), r.number("top_p", 0, 1), r.number("min_p", 0, 1)
	s.TypicalP, s.Repetition = r.number("typical_p", 0, 1), r.number("repeat_penalty", 0, 100)
	if k := r.integer("top_k", -1, math.MaxInt32); k != nil {
		s.TopK = new(int(max(*k, 0)))
	}
	if s.Repetition != nil && *s.Repetition == 0 {
		s.Repetition = new(float32(1)) // it does nothing
	}
	p.presence, p.frequency = first(0, r.number("presence_penalty", -100, 100)), first(0, r.number("frequency_penalty", -100, 100))
	if seed := r.integer("seed", math.MinInt64, math.MaxInt64); seed != nil && *seed != -1 { // -1 = another one each time
		p.seed = seed
	}
	p.maxTokens = int(max(0, first(0, r.integer("num_predict", math.MinInt32, math.MaxInt32)))) // below 0: as many as fit
	p.context = int(first(0, r.integer("num_ctx", 0, math.MaxInt32)))
	if n := r.integer("repeat_last_n", -1, math.MaxInt32); n != nil {
		p.repeatLast = new(int(*n))
	}
	p.stop = r.texts("stop")
	return p, s, r.err
}

// parameterReader reads values of JSON; the first failure sticks.
type parameterReader struct {
	all map[string]any
	err error
}

func (r *parameterReader) fail(name, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("parameter %s is %.64s, want %s: %w", name, spelled(r.all[name]), want, store.ErrFormat)
	}
}

// spelled is a value as its file has it, nearly.
func spelled(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%T", v)
	}
	return string(b)
}

// wide is a parameter as a number; nil where it is absent or none.
func (r *parameterReader) wide(name, want string) *float64 {
	switch v := r.all[name].(type) {
	case nil:
		return nil
	case float64:
		return &v
	case float32:
		return new(float64(v))
	case int:
		return new(float64(v))
	case int64:
		return new(float64(v))
	case json.Number:
		if f, err := v.Float64(); err == nil {
			return &f
		}
	}
	r.fail(name, want)
	return nil
}

func (r *parameterReader) number(name string, least, most float64) *float32 {
	want := fmt.Sprintf("a number from %v to %v", least, most)
	v := r.wide(name, want)
	if v == nil {
		return nil
	}
	if !(*v >= least && *v <= most) {
		r.fail(name, want)
		return nil
	}
	return new(float32(*v))
}

// integer reads a whole number. The largest that a float tells from its neighbours are the bounds of seeds.
func (r *parameterReader) integer(name string, least, most int64) *int64 {
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	if v, ok := r.all[name].(int64); ok && v >= least && v <= most {
		return &v
	}
	v := r.wide(name, want)
	if v == nil {
		return nil
	}
	if *v != math.Trunc(*v) || !(*v >= float64(least) && *v <= float64(most)) || math.Abs(*v) >= math.MaxInt64 {
		r.fail(name, want)
		return nil
	}
	return new(int64(*v))
}

// texts reads a string or a list of them. Empty ones say nothing.
func (r *parameterReader) texts(name string) (out []string) {
	want := fmt.Sprintf("a string or at most %d of them, each of at most %d bytes", mostOwnStops, mostStopText)
	switch v := r.all[name].(type) {
	case nil:
	case string:
		out = []string{v}
	case []string:
		out = v
	case []any:
		for _, one := range v {
			s, ok := one.(string)
			if !ok {
				r.fail(name, want)
			}
			out = append(out, s)
		}
	default:
		r.fail(name, want)
	}
	out = slices.DeleteFunc(slices.Clone(out), func(s string) bool { return s == "" })
	if len(out) > mostOwnStops || slices.ContainsFunc(out, func(s string) bool { return len(s) > mostStopText }) {
		r.fail(name, want)
	}
	return out
}
