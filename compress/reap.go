package compress

import (
	"fmt"
	"math"
	"slices"
)

// REAP keeps the experts whose output weighs most where they are chosen: the mean over an expert's tokens of its weight times the norm of
// its output. It needs a profile. Experts that no token chose go first; super experts, whose rare huge outputs the model depends on, stay.
var REAP = registerMethod("reap", func(in In) (Plan, error) {
	if err := in.observed("reap"); err != nil {
		return Plan{}, err
	}
	super := in.Profile.super()
	return in.ranked("reap", func(l int) ranking {
		return ranking{worth: in.Profile.Layers[l].saliency(), keep: super[l]}
	})
})

// observed refuses to plan without a profile, and from one that has seen too little.
func (in In) observed(method string) error {
	layers, err := in.layers()
	if err != nil {
		return err
	}
	if in.Profile == nil {
		return fmt.Errorf("%w: method %s needs a profile of the model at work; stun and random need none", ErrPlan, method)
	}
	if in.Force {
		return nil
	}
	return in.Profile.covered(layers)
}

// saliency is what each expert adds where it is chosen; -Inf for one that never was.
func (l LayerProfile) saliency() []float64 {
	out := make([]float64, len(l.Usage))
	for e, n := range l.Usage {
		out[e] = math.Inf(-1)
		if n > 0 {
			out[e] = l.Saliency[e] / float64(n)
		}
	}
	return out
}

// super marks, by layer, experts whose largest output exceeds both the 99.5th percentile of all and a tenth of the largest, in the first
// three quarters of the layers.
func (p *Profile) super() [][]bool {
	early := p.Layers[:(len(p.Layers)*3+3)/4]
	var all []float64
	for _, l := range early {
		all = append(all, l.Largest...)
	}
	out := make([][]bool, len(p.Layers))
	if len(all) == 0 {
		return out
	}
	slices.Sort(all)
	bar := max(percentile(all, 0.995), all[len(all)-1]/10)
	for i, l := range early {
		out[i] = make([]bool, len(l.Largest))
		for e, v := range l.Largest {
			out[i][e] = v > bar
		}
	}
	return out
}

// percentile is the value below which a share of the sorted values lies, between neighbours by a straight line.
func percentile(sorted []float64, share float64) float64 {
	at := share * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
