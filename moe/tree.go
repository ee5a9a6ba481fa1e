package moe

import (
	"fmt"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/tensor"
)

// TreeSpec is a router of binary trees, COMET's, as numbers. Each tree has a leaf an expert and a hyperplane at each node above: a row goes left
// with the smooth step of its distance, right with the rest. The step reaches 0 and 1, so most rows see one path of each tree.
//
//	P = product of steps down to a leaf; a = the leaf's scorer on the row; weight of an expert = sum of P exp(a) over its leaves, of all
//	trees, over the sum of all
//
// Nodes have heap numbers: 0 is the root, 2q+1 and 2q+2 are below q, and q is a leaf from Experts-1 on. Leaves are counted depth first, left
// to right, which is another order unless Experts is a power of two: the leaves of 6 experts are nodes 7 8 9 10 5 6.
type TreeSpec struct {
	Experts int     // leaves of each tree, router rows
	Trees   int     // about as many experts run
	Gamma   float32 // width of the smooth step
	Cut     float32 // paths of this mass or less are not followed
}

// TreeCut is the mass from which on a path is not followed, unless a file says another.
const TreeCut = 1e-5

// Check says what is wrong with trees that a file describes.
func (s TreeSpec) Check() error {
	switch {
	case s.Experts < 1 || s.Experts > MostExperts:
		return fmt.Errorf("trees of %d experts, want 1 to %d", s.Experts, MostExperts)
	case s.Trees < 1 || s.Trees > MostActive:
		return fmt.Errorf("%d trees, want 1 to %d", s.Trees, MostActive)
	case !(s.Gamma > 0) || math.IsInf(float64(s.Gamma), 1):
		return fmt.Errorf("trees with a step of width %v", s.Gamma)
	case !(s.Cut >= 0 && s.Cut < 1):
		return fmt.Errorf("trees cut at mass %v, want 0 to 1", s.Cut)
	}
	return nil
}

// Nodes is how many nodes a tree has above its leaves.
func (s TreeSpec) Nodes() int { return s.Experts - 1 }

// LeafOrder is the heap number of each leaf, depth first.
func (s TreeSpec) LeafOrder() []int {
	var order []int
	for stack := []int{0}; len(stack) > 0; {
		q := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if q >= s.Nodes() {
			order = append(order, q)
			continue
		}
		stack = append(stack, 2*q+2, 2*q+1)
	}
	return order
}

// Scorers says which row of RouteTree.Leaves a leaf is scored by.
type Scorers int

// The scorers of published trees: leaf i of tree j has row j*Experts+i, or the row of the expert that it leads to, whatever the tree.
const (
	ScorerByLeaf Scorers = iota
	ScorerByExpert
)

// Places works out RouteTree.Places from the expert of each leaf, Experts of each tree in depth-first order, -1 = pruned.
func (s TreeSpec) Places(leaves []int32, by Scorers) ([]int32, error) {
	if len(leaves) != s.Trees*s.Experts {
		return nil, fmt.Errorf("a map of %d leaves for %d trees of %d", len(leaves), s.Trees, s.Experts)
	}
	each, alive := 2*s.Experts-1, 0
	places := make([]int32, 2*s.Trees*each)
	for j := range s.Trees {
		place := places[2*j*each : 2*(j+1)*each]
		for i, q := range s.LeafOrder() {
			e := leaves[j*s.Experts+i]
			if e < -1 || int(e) >= s.Experts {
				return nil, fmt.Errorf("leaf %d of tree %d leads to expert %d of %d", i, j, e, s.Experts)
			}
			place[2*q], place[2*q+1] = e, int32(j*s.Experts+i)
			if by == ScorerByExpert {
				place[2*q+1] = e
			}
		}
		for q := s.Nodes() - 1; q >= 0; q-- {
			place[2*q], place[2*q+1] = max(place[2*(2*q+1)], place[2*(2*q+2)]), int32(j*s.Nodes()+q)
		}
		if place[0] >= 0 {
			alive++
		}
	}
	if alive == 0 {
		return nil, fmt.Errorf("every leaf of every tree is pruned")
	}
	return places, nil
}

// EveryLeaf is the map of trees whose leaf i leads to expert i.
func (s TreeSpec) EveryLeaf() []int32 {
	leaves := make([]int32, s.Trees*s.Experts)
	for i := range leaves {
		leaves[i] = int32(i % s.Experts)
	}
	return leaves
}

// smoothStep is the smooth step of width gamma: 0 up to -gamma/2 and for NaN, 1 from gamma/2 on. Conversions keep products and sums apart, on every
// machine.
func smoothStep(t, gamma float64) float64 {
	switch u := t / gamma; {
	case !(u > -0.5):
		return 0
	case u >= 0.5:
		return 1
	default:
		return float64(float64(1.5-float64(2*u*u))*u) + 0.5
	}
}

// RouteTree chooses experts for every row by walking trees. Its matrices are in plain order on every device, for a walk reads few of their
// rows. Sums are kept in double precision in 16 lanes, so that every device takes the same paths.
type RouteTree struct {
	X        tensor.Mat // rows x dim, F32: normed hidden states
	Nodes    tensor.Mat // Trees*(Experts-1) x dim, F32: hyperplanes, tree after tree in the order of heap numbers; absent where there are none
	NodeBias tensor.Mat // 1 x Trees*(Experts-1), F32: their offsets; may be absent
	Leaves   tensor.Mat // scorers x dim, F32; absent = every leaf scores 0
	LeafBias tensor.Mat // 1 x scorers, F32; may be absent
	Places   tensor.Mat // Trees*(2*Experts-1) x 2, I32: by heap number, the expert of a leaf and its scorer; of a node -1 where all below is pruned, and its row
	IDs      tensor.Mat // rows x K, I32: experts by falling weight, the lower id first, -1 where fewer are active
	Weights  tensor.Mat // rows x K, F32: they sum to 1, 0 beside -1; where more than K are active the K largest are scaled to sum to 1
	Active   tensor.Mat // rows x 2, I32: experts with weight, which may be more than K; logits of nodes and leaves that are NaN or +-inf
	N        tensor.Mat // 1 x 1, I32: rows in use
	Spec     TreeSpec
}

// Reference walks each tree of each row.
func (o *RouteTree) Reference() { o.each(o.walk) }

// Dense does the same by the mass of every leaf of every tree, as trees are trained: the choices are those of Reference to the bit.
func (o *RouteTree) Dense() { o.each(o.every) }

// pair is a leaf that a row has reached.
type pair struct {
	mass, score float64
	expert      int32
}

// each chooses for every row from the pairs of a tree that find appends, depth first.
func (o *RouteTree) each(find func(w *visit, tree int)) {
	k, dim := o.IDs.Cols, o.X.Cols
	for i := range tensor.Live(o.N, o.X.Rows) {
		w := visit{x: o.X.F32()[i*dim : (i+1)*dim]}
		for j := range o.Spec.Trees {
			find(&w, j)
		}
		active := addUp(w.pairs, o.Spec.Experts, Choice{o.IDs.I32()[i*k : (i+1)*k], o.Weights.F32()[i*k : (i+1)*k]})
		o.Active.I32()[2*i], o.Active.I32()[2*i+1] = int32(active), int32(w.bad)
	}
}

// visit is what one row has come upon.
type visit struct {
	x     []float32
	pairs []pair
	bad   int
}

// crossing is a node to be looked at.
type crossing struct {
	q    int
	mass float64
}

func (o *RouteTree) walk(w *visit, tree int) {
	n, cut := o.Spec.Nodes(), float64(o.Spec.Cut)
	places := o.Places.I32()[2*tree*(n+o.Spec.Experts):]
	stack := make([]crossing, 0, 16)
	if places[0] >= 0 {
		stack = append(stack, crossing{0, 1})
	}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if at.mass <= cut {
			continue
		}
		if at.q >= n {
			o.reach(w, places[2*at.q:], at.mass)
			continue
		}
		left, right := o.split(w, places, at)
		stack = append(stack, right, left)
	}
}

// split is the two ways on from a node. Nothing goes where all is pruned.
func (o *RouteTree) split(w *visit, places []int32, at crossing) (left, right crossing) {
	left, right = crossing{2*at.q + 1, at.mass}, crossing{2*at.q + 2, at.mass}
	switch {
	case places[2*left.q] < 0:
		left.mass = 0
	case places[2*right.q] < 0:
		right.mass = 0
	default:
		t := w.logit(o.Nodes, o.NodeBias, int(places[2*at.q+1]))
		s := smoothStep(t, float64(o.Spec.Gamma))
		left.mass, right.mass = at.mass*s, at.mass*(1-s)
	}
	return left, right
}

// reach takes a leaf with its score.
func (o *RouteTree) reach(w *visit, place []int32, mass float64) {
	score := 0.0
	if o.Leaves.Present() {
		score = w.logit(o.Leaves, o.LeafBias, int(place[1]))
	}
	w.add(pair{mass, score, place[0]})
}

// add keeps a pair, unless its score is no number.
func (w *visit) add(p pair) {
	if !math.IsInf(p.score, 0) && p.score == p.score {
		w.pairs = append(w.pairs, p)
	}
}

// logit is the product with a row of a matrix in plain order, plus its bias if there are any.
func (w *visit) logit(m, bias tensor.Mat, row int) float64 {
	t := wideDot(w.x, m.F32()[row*m.Cols:(row+1)*m.Cols])
	if bias.Present() {
		t += float64(bias.F32()[row])
	}
	if t != t || math.IsInf(t, 0) {
		w.bad++
	}
	return t
}

// every works out the mass of all nodes of a tree from the root down, and reaches the leaves that have some.
func (o *RouteTree) every(w *visit, tree int) {
	n, cut := o.Spec.Nodes(), float64(o.Spec.Cut)
	places := o.Places.I32()[2*tree*(n+o.Spec.Experts):]
	mass, deaf := make([]float64, n+o.Spec.Experts), visit{x: w.x}
	if places[0] >= 0 {
		mass[0] = 1
	}
	for q := range n {
		seen := w
		if mass[q] <= cut {
			seen = &deaf // a walk does not come here
		}
		if places[2*q] >= 0 {
			left, right := o.split(seen, places, crossing{q, mass[q]})
			mass[left.q], mass[right.q] = left.mass, right.mass
		}
	}
	for _, q := range o.Spec.LeafOrder() {
		if mass[q] > cut {
			o.reach(w, places[2*q:], mass[q])
		}
	}
}

// addUp adds up the pairs of each expert, writes the heaviest and gives how many experts have weight.
func addUp(pairs []pair, experts int, out Choice) (active int) {
	top, sum, weights := math.Inf(-1), 0.0, make([]float64, experts)
	for _, p := range pairs {
		top = max(top, p.score)
	}
	for _, p := range pairs {
		v := float64(p.mass * math.Exp(p.score-top))
		weights[p.expert] += v
		sum += v
	}
	for _, v := range weights {
		if v > 0 {
			active++
		}
	}
	chosen := make([]float64, 0, len(out.IDs))
	for i := range out.IDs {
		out.IDs[i], out.Weights[i] = -1, 0
		if e := largest(weights); weights[e] > 0 {
			out.IDs[i], chosen = int32(e), append(chosen, weights[e])
			weights[e] = 0
		}
	}
	if active > len(out.IDs) {
		sum = 0
		for _, v := range chosen {
			sum += v
		}
	}
	for i, v := range chosen {
		out.Weights[i] = float32(v / sum)
	}
	return active
}

// wideDot is a product of two rows, in double precision: lane i sums columns i, i+16 and so on, then lanes are added by halves.
func wideDot(a, b []float32) float64 {
	var lanes [16]float64
	for len(a) >= 16 {
		for i := range lanes {
			lanes[i] += float64(a[i]) * float64(b[i]) // exact products
		}
		a, b = a[16:], b[16:]
	}
	for i := range a {
		lanes[i] += float64(a[i]) * float64(b[i])
	}
	for w := 8; w > 0; w /= 2 {
		for i := range w {
			lanes[i] += lanes[i+w]
		}
	}
	return lanes[0]
}

// Operands lists inputs, trees and count, then ids, factors and counts.
func (o *RouteTree) Operands() (in, out []*tensor.Mat) {
	return []*tensor.Mat{&o.X, &o.Nodes, &o.NodeBias, &o.Leaves, &o.LeafBias, &o.Places, &o.N}, []*tensor.Mat{&o.IDs, &o.Weights, &o.Active}
}

// Cost counts what saturated trees take: one row a level of each tree and one leaf's, and two operations a product.
func (o *RouteTree) Cost() (bytes, flops int64) {
	depth := 1
	for n := 1; n < o.Spec.Experts; n *= 2 {
		depth++
	}
	rows := int64(tensor.Live(o.N, o.X.Rows))
	products := rows * int64(depth*o.Spec.Trees*o.X.Cols)
	return 4*products + rows*int64(o.X.RowBytes()), 2 * products
}

// Unsaturated says that trees, or selectors, are no sparse router: most of their paths have mass.
type Unsaturated struct {
	Mean    float64 // experts that are active for a row
	Allowed float64
}

func (e *Unsaturated) Error() string {
	return fmt.Sprintf("the router is not saturated: %.1f experts active a row, at most %.0f are allowed", e.Mean, e.Allowed)
}

// Saturated says whether at most twice as many experts are active as there are trees, in the mean over the rows that the op has run on. The
// error is an *Unsaturated. Its operands are on the host.
func (o *RouteTree) Saturated() error {
	return saturated(o.Active, tensor.Live(o.N, o.X.Rows), o.Spec.Trees)
}

func saturated(active tensor.Mat, rows, trees int) error {
	var sum float64
	for i := range rows {
		sum += float64(active.I32()[2*i])
	}
	if mean, allowed := sum/float64(max(rows, 1)), float64(2*trees); mean > allowed {
		return &Unsaturated{Mean: mean, Allowed: allowed}
	}
	return nil
}

// Prune is a map of leaves without those of experts that are in no bank.
func Prune(leaves []int32, m ExpertMap) []int32 {
	out := slices.Clone(leaves)
	for i, e := range out {
		if e >= 0 && m.Phys[e] < 0 {
			out[i] = -1
		}
	}
	return out
}
