package compress

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// ranking orders the experts of a layer by what they are worth.
type ranking struct {
	worth []float64 // by expert; -Inf goes before all numbers
	keep  []bool    // never goes, whatever its worth; nil = all may go
}

// ranked plans by a worth of every expert. Those of least worth go, of equals the higher ids; as many in every layer, or with Ragged by one
// ranking of all layers; as many out of every group.
func (in In) ranked(method string, rank func(layer int) ranking) (Plan, error) {
	layers, err := in.layers()
	if err != nil {
		return Plan{}, err
	}
	orders, ladders := make([][][]int, len(layers)), make([]ladder, len(layers))
	total := 0
	for i, l := range layers {
		r := in.Spec.Layers[l].Router
		ranks := rank(l)
		orders[i] = ranks.order(groups(r))
		ladders[i] = ranks.ladder(l, orders[i])
		ladders[i].most = min(ladders[i].most, (r.Experts-in.fewest(r))/groups(r))
		total += r.Experts
	}
	var steps []int
	if in.Ragged {
		steps, err = cut(ladders, total-in.staying(total))
	} else {
		steps, err = in.level(ladders)
	}
	if err != nil {
		return Plan{}, err
	}
	gone := map[int][]int{}
	for i, l := range layers {
		for _, order := range orders[i] {
			gone[l] = append(gone[l], order[:steps[i]]...)
		}
	}
	return in.plan(method, gone), nil
}

// level takes the same share out of every layer, a whole number of steps.
func (in In) level(ladders []ladder) ([]int, error) {
	steps := make([]int, len(ladders))
	for i, l := range ladders {
		n := in.Spec.Layers[l.layer].Router.Experts
		steps[i] = (n - in.staying(n)) / l.size
		if steps[i] > l.most {
			return nil, fmt.Errorf("%w: layer %d: %d of %d experts are to go, floors, groups and protected experts allow %d",
				ErrPlan, l.layer, steps[i]*l.size, n, l.most*l.size)
		}
	}
	return steps, nil
}

// order lists, group by group, who may go, the first to go first.
func (r ranking) order(groups int) [][]int {
	size := len(r.worth) / groups
	out := make([][]int, groups)
	for g := range out {
		for e := g * size; e < (g+1)*size; e++ {
			if r.keep == nil || !r.keep[e] {
				out[g] = append(out[g], e)
			}
		}
		slices.SortFunc(out[g], func(a, b int) int { return cmp.Or(cmp.Compare(r.worth[a], r.worth[b]), b-a) })
	}
	return out
}

// ladder has a step for every expert that each group can give; its height is their mean worth.
func (r ranking) ladder(layer int, order [][]int) ladder {
	l := ladder{layer: layer, size: len(order), most: math.MaxInt}
	for _, o := range order {
		l.most = min(l.most, len(o))
	}
	for s := range l.most {
		var sum float64
		for _, o := range order {
			sum += r.worth[o[s]]
		}
		l.heights = append(l.heights, sum/float64(len(order)))
	}
	return l
}
