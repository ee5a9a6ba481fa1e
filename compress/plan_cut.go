package compress

import (
	"cmp"
	"fmt"
	"slices"
)

// ladder is the order in which a layer gives experts up: a step takes one out of each group, and costs its height.
type ladder struct {
	layer   int
	heights []float64 // rising
	size    int       // experts a step takes
	most    int       // steps that the layer may go
}

// cut takes experts out of all layers together, always by the lowest step that is left, and says how many steps each layer went. Exactly
// remove experts go; where steps take several, as many fewer as make it a whole number of the widest steps. With steps of one size a cut
// that removes more goes on from one that removes less.
func cut(ladders []ladder, remove int) ([]int, error) {
	type step struct {
		height   float64
		at, size int
	}
	var steps []step
	widest := 1
	for at, l := range ladders {
		widest = max(widest, l.size)
		for _, h := range l.heights[:min(l.most, len(l.heights))] {
			steps = append(steps, step{h, at, l.size})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int {
		return cmp.Or(cmp.Compare(a.height, b.height), cmp.Compare(ladders[a.at].layer, ladders[b.at].layer))
	})
	out, left := make([]int, len(ladders)), remove-remove%widest
	for _, s := range steps {
		if s.size <= left {
			out[s.at]++
			left -= s.size
		}
	}
	if left > 0 {
		return nil, fmt.Errorf("%w: %d experts are to go, %d more than floors, groups and protected experts allow", ErrPlan, remove, left)
	}
	return out, nil
}
