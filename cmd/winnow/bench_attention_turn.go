package main

import (
	"math"

	"github.com/winnow-llm/winnow/attention"
)

// means are those of recall and density.
func means(all []attention.Receipt) (recall, density float64) {
	for _, x := range all {
		recall, density = recall+x.Recall/float64(len(all)), density+x.Density()/float64(len(all))
	}
	return recall, density
}

// keysRead is how many keys receipts say are read.
func keysRead(all []attention.Receipt) (n int64) {
	for _, x := range all {
		n += x.Read
	}
	return n
}

// turn sets the knob: to what was asked for, or so that the mean recall of the samples is reached with the fewest keys. Where nothing reaches
// it, the setting that reads most stays.
func (a *attentionBench) turn(r *race) (value float64, reached bool, err error) {
	at := func(v float64) (recall float64, keys int64, err error) {
		r.setting = float32(v)
		all, err := r.receipts()
		recall, _ = means(all)
		return recall, keysRead(all), err
	}
	k := &r.knob
	if !math.IsNaN(a.knob) && k.Name != "" {
		if err := k.Check(a.knob); err != nil {
			return 0, false, err
		}
		recall, _, err := at(a.knob)
		return a.knob, recall >= a.recall, err
	}
	if k.Name == "" {
		recall, _, err := at(math.NaN())
		return 0, recall >= a.recall, err
	}
	turned := func(x float64) float64 { return k.Turn(x, r.keys) }
	recall, most, err := at(turned(1))
	if err != nil || recall < a.recall {
		return turned(1), false, err
	}
	least := int64(-1)
	lo, hi := 0.0, 1.0 // lo has not been reached
	if recall, least, err = at(turned(0)); err != nil || recall >= a.recall {
		return turned(0), true, err
	}
	const halvings = 16
	for range halvings {
		if most == least {
			break
		}
		mid := (lo + hi) / 2
		recall, keys, err := at(turned(mid))
		if err != nil {
			return 0, false, err
		}
		if recall >= a.recall {
			hi, most = mid, keys
		} else {
			lo, least = mid, keys
		}
	}
	r.setting = float32(turned(hi))
	return turned(hi), true, nil
}
