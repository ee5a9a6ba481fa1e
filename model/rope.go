package model

import (
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// Rope is a layer's rotary embedding, worked out: one frequency a pair.
type Rope struct {
	Freq  []float32 // radians a position, one a pair of values
	Scale float32   // multiplies sine and cosine; 1 but for yarn
	Pairs tensor.Pairing

	made ropeSpec // of what it was worked out
}

// ropeSpec is a rotary embedding as checkpoints describe it.
type ropeSpec struct {
	kind       string // "", "default", "none", "linear", "dynamic", "llama3", "yarn"
	base       float64
	dims       int // values of a head that turn
	pairs      tensor.Pairing
	factor     float64   // linear, dynamic, llama3, yarn: by how much the context was stretched
	original   float64   // dynamic, llama3, yarn: the context before that
	length     float64   // dynamic: of the longest sequence
	low, high  float64   // llama3: frequency factors
	slow, fast float64   // yarn: beta_slow, beta_fast
	attention  float64   // yarn: factor of sine and cosine; 0 = 0.1 ln(factor) + 1
	exact      bool      // yarn: the correction range is not rounded to whole pairs
	divisors   []float32 // llama3 in GGUF: one a pair, in place of the numbers above
	over       *ropeSpec // what slows these frequencies further; nil = nothing
}

// work computes the frequencies: base^(-2i/dims), changed by the kind of scaling.
func (r ropeSpec) work() (Rope, error) {
	if r.dims < 2 || r.dims%2 != 0 || r.dims > 1024 {
		return Rope{}, fmt.Errorf("%w: RoPE turns %d values of a head, want an even number of 2 to 1024", ErrSpec, r.dims)
	}
	if !(r.base > 0) || math.IsInf(r.base, 0) {
		return Rope{}, fmt.Errorf("%w: RoPE base is %v", ErrSpec, r.base)
	}
	out := Rope{Freq: make([]float32, r.dims/2), Scale: 1, Pairs: r.pairs, made: r}
	freq := r.plain()
	if err := r.stretch(freq, &out); err != nil {
		return Rope{}, err
	}
	if r.over != nil {
		plain, slowed := r.plain(), r.plain()
		if err := r.over.stretch(slowed, &out); err != nil {
			return Rope{}, err
		}
		for i := range freq {
			freq[i] = slowed[i] * (freq[i] / plain[i])
		}
	}
	for i, f := range freq {
		if len(r.divisors) == len(freq) {
			f /= float64(r.divisors[i])
		}
		if !(math.Abs(f) < 1e6) {
			return Rope{}, fmt.Errorf("%w: RoPE frequency %d is %v", ErrSpec, i, f)
		}
		out.Freq[i] = float32(f)
	}
	if r.divisors != nil && len(r.divisors) != len(freq) {
		return Rope{}, fmt.Errorf("%w: %d RoPE divisors for %d pairs", ErrSpec, len(r.divisors), len(freq))
	}
	return out, nil
}

// plain are the frequencies that nothing slows.
func (r ropeSpec) plain() []float64 {
	freq := make([]float64, r.dims/2)
	for i := range freq {
		freq[i] = math.Pow(r.base, -2*float64(i)/float64(r.dims))
	}
	return freq
}

func (r ropeSpec) stretch(freq []float64, out *Rope) error {
	switch r.kind {
	case "", "default", "none":
		return nil
	case "linear", "dynamic", "llama3", "yarn":
	default:
		return fmt.Errorf("%w: RoPE scaling %q", ErrAssumption, r.kind)
	}
	if !(r.factor > 0) || (r.kind != "linear" && !(r.original > 0)) {
		return fmt.Errorf("%w: RoPE scaling %q by %v from a context of %v", ErrSpec, r.kind, r.factor, r.original)
	}
	switch r.kind {
	case "dynamic":
		r.dynamic(freq)
	case "linear":
		for i := range freq {
			freq[i] /= r.factor
		}
	case "llama3":
		r.llama3(freq)
	case "yarn":
		r.yarn(freq)
		out.Scale = float32(r.attention)
		if r.attention == 0 {
			out.Scale = 1
			if r.factor > 1 {
				out.Scale = float32(0.1*math.Log(r.factor) + 1)
			}
		}
	}
	return nil
}

// llama3 slows long wavelengths by the factor, keeps short ones, and blends between (Llama 3.1's published code).
func (r ropeSpec) llama3(freq []float64) {
	for i, f := range freq {
		turns := r.original * f / (2 * math.Pi)
		switch {
		case turns < r.low:
			freq[i] = f / r.factor
		case turns <= r.high:
			smooth := (turns - r.low) / (r.high - r.low)
			freq[i] = (1-smooth)*f/r.factor + smooth*f
		}
	}
}

// yarn blends by pair number between slowed and plain frequencies (Peng et al. 2023, section 3.2).
func (r ropeSpec) yarn(freq []float64) {
	pair := func(turns float64) float64 {
		return float64(r.dims) * math.Log(r.original/(turns*2*math.Pi)) / (2 * math.Log(r.base))
	}
	low, high := pair(r.fast), pair(r.slow)
	if !r.exact {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(low, 0), min(high, float64(r.dims-1))
	if low == high {
		high += 0.001
	}
	for i, f := range freq {
		slowed := min(max((float64(i)-low)/(high-low), 0), 1)
		freq[i] = f/r.factor*slowed + f*(1-slowed)
	}
}
