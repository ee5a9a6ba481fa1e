package model

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/attention"
)

// of are a selector's settings for a phase, those of the least recall first.
func (p *SparseProfile) of(selector string, phase attention.Phases) (all []*SparseSetting) {
	if p == nil {
		return nil
	}
	for i := range p.Settings {
		if s := &p.Settings[i]; s.Selector == selector && phaseNames[s.Phase]&phase != 0 {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b *SparseSetting) int { return cmp.Compare(a.Recall, b.Recall) })
	return all
}

// nearest is the place of the recall that serves where another one is asked for: the least that is no lower, and the highest where nobody asks.
// -1: all are lower.
func nearest(recalls []float32, asked float32) (at int) {
	at = -1
	for i, r := range recalls {
		switch {
		case asked > 0 && r < asked:
		case at < 0, asked > 0 && r < recalls[at], asked <= 0 && r > recalls[at]:
			at = i
		}
	}
	return at
}

// selections are those of one selector: for each of its phases one for each recall that the profile has, and for phases of which it has none one
// with the selector's own numbers.
func (p *SparseProfile) selections(plain Selection) (all []Selection) {
	left := attention.KindOf(plain.Name).Phases
	for _, phase := range []attention.Phases{attention.Prefill, attention.Decode} {
		for _, s := range p.of(plain.Name, phase) {
			one := plain
			one.Phases, one.Recall, one.Knobs = phase, s.Recall, slices.Repeat(s.Knobs[:1], p.Layers)
			for i, layer := range p.Full {
				one.Knobs[layer] = s.Knobs[i]
			}
			all = append(all, one)
		}
	}
	for _, s := range all {
		left &^= s.Phases
	}
	if left == 0 {
		return all
	}
	if len(all) > 0 {
		plain.Phases = left
	}
	return append(all, plain)
}

// budget is the most keys that a decode selector keeps in a layer for a recall; 0 where the profile does not say.
func (p *SparseProfile) budget(selector string, recall float32) int {
	all := p.of(selector, attention.Decode)
	var recalls []float32
	for _, s := range all {
		recalls = append(recalls, s.Recall)
	}
	at := nearest(recalls, recall)
	if at < 0 || all[at].Knob != budgetKnob {
		return 0
	}
	return int(slices.Max(all[at].Knobs))
}

// Usual is how a model is read of which nothing is known but its profile: prompts and answers each by the selector that was the fastest at the
// highest recall, where that was faster than reading everything.
func (p *SparseProfile) Usual() Sparsity {
	x := Sparsity{Profile: p}
	for i := range p.Settings {
		x.Recall = max(x.Recall, p.Settings[i].Recall)
	}
	for _, f := range []struct {
		to    *string
		phase attention.Phases
	}{{&x.Prefill, attention.Prefill}, {&x.Decode, attention.Decode}} {
		least := float32(1)
		for i := range p.Settings {
			s := &p.Settings[i]
			if phaseNames[s.Phase] == f.phase && s.Recall == x.Recall && s.Ms < least*s.MsDense {
				*f.to, least = s.Selector, s.Ms/s.MsDense
			}
		}
	}
	if x.Prefill == "" && x.Decode == "" {
		return Sparsity{}
	}
	return x
}

// variant is the number of the selection that is to serve a phase at a recall; 0 where there is none. A knob that is turned is turned in any.
func (m *Model) variant(a asked, recall float32) (int, error) {
	var recalls []float32
	var numbers []int
	for i, s := range m.opt.Sparse {
		if s.Name == a.name && (s.Phases == 0 || s.Phases&a.phase != 0) {
			recalls, numbers = append(recalls, s.Recall), append(numbers, i+1)
		}
	}
	switch {
	case len(numbers) == 0:
		return 0, nil
	case recalls[0] == 0: // of no profile
		return numbers[0], nil
	case a.knob != nil:
		recall = 0
	}
	at := nearest(recalls, recall)
	if at < 0 {
		return 0, &ReadingError{"recall", fmt.Sprintf("is %v, %s is calibrated for %v", recall, a.name, recalls)}
	}
	return numbers[at], nil
}
