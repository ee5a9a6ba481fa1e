package serve

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/text"
)

// sampling is what a model's files recommend; nil where they say nothing.
type sampling struct {
	Temperature *float32 `json:"temperature"`
	TopP        *float32 `json:"top_p"`
	MinP        *float32 `json:"min_p"`
	TypicalP    *float32 `json:"typical_p"`
	Repetition  *float32 `json:"repetition_penalty"`
	TopK        *int     `json:"top_k"`
	DoSample    *bool    `json:"do_sample"`
}

// recommended reads generation_config.json, or the keys of a GGUF that were made from it.
func recommended(c *store.Checkpoint) (sampling, error) {
	var s sampling
	if c.Kind == store.GGUF {
		for key, dst := range map[string]**float32{
			"temp": &s.Temperature, "top_p": &s.TopP, "min_p": &s.MinP, "penalty_repeat": &s.Repetition,
		} {
			if key = "general.sampling." + key; !c.Meta.Has(key) {
				continue
			}
			v, err := c.Meta.Float(key, 0)
			if err != nil {
				return s, err
			}
			*dst = new(float32(v))
		}
		if key := "general.sampling.top_k"; c.Meta.Has(key) {
			v, err := c.Meta.Int(key, 0)
			if err != nil {
				return s, err
			}
			s.TopK = new(int(v))
		}
	} else if raw := c.Files["generation_config.json"]; raw != nil {
		if err := json.Unmarshal(raw, &s); err != nil {
			return s, fmt.Errorf("generation_config.json: %w: %w", store.ErrFormat, err)
		}
	}
	if s.DoSample != nil && !*s.DoSample {
		return sampling{}, nil // its numbers are leftovers that nothing reads
	}
	return s, s.check()
}

func (s *sampling) check() error {
	for _, f := range []struct {
		name string
		v    *float32
		most float32
	}{{"temperature", s.Temperature, 100}, {"top_p", s.TopP, 1}, {"min_p", s.MinP, 1}, {"typical_p", s.TypicalP, 1}, {"repetition_penalty", s.Repetition, 100}} {
		if f.v != nil && !(*f.v >= 0 && *f.v <= f.most) {
			return fmt.Errorf("recommended %s is %v, want 0 to %v: %w", f.name, *f.v, f.most, store.ErrFormat)
		}
	}
	if s.TopK != nil && *s.TopK < 0 {
		return fmt.Errorf("recommended top_k is %d: %w", *s.TopK, store.ErrFormat)
	}
	return nil
}

// first is the first value that is there, or else def.
func first[T any](def T, from ...*T) T {
	for _, v := range from {
		if v != nil {
			return *v
		}
	}
	return def
}

// Sampling is how the tokens of an answer are drawn: as it asks, else as the model's source or its files recommend.
func (m *Model) Sampling(g Generation) engine.Sampling { return m.sampling(&g) }

// sampling resolves a request's wishes against what the model's source and its files recommend.
func (m *Model) sampling(g *Generation) engine.Sampling {
	s := engine.Sampling{
		Temperature: first(1, g.Temperature, m.recommended.Temperature, g.Otherwise.Temperature),
		TopP:        first(1, g.TopP, m.recommended.TopP, g.Otherwise.TopP),
		MinP:        first(0, g.MinP, m.recommended.MinP),
		TopK:        first(0, g.TopK, m.recommended.TopK, g.Otherwise.TopK),
		TypicalP:    first(1, g.TypicalP, m.recommended.TypicalP),
		Repetition:  first(1, g.Repetition, m.recommended.Repetition),
		Presence:    first(0, g.Presence, &m.own.presence),
		Frequency:   first(0, g.Frequency, &m.own.frequency),
	}
	switch last := first(-1, g.RepeatLast, m.own.repeatLast, g.Otherwise.RepeatLast); {
	case last == 0:
		s.Repetition = 1
	case last > 0:
		s.RepeatLast = last
	}
	if seed := cmp.Or(g.Seed, m.own.seed); seed != nil {
		s.Seed = uint64(*seed)
	} else {
		s.Seed = rand.Uint64()
	}
	return s
}

// biases are a request's, by id.
func (m *Model) biases(g *Generation) (all []engine.Bias, err error) {
	for _, b := range g.Bias {
		ids := []int32{b.ID}
		if b.Text != "" {
			ids = m.tok.Encode(nil, text.Span{Text: b.Text})
		}
		if err := m.checkIDs("logit_bias", ids); err != nil {
			return nil, err
		}
		for _, id := range ids {
			all = append(all, engine.Bias{ID: id, Add: b.Add})
		}
	}
	if len(all) > MostBiases {
		return nil, &RequestError{Param: "logit_bias", Why: fmt.Sprintf("%d tokens, more than %d", len(all), MostBiases)}
	}
	return all, nil
}
