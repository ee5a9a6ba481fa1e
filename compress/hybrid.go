package compress

// Hybrid keeps one expert of each of STUN's clusters, for diversity, and lets REAP's saliency say which. It needs a profile.
var Hybrid = registerMethod("hybrid", func(in In) (Plan, error) {
	if err := in.observed("hybrid"); err != nil {
		return Plan{}, err
	}
	p, err := in.clustered("hybrid", func(layer int, merges []merge) ([]int, error) {
		return strongest(in.Profile.Layers[layer].saliency(), merges), nil
	})
	p.Average = nil
	return p, err
})

// strongest names, for each merge, the member of most worth, the lower of equals.
func strongest(worth []float64, merges []merge) []int {
	best := make([]int, len(worth))
	for e := range best {
		best[e] = e
	}
	stay := make([]int, len(merges))
	for i, m := range merges {
		a, b := best[m.A], best[m.B]
		if worth[b] > worth[a] || worth[b] == worth[a] && b < a {
			a = b
		}
		best[m.A], stay[i] = a, a
	}
	return stay
}
