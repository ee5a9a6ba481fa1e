// Package moetest holds the cases of the ops that choose experts and run them: one list for conformance, as fuzz seeds and for
// benchmarks.
package moetest

import (
	"fmt"
	"math"
	"testing"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
	"github.com/winnow-llm/winnow/tensor/tensortest"
)

// family is a router of published models, experts and K left open.
type family struct {
	name string
	spec moe.RouterSpec
	bias bool // has a bias of the logits
	pick bool // has a selection bias
	bad  bool // some logits are no numbers
}

var families = []family{
	{"mixtral", moe.RouterSpec{Score: moe.Softmax, Weight: moe.FromScore, Norm: true, NormMinK: 1, Scale: 1}, false, false, false},
	{"olmoe", moe.RouterSpec{Score: moe.Softmax, Weight: moe.FromScore, Scale: 1}, false, false, false},
	{"gpt-oss", moe.RouterSpec{Score: moe.Softmax, Weight: moe.SoftmaxTopK, Scale: 1}, true, false, false},
	{"ernie", moe.RouterSpec{Score: moe.Softmax, Weight: moe.FromScore, Norm: true, NormMinK: 1, NormEps: 1e-12, Scale: 1}, false, true, false},
	{"glm", moe.RouterSpec{Score: moe.Sigmoid, Weight: moe.FromScore, Norm: true, NormMinK: 2, NormEps: 1e-20, Scale: 2.5}, false, true, false},
	{"llama4", moe.RouterSpec{Score: moe.Identity, Weight: moe.SigmoidTopK, Scale: 1}, false, false, false},
	{"softplus", moe.RouterSpec{Score: moe.SqrtSoftplus, Weight: moe.FromScore, Norm: true, NormMinK: 2, Scale: 1.5}, true, true, false},
	{"phi", moe.RouterSpec{Score: moe.Identity, Weight: moe.SparseMixer, Scale: 1, Band: 0.01}, false, false, false},
	{"phi with a wide band", moe.RouterSpec{Score: moe.Identity, Weight: moe.SparseMixer, Scale: 1, Band: 0.3}, true, false, false},
	{"bad", moe.RouterSpec{Score: moe.Sigmoid, Weight: moe.FromScore, Norm: true, NormMinK: 1, Scale: 1}, true, true, true},
	{"bad softmax", moe.RouterSpec{Score: moe.Softmax, Weight: moe.FromScore, Norm: true, NormMinK: 1, Scale: 1}, true, false, true},
}

// grouped splits a router's experts into groups, where they divide.
func grouped(s moe.RouterSpec, score moe.GroupScore) moe.RouterSpec {
	if s.Experts%4 == 0 && s.K <= s.Experts/2 {
		s.Groups, s.GroupsKept, s.GroupScore = 4, 2, score
	}
	return s
}

// size is how large a router is.
type size struct{ rows, experts, k, dim int }

func routes() []tensortest.Case {
	var cases []tensortest.Case
	for _, f := range families {
		for experts := 1; experts <= 9; experts++ {
			for k := 1; k <= experts; k++ {
				s := size{1 + (experts+k)%9, experts, k, 1 + (experts*k)%9}
				cases = append(cases, route(f, s), wishing(route(f, s)))
			}
		}
		for _, s := range []size{{5, 40, 8, 64}, {3, 60, 4, 100}, {17, 128, 8, 33}, {2, 384, 8, 256}, {2, 1024, 16, 48}} {
			cases = append(cases, route(f, s), wishing(route(f, s)))
			for _, score := range []moe.GroupScore{moe.GroupMax, moe.GroupTop2Sum} {
				g := f
				g.name += " in groups by " + string(score)
				g.spec = grouped(moe.RouterSpec{Experts: s.experts, K: s.k, Score: f.spec.Score, Weight: f.spec.Weight, Scale: 1}, score)
				cases = append(cases, route(g, s), wishing(route(g, s)))
			}
		}
	}
	for _, n := range []int{96, 160, 256, 288, 512, 576, 896} {
		cases = append(cases, route(families[0], size{3, n, min(n/12, 16), 24}))
	}
	return cases
}

// route is a router on random rows, some of whose experts are pruned, at most so many that K are left outside groups.
func route(f family, s size) tensortest.Case {
	name := tensortest.Labels("route", f.name, s.rows, "x", s.dim, "experts", s.experts, "k", s.k)
	return tensortest.Case{Name: name, Rows: s.rows, Make: func(w *tensortest.World) tensortest.Trial {
		o := &moe.Route{
			X: w.Batch(1, s.dim), W: w.Weight(quant.F32, s.experts, s.dim), Phys: pruned(w, s.experts, s.k), N: w.Count(),
			Logits: w.Output(quant.F32, 1, s.experts), IDs: w.Output(quant.I32, 1, s.k), Weights: w.Output(quant.F32, 1, s.k), Spec: f.spec,
		}
		o.Spec.Experts, o.Spec.K = s.experts, s.k
		if f.bias {
			o.Bias = named(w.Floats(1, s.experts))
		}
		if f.pick {
			o.Select = named(w.Floats(1, s.experts))
		}
		if f.bad {
			spoil(w, o.Bias.F32())
		}
		return tensortest.Trial{Op: o, ByRow: []*tensor.Mat{&o.Logits, &o.IDs, &o.Weights}}
	}}
}

// spoil makes some values what no logit should be.
func spoil(w *tensortest.World, v []float32) {
	for i := range v {
		if w.IntN(2) == 0 {
			v[i] = []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))}[w.IntN(3)]
		}
	}
}

// wishing is a route, or a shortlist, whose rows make do with fewer experts, each in its own way, and of which one row has inputs that are no numbers.
func wishing(c tensortest.Case) tensortest.Case {
	const layers, wishes = 3, 4
	within := c.Make
	c.Name += " wishing"
	c.Make = func(w *tensortest.World) tensortest.Trial {
		trial := within(w)
		var k int
		var x *tensor.Mat
		switch o := trial.Op.(type) {
		case *moe.Route:
			k, x = o.Spec.K, &o.X
		case *moe.RouteShortlist:
			k, x = o.Spec.K, &o.X
		}
		cols := moe.WishK + layers
		table := make([]float32, wishes*cols)
		for i := range wishes {
			row := table[i*cols:][:cols]
			row[moe.WishMinP+i%3] = []float32{0.2, 0.5, 0.9}[w.IntN(3)] // one of the three ways, and in the last line two
			if i == wishes-1 {
				row[moe.WishMinP], row[moe.WishSkip] = 0.3, 0.6
			}
			for l := range layers {
				row[moe.WishK+l] = float32(w.IntN(k + 2)) // also more than there are
			}
		}
		of := w.Ints(1, wishes+1)
		lines, picked, layer, mass := tensor.FromF32(wishes, cols, table), w.Pick(of), w.IntN(layers), w.Output(quant.F32, 1, 1)
		for i, row := range w.Picked {
			if row == 3 {
				x.F32()[i*x.Cols] = float32(math.NaN())
			}
		}
		switch o := trial.Op.(type) {
		case *moe.Route:
			o.Wish, o.Of, o.Layer, o.Mass = lines, picked, layer, mass
			trial.ByRow = append(trial.ByRow, &o.Mass)
		case *moe.RouteShortlist:
			o.Wish, o.Of, o.Layer, o.Mass = lines, picked, layer, mass
			trial.ByRow = append(trial.ByRow, &o.Mass)
		}
		return trial
	}
	return c
}

func named(m tensor.Mat) tensor.Mat {
	m.Name = "w"
	return m
}

// pruned is a map of experts of which a few are left out.
func pruned(w *tensortest.World, experts, k int) tensor.Mat {
	phys := moe.EveryExpert(experts).Phys
	for range w.IntN(experts - k + 1) {
		phys[w.IntN(experts)] = -1
	}
	return tensor.FromI32(1, experts, phys)
}

// golden is a router's choice computed independently of this code.
type golden struct {
	name    string
	spec    moe.RouterSpec
	logits  []float32
	pick    []float32
	ids     []int32
	weights []float64
}

var (
	nan = float32(math.NaN())
	inf = float32(math.Inf(1))
)

// goldenTolerance is what the published digits of the golden weights are good for.
const goldenTolerance = 1e-6

var (
	z    = []float32{1.2, -0.3, 0.8, 2.0, 0.1, -1.0, 1.9, 0.5}
	bias = []float32{0, 0.3, 0, -0.5, 0.1, 0, 0, 0.2}
	// close198 has a second best so close to the best that they share a band.
	close198 = []float32{1.2, -0.3, 0.8, 2.0, 0.1, -1.0, 1.98, 0.5}
	// spoiled has two numbers among what is none.
	spoiled = []float32{1.2, nan, inf, -inf, nan, nan, 1.9, nan}
	// grouping and filling tell two ways of judging groups apart, and the fill of those left out.
	grouping = []float32{2.0, -3.0, 1.5, 1.4, 1.6, 1.3, 0, 0.1}
	filling  = []float32{0.9, -0.5, 0.1, 0.2, 0.05, 0.1, 0, 0.3}
)

var goldens = []golden{
	{"mixtral", moe.RouterSpec{K: 2, Score: moe.Softmax, Weight: moe.FromScore, Norm: true, NormMinK: 1, Scale: 1}, z, nil, []int32{3, 6}, []float64{0.524979, 0.475021}},
	{"gpt-oss", moe.RouterSpec{K: 2, Score: moe.Identity, Weight: moe.SoftmaxTopK, Scale: 1}, z, nil, []int32{3, 6}, []float64{0.524979, 0.475021}},
	{"olmoe", moe.RouterSpec{K: 2, Score: moe.Softmax, Weight: moe.FromScore, Scale: 1}, z, nil, []int32{3, 6}, []float64{0.314653, 0.284710}},
	{"ernie", moe.RouterSpec{K: 2, Score: moe.Softmax, Weight: moe.FromScore, Norm: true, NormMinK: 1, Scale: 1}, z, bias, []int32{1, 6}, []float64{0.099750, 0.900250}},
	{"glm", moe.RouterSpec{K: 2, Score: moe.Sigmoid, Weight: moe.FromScore, Norm: true, NormMinK: 2, NormEps: 1e-20, Scale: 2.5}, z, bias, []int32{6, 7}, []float64{1.457250, 1.042750}},
	{"deepseek-v3", moe.RouterSpec{K: 2, Score: moe.Sigmoid, Weight: moe.FromScore, Groups: 4, GroupsKept: 2, GroupScore: moe.GroupTop2Sum, Norm: true, NormMinK: 2, NormEps: 1e-20, Scale: 2.5}, z, bias, []int32{6, 7}, []float64{1.457250, 1.042750}},
	{"llama4", moe.RouterSpec{K: 1, Score: moe.Identity, Weight: moe.SigmoidTopK, Scale: 1}, z, nil, []int32{3}, []float64{0.880797}},
	{"softplus", moe.RouterSpec{K: 2, Score: moe.SqrtSoftplus, Weight: moe.FromScore, Norm: true, NormMinK: 2, Scale: 1.5}, z, bias, []int32{6, 0}, []float64{0.812101, 0.687899}},
	{"sigma", moe.RouterSpec{K: 1, Score: moe.Softmax, Weight: moe.FromScore, Scale: 1}, z, nil, []int32{3}, []float64{0.314653}},
	{"phi", moe.RouterSpec{K: 2, Score: moe.Identity, Weight: moe.SparseMixer, Band: 0.01, Scale: 1}, z, nil, []int32{3, 6}, []float64{1, 1}},
	{"phi within the band", moe.RouterSpec{K: 2, Score: moe.Identity, Weight: moe.SparseMixer, Band: 0.01, Scale: 1}, close198, nil, []int32{3, 6}, []float64{0.505, 1}},
	{"no number", moe.RouterSpec{K: 3, Score: moe.Sigmoid, Weight: moe.FromScore, Norm: true, NormMinK: 1, Scale: 1}, spoiled, nil, []int32{6, 0, -1}, []float64{0.530934, 0.469066, 0}},
	{"groups by the best", moe.RouterSpec{K: 3, Score: moe.Softmax, Weight: moe.FromScore, Groups: 4, GroupsKept: 2, GroupScore: moe.GroupMax, Scale: 1}, grouping, nil, []int32{0, 4, 5}, []float64{0.276710, 0.185484, 0.137410}},
	{"groups by the two best", moe.RouterSpec{K: 3, Score: moe.Softmax, Weight: moe.FromScore, Groups: 4, GroupsKept: 2, GroupScore: moe.GroupTop2Sum, Scale: 1}, grouping, nil, []int32{4, 2, 3}, []float64{0.185484, 0.167833, 0.151862}},
	{"fill", moe.RouterSpec{K: 2, Score: moe.Identity, Weight: moe.FromScore, Groups: 4, GroupsKept: 1, GroupScore: moe.GroupTop2Sum, Scale: 1}, filling, nil, []int32{0, 1}, []float64{0.9, -0.5}},
	{"ties", moe.RouterSpec{K: 3, Score: moe.Softmax, Weight: moe.FromScore, Scale: 1}, make([]float32, 8), nil, []int32{0, 1, 2}, []float64{0.125, 0.125, 0.125}},
}

// Golden checks a device's router against choices that were computed independently.
func Golden(t *testing.T, d tensor.Device) {
	for _, g := range goldens {
		n, k := len(g.logits), g.spec.K
		o := &moe.Route{
			X: tensor.FromF32(1, 1, []float32{1}), W: named(tensor.FromF32(n, 1, g.logits)), Phys: tensor.FromI32(1, n, moe.EveryExpert(n).Phys),
			Logits: tensor.FromF32(1, n, make([]float32, n)), IDs: tensor.FromI32(1, k, make([]int32, k)),
			Weights: tensor.FromF32(1, k, make([]float32, k)), N: tensor.FromI32(1, 1, []int32{1}), Spec: g.spec,
		}
		o.Spec.Experts = n
		if g.pick != nil {
			o.Select = named(tensor.FromF32(1, n, g.pick))
		}
		ids, weights := tensor.FromI32(1, k, make([]int32, k)), tensor.FromF32(1, k, make([]float32, k))
		run(t, d, o, []wanted{{&o.IDs, ids}, {&o.Weights, weights}})
		if fmt.Sprint(ids.I32()) != fmt.Sprint(g.ids) {
			t.Errorf("%s chooses %v, want %v", g.name, ids.I32(), g.ids)
		}
		for i, w := range weights.F32() {
			if !(math.Abs(float64(w)-g.weights[i]) <= goldenTolerance) {
				t.Errorf("%s: weights %v, want %v", g.name, weights.F32(), g.weights)
			}
		}
	}
}

// wanted is an operand to read after a run, and where to.
type wanted struct {
	from *tensor.Mat
	to   tensor.Mat
}

// run runs an op on a device and reads some operands.
func run(t *testing.T, d tensor.Device, op tensor.Op, list []wanted) {
	t.Helper()
	p, err := tensortest.Place(d, op)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Free()
	p.Queue.Run(op)
	for _, w := range list {
		copy(w.to.Raw(), p.Read(*w.from))
	}
	if err := p.Queue.Sync(); err != nil {
		t.Fatal(err)
	}
}
