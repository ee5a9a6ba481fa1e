package compress

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/winnow-llm/winnow/moe"
)

// mostExhaustive is the most experts of a layer of which every subset is tried.
const mostExhaustive = 16

// NAEE keeps of each layer the experts without the others of which its outputs move least, of all subsets of so many.
var NAEE = registerMethod("naee", func(in In) (Plan, error) {
	layers, err := in.layers()
	if err != nil {
		return Plan{}, err
	}
	if in.Ragged {
		return Plan{}, fmt.Errorf("%w: method naee searches layer by layer, and keeps as many experts in each", ErrPlan)
	}
	gone := map[int][]int{}
	for _, l := range layers {
		r := in.Spec.Layers[l].Router
		if err := searchable(r); err != nil {
			return Plan{}, fmt.Errorf("%w: layer %d: %w", ErrPlan, l, err)
		}
		if in.Samples[l] == nil {
			return Plan{}, fmt.Errorf("%w: layer %d: method naee needs the outputs of all experts on a text", ErrPlan, l)
		}
		stay := in.staying(r.Experts)
		if least := in.fewest(r); stay < least {
			return Plan{}, fmt.Errorf("%w: layer %d: %d of %d experts are to stay, at least %d must", ErrPlan, l, stay, r.Experts, least)
		}
		if gone[l], err = in.Samples[l].Exhaustive(stay); err != nil {
			return Plan{}, fmt.Errorf("layer %d: %w", l, err)
		}
	}
	return in.plan("naee", gone), nil
})

// searchable says why the subsets of a layer's experts cannot all be tried.
func searchable(r *moe.RouterSpec) error {
	switch {
	case r.Experts > mostExhaustive:
		return fmt.Errorf("every subset of %d experts, at most %d are searched; reap and stun plan for more", r.Experts, mostExhaustive)
	case r.Groups > 1:
		return errors.New("a search of subsets may leave groups of unequal size")
	}
	return nil
}

// Sample is what an exhaustive search needs to know of a layer on a calibration text: for each token the router's logits and how the outputs
// of all experts lie to each other. It holds n + n^2 numbers a token and no outputs, and is not part of a Profile, for which only chosen
// experts ran.
type Sample struct {
	router moe.RouterSpec
	bias   []float32
	logits [][]float32
	inner  [][]float64 // by token: n x n inner products of the experts' outputs
}

// NewSample is empty. The selection bias may be nil. ErrPlan: more than 16 experts.
func NewSample(router moe.RouterSpec, bias []float32) (*Sample, error) {
	if err := cmp.Or(searchable(&router), router.Check()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlan, err)
	}
	if bias != nil && len(bias) != router.Experts {
		return nil, fmt.Errorf("%w: a selection bias of %d values for %d experts", ErrPlan, len(bias), router.Experts)
	}
	return &Sample{router: router, bias: bias}, nil
}

// Add takes one token: its logits, and every expert's output on it, experts x dim row by row.
func (s *Sample) Add(logits, outputs []float32) error {
	n := s.router.Experts
	if len(logits) != n || len(outputs) == 0 || len(outputs)%n != 0 {
		return fmt.Errorf("%w: a token of %d logits and %d outputs for %d experts", ErrPlan, len(logits), len(outputs), n)
	}
	dim := len(outputs) / n
	inner := make([]float64, n*n)
	for i := range n {
		for j := range i + 1 {
			var sum float64
			for d, v := range outputs[i*dim:][:dim] {
				sum += float64(v) * float64(outputs[j*dim+d])
			}
			inner[i*n+j], inner[j*n+i] = sum, sum
		}
	}
	s.logits, s.inner = append(s.logits, append([]float32(nil), logits...)), append(s.inner, inner)
	return nil
}

// Exhaustive tries every subset of keep experts and lists those that the best one leaves out, rising: the subset without which the layer's
// outputs move least, summed over tokens. Of equals it is the one that keeps the lower experts. ErrPlan: too few would stay, or nothing was added.
func (s *Sample) Exhaustive(keep int) ([]int, error) {
	n := s.router.Experts
	if keep < s.router.K || keep > n {
		return nil, fmt.Errorf("%w: keep %d of %d experts, a token takes %d", ErrPlan, keep, n, s.router.K)
	}
	if len(s.logits) == 0 {
		return nil, fmt.Errorf("%w: a search without a token", ErrPlan)
	}
	whole := make([][]float64, len(s.logits))
	for t := range whole {
		whole[t] = s.weights(t, 1<<n-1)
	}
	best, least := -1, math.Inf(1)
	for set := range 1 << n {
		if bits.OnesCount(uint(set)) != keep {
			continue
		}
		if moved := s.moved(whole, set); best < 0 || moved < least {
			best, least = set, moved
		}
	}
	var drop []int
	for e := range n {
		if best>>e&1 == 0 {
			drop = append(drop, e)
		}
	}
	return drop, nil
}

// moved is by how much the layer's outputs differ from the whole layer's when only a set of experts is there.
func (s *Sample) moved(whole [][]float64, set int) float64 {
	n := s.router.Experts
	var sum float64
	for t := range s.logits {
		d := s.weights(t, set)
		for e := range d {
			d[e] -= whole[t][e]
		}
		var square float64
		for i := range n {
			for j := range n {
				square += d[i] * d[j] * s.inner[t][i*n+j]
			}
		}
		sum += math.Sqrt(max(square, 0))
	}
	return sum
}

// weights routes a token among a set of experts.
func (s *Sample) weights(t, set int) []float64 {
	n, k := s.router.Experts, s.router.K
	phys := make([]int32, n)
	for e := range phys {
		phys[e] = int32(set>>e&1) - 1
	}
	c := moe.Choice{IDs: make([]int32, k), Weights: make([]float32, k)}
	s.router.Choose(s.logits[t], s.bias, phys, c)
	out := make([]float64, n)
	for i, e := range c.IDs {
		if e >= 0 {
			out[e] += float64(c.Weights[i])
		}
	}
	return out
}

// SkipBelow is the median of the second expert's weight over the first's: the threshold of dynamic skipping, under which a token runs its
// first expert alone. Within a 64th tokens count as evenly spread. 0, never skip, where nothing was seen.
func (l LayerProfile) SkipBelow() float64 {
	var all int64
	for _, n := range l.Skips {
		all += n
	}
	half, before := float64(all)/2, 0.0
	for i, n := range l.Skips {
		if n > 0 && before+float64(n) >= half {
			return (float64(i) + (half-before)/float64(n)) / float64(len(l.Skips))
		}
		before += float64(n)
	}
	return 0
}
