package moetest

import (
	"math"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

func tallies() []tensortest.Case {
	var cases []tensortest.Case
	for rows := 1; rows <= 9; rows++ {
		for experts := 1; experts <= 9; experts++ {
			cases = append(cases, tally(size{rows, experts, 1 + (rows+experts)%min(experts, 4), 0}))
		}
	}
	return append(cases, tally(size{100, 128, 8, 0}), tally(size{3, 1024, 16, 0}))
}

// tally counts choices on top of counts that are there, two of them about to wrap. Some logits are no numbers; with an odd number of experts there
// are none.
func tally(s size) tensortest.Case {
	name := tensortest.Labels("tally", s.rows, "experts", s.experts, "k", s.k)
	return tensortest.Case{Name: name, Rows: s.rows, Make: func(w *tensortest.World) tensortest.Trial {
		o := &moe.Tally{IDs: choose(w, s).ids, N: w.Count()}
		if s.experts%2 == 0 {
			logits := w.Floats(w.Total, s.experts)
			for range s.rows {
				logits.F32()[w.IntN(w.Total*s.experts)] = float32(math.NaN())
			}
			o.Logits = w.Pick(logits)
		}
		counts := make([]int32, s.experts+moe.TallyColumns)
		for i := range counts {
			counts[i] = w.Int32N(1000)
		}
		counts[0], counts[s.experts+moe.TallyRows] = math.MaxInt32, -1
		o.Counts = tensor.FromI32(1, len(counts), counts)
		return tensortest.Trial{Op: o}
	}}
}
