package main

import (
	"math"

	"github.com/winnow-llm/winnow/attention"
)

// turn sets the knob: to what was asked for, or so that the mean recall of the samples is reached with the fewest keys. Where nothing reaches
// it, the setting that reads most stays.
func (a *attentionBench) turn(r *race, recall float64) (t attention.Turned, err error) {
	if k := &r.Knob; !math.IsNaN(a.knob) && k.Name != "" {
		if err := k.Check(a.knob); err != nil {
			return t, err
		}
		t, err = r.At(a.knob)
		t.Reached = t.Recall >= recall
		return t, err
	}
	t, err = r.Turn(recall)
	if r.Knob.Name == "" {
		t.Value = 0
	}
	return t, err
}
