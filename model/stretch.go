package model

import (
	"fmt"
	"math"
	"slices"
)

// Kinds of RopeScaling.
const (
	RopeNone    = "none"
	RopeLinear  = "linear"
	RopeDynamic = "dynamic"
	RopeYarn    = "yarn"
)

// RopeScaling has a model read more tokens than it was made for, by slower rotary embeddings in place of those that its checkpoint asks for. Its
// context is then Factor x Original. The zero value leaves the checkpoint's. Llama 3's own frequencies belong to the model: they are slowed further.
//
//	none     the plain frequencies, base^(-2i/dims)
//	linear   ... each divided by the factor s
//	dynamic  ... of a larger base: base (s L/original - s + 1)^(dims/(dims-2)), for sequences of up to L > original tokens
//	yarn     ... those that turn less than once in the original context divided by s, those that turn more than 32 times as they are, and a ramp
//	         between; sines and cosines times 0.1 ln s + 1 (Peng et al. 2023)
//
// Elsewhere the base of dynamic grows with a sequence. Here keys are cached as they were turned, so L is fixed: it is Limits.Context, the longest
// sequence that the model is loaded for.
type RopeScaling struct {
	Kind     string  // "" = as the checkpoint says
	Factor   float64 // of linear, dynamic and yarn: 1 or more
	Original int     // tokens that the model was made for; 0 = the checkpoint's context, before what it stretches by YaRN itself
	Base     float64 // of the frequencies; 0 = the checkpoint's
}

// RopeError says what of a RopeScaling cannot be.
type RopeError struct {
	Field string // in the words of the configuration: "rope_scale"
	Why   string
}

func (e *RopeError) Error() string { return e.Field + " " + e.Why }

// stretches says whether the kind has a factor.
func (r *RopeScaling) stretches() bool {
	return slices.Contains([]string{RopeLinear, RopeDynamic, RopeYarn}, r.Kind)
}

// Check refuses what no model can do. The error is a *RopeError.
func (r *RopeScaling) Check() error {
	switch {
	case r.Kind != "" && r.Kind != RopeNone && !r.stretches():
		return &RopeError{"rope_scaling", fmt.Sprintf("is %.40q, want none, linear, dynamic or yarn", r.Kind)}
	case r.stretches() && !(r.Factor >= 1 && r.Factor <= mostContext):
		return &RopeError{"rope_scale", fmt.Sprintf("is %v, want 1 or more for %s", r.Factor, r.Kind)}
	case !r.stretches() && r.Factor != 0:
		return &RopeError{"rope_scale", fmt.Sprintf("is %v, which takes a rope_scaling of linear, dynamic or yarn", r.Factor)}
	case r.Original < 0 || r.Original > mostContext:
		return &RopeError{"yarn_orig_ctx", fmt.Sprintf("is %d, want 1 to %d, or 0 for the model's own", r.Original, mostContext)}
	case r.Kind == "" && r.Original != 0:
		return &RopeError{"yarn_orig_ctx", fmt.Sprintf("is %d, which takes a rope_scaling", r.Original)}
	case r.Base != 0 && !(r.Base > 1 && r.Base < math.MaxFloat32):
		return &RopeError{"rope_freq_base", fmt.Sprintf("is %v, want above 1, or 0 for the model's own", r.Base)}
	}
	return nil
}

// String is what it asks for, for people and for what tells models apart; "" for the zero value.
func (r *RopeScaling) String() string {
	if *r == (RopeScaling{}) {
		return ""
	}
	return fmt.Sprintf("%s by %v from %d, base %v", r.Kind, r.Factor, r.Original, r.Base)
}

// stretch changes a spec as the options say.
func (o *Options) stretch(s *Spec) error {
	r := o.Rope
	if r == (RopeScaling{}) {
		return nil
	}
	if err := r.Check(); err != nil {
		return err
	}
	if r.Original == 0 {
		r.Original = s.Context
		if own := s.Layers[0].Rope.made; own.kind == RopeYarn {
			r.Original = int(own.original)
		}
	}
	if r.Kind != "" {
		context := max(r.Factor, 1) * float64(r.Original)
		if !(context <= mostContext) {
			return &RopeError{"rope_scale", fmt.Sprintf("is %v: a context of %.0f tokens, at most %d are possible", r.Factor, context, mostContext)}
		}
		s.Context = int(context)
	}
	length := s.Context
	if o.Limits.Context > 0 {
		length = o.Limits.Context
	}
	for _, layers := range [][]LayerSpec{s.Layers, s.MTP} {
		for i := range layers {
			l := &layers[i]
			var err error
			if l.Rope, err = l.Rope.made.under(r, length).work(); err != nil {
				return fmt.Errorf("layer %d: %w", i, err)
			}
		}
	}
	return nil
}

// under is a rotary embedding stretched for sequences of so many tokens.
func (r ropeSpec) under(by RopeScaling, length int) ropeSpec {
	if by.Base != 0 {
		r.base = by.Base
	}
	if by.Kind == "" {
		return r
	}
	over := r
	over.kind, over.factor, over.original, over.length, over.attention, over.divisors = by.Kind, by.Factor, float64(by.Original), float64(length), 0, nil
	if r.over = &over; r.kind != "llama3" {
		r.kind = ""
	}
	return r
}

// dynamic are the frequencies of a base that is larger the longer sequences may be (as transformers has it).
func (r ropeSpec) dynamic(freq []float64) {
	if r.length <= r.original || r.dims <= 2 {
		return
	}
	r.base *= math.Pow(r.factor*r.length/r.original-(r.factor-1), float64(r.dims)/float64(r.dims-2))
	copy(freq, r.plain())
}
