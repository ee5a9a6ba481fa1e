package moe

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/tensor"
)

// forest is trees with random weights on random rows.
type forest struct {
	experts, trees, rows, dim int
	gamma                     float32
	leaves                    []int32 // nil = every leaf
}

func (f forest) op(t *testing.T, seed uint64) *RouteTree {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	normal := func(rows, cols int, scale float32) tensor.Mat {
		v := make([]float32, rows*cols)
		for i := range v {
			v[i] = scale * float32(r.NormFloat64())
		}
		return tensor.FromF32(rows, cols, v)
	}
	spec := TreeSpec{Experts: f.experts, Trees: f.trees, Gamma: f.gamma, Cut: TreeCut}
	if f.leaves == nil {
		f.leaves = spec.EveryLeaf()
	}
	places, err := spec.Places(f.leaves, ScorerByLeaf)
	if err != nil {
		t.Fatal(err)
	}
	ints := func(rows, cols int) tensor.Mat { return tensor.FromI32(rows, cols, make([]int32, rows*cols)) }
	o := &RouteTree{
		X: normal(f.rows, f.dim, 1), Places: tensor.FromI32(len(places)/2, 2, places), Spec: spec,
		IDs: ints(f.rows, f.experts), Weights: tensor.FromF32(f.rows, f.experts, make([]float32, f.rows*f.experts)), Active: ints(f.rows, 2),
		N: tensor.FromI32(1, 1, []int32{int32(f.rows)}),
	}
	if f.experts > 1 {
		o.Nodes, o.NodeBias = normal(f.trees*spec.Nodes(), f.dim, 1), normal(1, f.trees*spec.Nodes(), 0.1)
	}
	o.Leaves, o.LeafBias = normal(f.trees*f.experts, f.dim, 0.3), normal(1, f.trees*f.experts, 1)
	return o
}

// result is what a row came to.
func (o *RouteTree) result(row int) string {
	k := o.IDs.Cols
	return fmt.Sprint(o.IDs.I32()[row*k:(row+1)*k], o.Weights.F32()[row*k:(row+1)*k], o.Active.I32()[2*row:2*row+2])
}

// A walk over few nodes gives the bits of the masses of all nodes, weights sum to 1, and a row does not depend on its batch.
func TestSparseWalkIsDense(t *testing.T) {
	for _, n := range []int{1, 2, 5, 6, 9, 16, 96, 128} {
		for _, gamma := range []float32{0.01, 1, 10} {
			f := forest{experts: n, trees: 4, rows: 20, dim: 32, gamma: gamma}
			sparse, dense := f.op(t, 1), f.op(t, 1)
			sparse.Reference()
			dense.Dense()
			for row := range 20 {
				if have, want := sparse.result(row), dense.result(row); have != want {
					t.Fatalf("n %d gamma %v row %d: sparse %s, dense %s", n, gamma, row, have, want)
				}
				var sum float64
				for _, w := range sparse.Weights.F32()[row*n : (row+1)*n] {
					sum += float64(w)
				}
				if math.Abs(sum-1) > 1e-5 {
					t.Errorf("n %d gamma %v row %d: weights sum to %v", n, gamma, row, sum)
				}
			}
			want := sparse.result(19)
			sparse.X = tensor.FromF32(20, 32, slices.Repeat(sparse.X.F32()[19*32:], 20))
			sparse.Reference()
			if have := sparse.result(3); have != want {
				t.Errorf("n %d gamma %v: a row among others is %s, alone %s", n, gamma, have, want)
			}
		}
	}
}

func TestSmoothStep(t *testing.T) {
	for _, c := range [][2]float64{{-0.5, 0}, {-0.25, 0.15625}, {0, 0.5}, {0.1, 0.648}, {0.25, 0.84375}, {0.5, 1}, {7, 1}, {-7, 0}, {math.NaN(), 0}} {
		if have := smoothStep(c[0], 1); math.Abs(have-c[1]) > 1e-12 || c[1] == math.Trunc(c[1]) && have != c[1] {
			t.Errorf("step of %v is %v, want %v", c[0], have, c[1])
		}
	}
	for _, gamma := range []float64{0.01, 1, 10} {
		if smoothStep(gamma/2, gamma) != 1 || smoothStep(-gamma/2, gamma) != 0 || smoothStep(0, gamma) != 0.5 {
			t.Errorf("gamma %v: step of the ends and the middle is not 0, 1/2, 1", gamma)
		}
		for i := range 100 {
			x := gamma * (float64(i)/99 - 0.5)
			if a := smoothStep(x, gamma) + smoothStep(-x, gamma); math.Abs(a-1) > 1e-15 {
				t.Errorf("gamma %v: steps of %v and its opposite sum to %v", gamma, x, a)
			}
		}
	}
}

func TestLeafOrder(t *testing.T) {
	for n, want := range map[int][]int{1: {0}, 2: {1, 2}, 3: {3, 4, 2}, 4: {3, 4, 5, 6}, 5: {7, 8, 4, 5, 6}, 6: {7, 8, 9, 10, 5, 6}, 7: {7, 8, 9, 10, 11, 12, 6}} {
		if have := (TreeSpec{Experts: n}).LeafOrder(); !slices.Equal(have, want) {
			t.Errorf("leaves of %d experts %v, want %v", n, have, want)
		}
	}
}

// Where every node on the way is saturated, a tree gives one expert: at most as many as trees run, and of one tree the weight is 1.
func TestSaturatedTrees(t *testing.T) {
	for _, n := range []int{2, 5, 96} {
		for _, trees := range []int{1, 4} {
			o := (forest{experts: n, trees: trees, rows: 50, dim: 16, gamma: 1e-6}).op(t, 2)
			o.Reference()
			for row := range 50 {
				active := int(o.Active.I32()[2*row])
				if active < 1 || active > trees || trees == 1 && o.Weights.F32()[row*n] != 1 {
					t.Errorf("n %d, %d trees: row %d has %s", n, trees, row, o.result(row))
				}
			}
			if err := o.Saturated(); err != nil {
				t.Error(err)
			}
		}
	}
	o := (forest{experts: 96, trees: 4, rows: 20, dim: 16, gamma: 10}).op(t, 2)
	o.Reference()
	if err, ok := o.Saturated().(*Unsaturated); !ok || err.Allowed != 8 || !(err.Mean > 8) {
		t.Errorf("wide steps are saturated: %v", err)
	}
}

// Renumbering the experts renumbers the choices, whether in the map of leaves or on disk; ties aside, of which random rows have none.
func TestLeafMap(t *testing.T) {
	const n = 9
	perm := rand.New(rand.NewPCG(4, 4)).Perm(n)
	leaves := make([]int32, 3*n)
	for i := range leaves {
		leaves[i] = int32(perm[i%n])
	}
	plain, mapped := (forest{experts: n, trees: 3, rows: 30, dim: 8, gamma: 1}).op(t, 5), (forest{experts: n, trees: 3, rows: 30, dim: 8, gamma: 1, leaves: leaves}).op(t, 5)
	plain.Reference()
	mapped.Reference()
	for i, e := range plain.IDs.I32() {
		want := e
		if e >= 0 {
			want = int32(perm[e])
		}
		if mapped.IDs.I32()[i] != want || mapped.Weights.F32()[i] != plain.Weights.F32()[i] {
			t.Fatalf("slot %d: expert %d with %v, want %d with %v", i, mapped.IDs.I32()[i], mapped.Weights.F32()[i], want, plain.Weights.F32()[i])
		}
	}
}

// Leaves scored by a router's own rows weigh as a softmax over the chosen experts, where every path is sure and no two lead to one expert.
func TestSharedLeavesWeighAsTopK(t *testing.T) {
	const n, trees, rows, dim = 12, 3, 60, 8
	o := (forest{experts: n, trees: trees, rows: rows, dim: dim, gamma: 1e-6}).op(t, 10)
	places, err := o.Spec.Places(o.Spec.EveryLeaf(), ScorerByExpert)
	if err != nil {
		t.Fatal(err)
	}
	o.Places = tensor.FromI32(len(places)/2, 2, places)
	o.Leaves, o.LeafBias = tensor.FromF32(n, dim, o.Leaves.F32()[:n*dim]), tensor.Mat{}
	o.Reference()
	compared := 0
	for row := range rows {
		if o.Active.I32()[2*row] != trees {
			continue // two trees agree, and the expert counts twice
		}
		compared++
		z, phys := make([]float32, n), slices.Repeat([]int32{-1}, n)
		for _, e := range o.IDs.I32()[row*n : row*n+trees] {
			phys[e], z[e] = e, float32(wideDot(o.X.F32()[row*dim:(row+1)*dim], o.Leaves.F32()[e*dim:(e+1)*dim]))
		}
		want := Choice{make([]int32, trees), make([]float32, trees)}
		(RouterSpec{Experts: n, K: trees, Score: Identity, Weight: SoftmaxTopK, Scale: 1}).Choose(z, nil, phys, want)
		if !slices.Equal(o.IDs.I32()[row*n:row*n+trees], want.IDs) || !near(o.Weights.F32()[row*n:row*n+trees], want.Weights) {
			t.Errorf("row %d: %s, want %v", row, o.result(row), want)
		}
	}
	if compared < rows/4 {
		t.Errorf("%d of %d rows have three experts", compared, rows)
	}
}

// Leaves that lead to one expert add up: it has all the weight.
func TestDuplicateLeavesAddUp(t *testing.T) {
	o := (forest{experts: 6, trees: 2, rows: 20, dim: 8, gamma: 3, leaves: slices.Repeat([]int32{4}, 12)}).op(t, 6)
	o.Reference()
	for row := range 20 {
		if o.IDs.I32()[row*6] != 4 || o.Weights.F32()[row*6] != 1 || o.Active.I32()[2*row] != 1 {
			t.Errorf("row %d: %s", row, o.result(row))
		}
	}
}

// Pruned leaves are never reached, their mass goes to what is left beside them, and the walk is still that of all masses.
func TestPrunedLeaves(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, n := range []int{2, 5, 6, 9, 16} {
		leaves := (TreeSpec{Experts: n, Trees: 2}).EveryLeaf()
		m := EveryExpert(n)
		for e := range n - 1 {
			if r.IntN(3) > 0 {
				m.Phys[e] = -1
			}
		}
		for _, gamma := range []float32{1e-6, 1, 10} {
			f := forest{experts: n, trees: 2, rows: 40, dim: 8, gamma: gamma, leaves: Prune(leaves, m)}
			sparse, dense := f.op(t, 8), f.op(t, 8)
			sparse.Reference()
			dense.Dense()
			for row := range 40 {
				if have, want := sparse.result(row), dense.result(row); have != want {
					t.Errorf("n %d row %d: sparse %s, dense %s", n, row, have, want)
				}
				if sparse.Active.I32()[2*row] < 1 {
					t.Errorf("n %d row %d has no expert", n, row)
				}
			}
			for _, e := range sparse.IDs.I32() {
				if e >= 0 && m.Phys[e] < 0 {
					t.Fatalf("n %d: pruned expert %d is chosen", n, e)
				}
			}
		}
	}
	spec := TreeSpec{Experts: 2, Trees: 1}
	for _, leaves := range [][]int32{{-1, -1}, {0}, {0, 2}, {0, -2}} {
		if _, err := spec.Places(leaves, ScorerByLeaf); err == nil {
			t.Errorf("the map %v is taken", leaves)
		}
	}
}

// More experts than there is room for: the heaviest are kept, scaled to sum to 1, and the count says that there were more.
func TestTooManyActive(t *testing.T) {
	whole, cut := (forest{experts: 16, trees: 2, rows: 10, dim: 8, gamma: 10}).op(t, 9), (forest{experts: 16, trees: 2, rows: 10, dim: 8, gamma: 10}).op(t, 9)
	cut.IDs, cut.Weights = tensor.FromI32(10, 3, make([]int32, 30)), tensor.FromF32(10, 3, make([]float32, 30))
	whole.Reference()
	cut.Reference()
	for row := range 10 {
		var sum float32
		for i := range 3 {
			sum += whole.Weights.F32()[row*16+i]
		}
		for i := range 3 {
			want := whole.Weights.F32()[row*16+i] / sum
			if cut.IDs.I32()[row*3+i] != whole.IDs.I32()[row*16+i] || math.Abs(float64(cut.Weights.F32()[row*3+i]-want)) > 1e-6 {
				t.Errorf("row %d: %s of %s", row, cut.result(row), whole.result(row))
			}
		}
		if cut.Active.I32()[2*row] != whole.Active.I32()[2*row] || whole.Active.I32()[2*row] <= 3 {
			t.Errorf("row %d: %d active, without the limit %d", row, cut.Active.I32()[2*row], whole.Active.I32()[2*row])
		}
	}
}

func TestTreeSpecRefuses(t *testing.T) {
	good := TreeSpec{Experts: 6, Trees: 2, Gamma: 1, Cut: TreeCut}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for _, change := range []func(*TreeSpec){
		func(s *TreeSpec) { s.Experts = 0 }, func(s *TreeSpec) { s.Experts = MostExperts + 1 }, func(s *TreeSpec) { s.Trees = 0 },
		func(s *TreeSpec) { s.Trees = MostActive + 1 }, func(s *TreeSpec) { s.Gamma = 0 }, func(s *TreeSpec) { s.Gamma = float32(math.NaN()) },
		func(s *TreeSpec) { s.Gamma = float32(math.Inf(1)) }, func(s *TreeSpec) { s.Cut = 1 }, func(s *TreeSpec) { s.Cut = float32(math.NaN()) },
	} {
		bad := good
		change(&bad)
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
