package main

import (
	"cmp"
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
	k := r.knob
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
	s := scaleOf(k, r.keys)
	recall, most, err := at(s.value(1))
	if err != nil || recall < a.recall {
		return s.value(1), false, err
	}
	least := int64(-1)
	lo, hi := 0.0, 1.0 // lo has not been reached
	if recall, least, err = at(s.value(0)); err != nil || recall >= a.recall {
		return s.value(0), true, err
	}
	const halvings = 16
	for range halvings {
		if most == least {
			break
		}
		mid := (lo + hi) / 2
		recall, keys, err := at(s.value(mid))
		if err != nil {
			return 0, false, err
		}
		if recall >= a.recall {
			hi, most = mid, keys
		} else {
			lo, least = mid, keys
		}
	}
	r.setting = float32(s.value(hi))
	return s.value(hi), true, nil
}

// scale runs from 0, where a knob reads least, to 1, where it reads most. It is linear where the default is in the middle of what the knob
// can be, else logarithmic.
type scale struct {
	least, most float64
	offset      float64 // of the logarithm; 0 = linear
}

// scaleOf is a knob's scale; numbers of keys beyond the sequence say nothing new.
func scaleOf(k attention.Knob, keys int) scale {
	least, most := k.Min, k.Max
	if most > float64(keys) && k.Default >= 1 {
		most = max(float64(keys), k.Min)
	}
	s := scale{least: least, most: most}
	if k.Down {
		s.least, s.most = most, least
	}
	if k.Default-least < 0.05*(most-least) {
		s.offset = cmp.Or((k.Default-least)/100, (most-least)/1e6)
	}
	return s
}

func (s scale) value(x float64) float64 {
	switch {
	case x == 0:
		return s.least
	case x == 1:
		return s.most
	case s.offset == 0:
		return s.least + x*(s.most-s.least)
	}
	low := min(s.least, s.most)
	from, to := math.Log(s.least-low+s.offset), math.Log(s.most-low+s.offset)
	return max(low, low+math.Exp(from+x*(to-from))-s.offset)
}
