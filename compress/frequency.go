package compress

// Frequency keeps the experts that most tokens chose, the plainest use of a profile and the one that others must beat.
var Frequency = registerMethod("frequency", func(in In) (Plan, error) {
	if err := in.observed("frequency"); err != nil {
		return Plan{}, err
	}
	return in.ranked("frequency", func(l int) ranking {
		usage := in.Profile.Layers[l].Usage
		worth := make([]float64, len(usage))
		for e, n := range usage {
			worth[e] = float64(n)
		}
		return ranking{worth: worth}
	})
})
