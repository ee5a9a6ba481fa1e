package compress

import "math/rand/v2"

// Random keeps experts by lot, the floor under every other method. The lot depends on the seed and the layer alone, so that keeping fewer
// never brings an expert back.
var Random = registerMethod("random", func(in In) (Plan, error) {
	return in.ranked("random", func(l int) ranking {
		lot := rand.New(rand.NewPCG(in.Seed, uint64(l)))
		worth := make([]float64, in.Spec.Layers[l].Router.Experts)
		for e := range worth {
			worth[e] = lot.Float64()
		}
		return ranking{worth: worth}
	})
})
