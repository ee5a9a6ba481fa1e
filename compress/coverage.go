package compress

import (
	"fmt"
	"math"
	"strings"
)

// LeastTokens is how many tokens an expert should have seen before it is judged.
const LeastTokens = 256

// Coverage says which experts a calibration text has hardly reached, of which a profile therefore says little.
type Coverage struct {
	Least   int64       // tokens that an expert should have seen
	Experts int         // of all layers
	Thin    []ThinLayer // layers in which some have seen fewer
}

// ThinLayer is a layer with experts that saw too little.
type ThinLayer struct {
	Layer   int
	Experts []int // router rows, ascending
}

// Coverage finds the experts that fewer than least tokens chose.
func (p Profile) Coverage(least int64) Coverage {
	c := Coverage{Least: least}
	for i, l := range p.Layers {
		c.Experts += len(l.Usage)
		thin := ThinLayer{Layer: i}
		for e, n := range l.Usage {
			if n < least {
				thin.Experts = append(thin.Experts, e)
			}
		}
		if len(thin.Experts) > 0 {
			c.Thin = append(c.Thin, thin)
		}
	}
	return c
}

// Few is how many experts saw too little.
func (c Coverage) Few() int {
	few := 0
	for _, l := range c.Thin {
		few += len(l.Experts)
	}
	return few
}

// String is a report: one line that sums up, then one a layer in which experts saw too little.
func (c Coverage) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d experts saw fewer than %d tokens", c.Few(), c.Experts, c.Least)
	for _, l := range c.Thin {
		fmt.Fprintf(&b, "\nlayer %d: experts %s", l.Layer, strings.Trim(strings.ReplaceAll(fmt.Sprint(l.Experts), " ", ", "), "[]"))
	}
	return b.String()
}

// Drift is, of each layer, how far two texts are apart in which experts they use: the total variation distance of the shares of all choices,
// from 0, alike, to 1, no expert in common. It is 0 in dense layers. ErrProfile: the profiles are of models of different shapes.
func Drift(a, b Profile) ([]float64, error) {
	if len(a.Layers) != len(b.Layers) {
		return nil, fmt.Errorf("%w: drift from %d layers to %d", ErrProfile, len(a.Layers), len(b.Layers))
	}
	out := make([]float64, len(a.Layers))
	for i := range out {
		before, after := a.Layers[i].Usage, b.Layers[i].Usage
		if len(before) != len(after) {
			return nil, fmt.Errorf("%w: layer %d: drift from %d experts to %d", ErrProfile, i, len(before), len(after))
		}
		out[i] = variation(before, after)
	}
	return out, nil
}

// variation is the total variation distance of two distributions that are given by counts. Nothing counted is far from anything counted.
func variation(a, b []int64) float64 {
	sum := func(v []int64) (total float64) {
		for _, n := range v {
			total += float64(n)
		}
		return total
	}
	whole, other := sum(a), sum(b)
	if whole == 0 || other == 0 {
		return math.Abs(min(whole, 1) - min(other, 1))
	}
	var apart float64
	for i := range a {
		apart += math.Abs(float64(a[i])/whole - float64(b[i])/other)
	}
	return apart / 2
}
