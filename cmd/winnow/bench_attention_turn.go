package main

import "math"

// turn sets the knob: to what was asked for, or so that the mean recall of the samples is reached with the fewest keys. Where nothing reaches
// it, the setting that reads most stays.
func (a *attentionBench) turn(r *race) (value float64, reached bool, err error) {
	if k := &r.Knob; !math.IsNaN(a.knob) && k.Name != "" {
		if err := k.Check(a.knob); err != nil {
			return 0, false, err
		}
		t, err := r.At(a.knob)
		return a.knob, t.Recall >= a.recall, err
	}
	t, err := r.Turn(a.recall)
	if r.Knob.Name == "" {
		t.Value = 0
	}
	return t.Value, t.Reached, err
}
