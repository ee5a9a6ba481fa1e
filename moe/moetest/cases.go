package moetest

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// Run checks a device against the references of the ops of experts, that rows stand alone, and against choices computed elsewhere.
func Run(t *testing.T, d tensor.Device) {
	t.Run("golden", func(t *testing.T) { Golden(t, d) })
	t.Run("golden tree", func(t *testing.T) { GoldenTree(t, d) })
	t.Run("example", func(t *testing.T) { Example(t, d) })
	t.Run("collapse", func(t *testing.T) { Collapse(t, d) })
	tensortest.RunCases(t, d, Cases())
}

// Cases are small, and cover every family of routers, maps with pruned and merged experts, and experts in several banks.
func Cases() []tensortest.Case {
	return slices.Concat(routes(), treeRoutes(), gates(), tallies(), dispatches(), ffns())
}

// Large are the shapes of real models, for benchmarks: 64 experts of which 8 run.
func Large() []tensortest.Case {
	var cases []tensortest.Case
	for _, rows := range []int{1, 32} {
		cases = append(cases, route(families[0], size{rows, 128, 8, 2048}), treeCase(size{rows, 128, 8, 2048}, trees{gamma: 0.01, columns: 16}), tally(size{rows, 128, 8, 0}),
			dispatchCase(size{rows, 128, 8, 0}))
		for _, f := range []*quant.Format{quant.F16, quant.Q4_0, quant.Q8_0, quant.Q4_K} {
			cases = append(cases, ffn(size{rows, 64, 8, 1024}, network{512, []*quant.Format{f}}))
		}
	}
	return cases
}

// Drawn is a case of random shape.
func Drawn(r *rand.Rand) tensortest.Case {
	s := size{rows: 1 + r.IntN(40), experts: 1 + r.IntN(64), dim: 32 * (1 + r.IntN(4))}
	s.k = 1 + r.IntN(min(s.experts, 9))
	switch r.IntN(5) {
	case 0:
		f := families[r.IntN(len(families))]
		return []tensortest.Case{route(f, s), wishing(route(f, s))}[r.IntN(2)]
	case 1:
		return dispatchCase(s)
	case 2:
		gamma := []float32{0.01, 1, 10}[r.IntN(3)]
		return treeCase(s, trees{gamma: gamma, columns: s.k, byExpert: r.IntN(2) == 0, bare: r.IntN(3) == 0, pruned: r.IntN(2) == 0})
	case 3:
		return tally(s)
	}
	formats := []*quant.Format{quant.F32, quant.F16, quant.Q4_0, quant.Q8_0}
	return ffn(s, network{32 * (1 + r.IntN(3)), formats[r.IntN(3):][:1+r.IntN(2)]})
}
