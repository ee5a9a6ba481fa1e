package moe

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/winnow-llm/winnow/tensor"
)

// Gate is a top-k router with its weights, on the host.
type Gate struct {
	Spec   RouterSpec
	W      tensor.Mat // experts x dim, F32
	Bias   []float32  // see Route; nil = none
	Select []float32
}

// Shortlist is a tree that was fitted to a router: see RouteShortlist. Its figures are from rows that it was not fitted to.
type Shortlist struct {
	Size     int       // experts whose logits are read
	Nodes    []float32 // (experts-1) x dim
	NodeBias []float32 // experts-1
	Leaves   []int32   // by heap number, the expert of a leaf
	Figures  Figures
}

// Figures say how well a shortlist does in place of its router.
type Figures struct {
	Recall  float64 // share of the router's weights that its experts have which the shortlist chooses too
	Overlap float64 // share of the router's experts that it chooses too
	Read    float64 // rows of matrices that it reads for a row; the router reads one an expert
	Rows    int     // that this is the mean over
}

// Fitting is what a shortlist is asked to be.
type Fitting struct {
	Sizes  []int   // experts whose logits are read: the first that finds enough is taken
	Recall float64 // share of the router's weights that it must find
	Seed   uint64
}

// ErrConvert is wrapped by what says that a router cannot have a shortlist at all, or not from the rows given.
var ErrConvert = errors.New("moe: convert router")

// LowRecall says that a shortlist was fitted and misses too much of its router's choices. Its figures are those of the last size tried.
type LowRecall struct {
	Figures
	Size   int
	Wanted float64
}

func (e *LowRecall) Error() string {
	return fmt.Sprintf("a shortlist of %d experts finds %.5f of the router's weights, want %v (%.3f of its experts, %.1f rows read, over %d rows held out)",
		e.Size, e.Recall, e.Wanted, e.Overlap, e.Read, e.Rows)
}

const (
	fitPasses    = 12
	fitRate      = 0.1
	rowsAnExpert = 20 // captured rows that a fit needs at least
	heldAnExpert = 4  // rows that a figure needs at least
)

// check refuses routers that have no shortlist, and captures that say too little of one.
func (g Gate) check(x, held tensor.Mat, ask Fitting) error {
	s := g.Spec
	switch err := errors.Join(s.Check(), s.Subset()); {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrConvert, err)
	case s.Experts < 2 || len(ask.Sizes) == 0 || slices.Min(ask.Sizes) < s.K || slices.Max(ask.Sizes) > s.Experts:
		return fmt.Errorf("%w: shortlists of %d of %d experts for a choice of %d", ErrConvert, ask.Sizes, s.Experts, s.K)
	case g.Select != nil && s.Score == Softmax:
		return fmt.Errorf("%w: a selection bias beside a softmax over all experts", ErrConvert)
	case x.Rows < rowsAnExpert*s.Experts || x.Cols != g.W.Cols || g.W.Rows != s.Experts:
		return fmt.Errorf("%w: captured %s for a router of %s, want %d rows or more", ErrConvert, x, g.W, rowsAnExpert*s.Experts)
	case held.Rows < heldAnExpert*s.Experts || held.Cols != x.Cols:
		return fmt.Errorf("%w: held out %s for a router of %s, want %d rows or more", ErrConvert, held, g.W, heldAnExpert*s.Experts)
	}
	return nil
}

// Shortlist fits a tree to the router's choices on captured inputs, rows x dim, and measures it on others that are held out. It is the same for
// the same seed. Where no size finds enough it is refused by a *LowRecall.
func (g Gate) Shortlist(x, held tensor.Mat, ask Fitting) (*Shortlist, error) {
	if err := g.check(x, held, ask); err != nil {
		return nil, err
	}
	f := &fit{gate: g, x: x, random: rand.New(rand.NewPCG(ask.Seed, uint64(g.Spec.Experts)))}
	var err error
	if f.ids, f.weights, err = g.choices(x); err != nil {
		return nil, err
	}
	out := &Shortlist{Leaves: f.bisect()}
	f.start(out)
	for range fitPasses {
		f.pass(out)
	}
	ids, weights, err := g.choices(held)
	if err != nil {
		return nil, err
	}
	for _, out.Size = range ask.Sizes {
		if out.Figures = out.measure(g, held, ids, weights); out.Figures.Recall >= ask.Recall {
			return out, nil
		}
	}
	return nil, &LowRecall{out.Figures, out.Size, ask.Recall}
}

// Op is the shortlist as an operation on the host, for rows of a capture; Phys lets every expert live.
func (l *Shortlist) Op(g Gate, x tensor.Mat) *RouteShortlist {
	n, dim, k, rows := g.Spec.Experts, g.W.Cols, g.Spec.K, x.Rows
	o := &RouteShortlist{
		X: x, Nodes: tensor.FromF32(n-1, dim, l.Nodes), NodeBias: tensor.FromF32(1, n-1, l.NodeBias), Leaves: tensor.FromI32(1, 2*n-1, l.Leaves),
		W: g.W, Phys: tensor.FromI32(1, n, EveryExpert(n).Phys), N: tensor.FromI32(1, 1, []int32{int32(rows)}), Spec: g.Spec, Size: l.Size,
		IDs: tensor.FromI32(rows, k, make([]int32, rows*k)), Weights: tensor.FromF32(rows, k, make([]float32, rows*k)),
		Read: tensor.FromI32(rows, 2, make([]int32, 2*rows)),
	}
	if g.Bias != nil {
		o.Bias = tensor.FromF32(1, n, g.Bias)
	}
	if g.Select != nil {
		o.Select = tensor.FromF32(1, n, g.Select)
	}
	return o
}

// fit is a tree in the making.
type fit struct {
	gate    Gate
	x       tensor.Mat
	random  *rand.Rand
	ids     []int32   // rows x K: the router's own choices
	weights []float32 // theirs
	leaf    []int     // expert -> heap number of its leaf
	squares []float64 // of gradients so far, nodes x (dim+1)
}

func (f *fit) row(i int) []float32 { return f.x.F32()[i*f.x.Cols : (i+1)*f.x.Cols] }

// Logits are those of one row of inputs, one an expert.
func (g Gate) Logits(x []float32) []float32 {
	z, dim := make([]float32, g.Spec.Experts), g.W.Cols
	for e := range z {
		z[e] = float32(wideDot(x, g.W.F32()[e*dim:(e+1)*dim]))
		if g.Bias != nil {
			z[e] += g.Bias[e]
		}
	}
	return z
}

// choices runs the router on all rows: rows x K.
func (g Gate) choices(x tensor.Mat) (ids []int32, weights []float32, err error) {
	k, phys := g.Spec.K, EveryExpert(g.Spec.Experts).Phys
	ids, weights = make([]int32, x.Rows*k), make([]float32, x.Rows*k)
	for i := range x.Rows {
		z := g.Logits(x.F32()[i*x.Cols : (i+1)*x.Cols])
		if g.Spec.Choose(z, g.Select, phys, Choice{ids[i*k : (i+1)*k], weights[i*k : (i+1)*k]}) > 0 {
			return nil, nil, fmt.Errorf("%w: captured row %d gives logits that are no numbers", ErrConvert, i)
		}
	}
	return ids, weights, nil
}

// bisect gives each leaf an expert so that neighbours are alike: the rows of the router under a node are sorted along their first principal
// direction, and as many as there are leaves on the left go there.
func (f *fit) bisect() []int32 {
	n := f.gate.Spec.Experts
	leaves, all := make([]int32, 2*n-1), make([]int, n)
	f.leaf = make([]int, n)
	for e := range all {
		all[e] = e
	}
	under := make([]int, 2*n-1) // leaves under each node
	for q := 2*n - 2; q >= 0; q-- {
		if under[q] = 1; q < n-1 {
			under[q] = under[2*q+1] + under[2*q+2]
		}
	}
	var split func(q int, experts []int)
	split = func(q int, experts []int) {
		if q >= n-1 {
			leaves[q], f.leaf[experts[0]] = int32(experts[0]), q
			return
		}
		along := f.along(experts)
		slices.SortStableFunc(experts, func(a, b int) int {
			switch {
			case along[a] < along[b]:
				return -1
			case along[a] > along[b]:
				return 1
			}
			return a - b
		})
		split(2*q+1, experts[:under[2*q+1]])
		split(2*q+2, experts[under[2*q+1]:])
	}
	split(0, all)
	return leaves
}

// along is where each of the experts' rows lies on their first principal direction, by power iteration.
func (f *fit) along(experts []int) map[int]float64 {
	dim := f.x.Cols
	mean, v := make([]float64, dim), make([]float64, dim)
	for d := range dim {
		for _, e := range experts {
			mean[d] += float64(f.gate.W.F32()[e*dim+d]) / float64(len(experts))
		}
		v[d] = f.random.NormFloat64()
	}
	at := map[int]float64{}
	for range 30 {
		next, norm := make([]float64, dim), 0.0
		for _, e := range experts {
			row := f.gate.W.F32()[e*dim : (e+1)*dim]
			at[e] = 0
			for d := range dim {
				at[e] += (float64(row[d]) - mean[d]) * v[d]
			}
			for d := range dim {
				next[d] += at[e] * (float64(row[d]) - mean[d])
			}
		}
		for _, a := range next {
			norm += a * a
		}
		if norm == 0 { // all rows are alike
			return at
		}
		for d := range v {
			v[d] = next[d] / math.Sqrt(norm)
		}
	}
	return at
}

// start has each node tell the mean row on its left from that on its right.
func (f *fit) start(l *Shortlist) {
	n, dim := f.gate.Spec.Experts, f.x.Cols
	l.Nodes, l.NodeBias, f.squares = make([]float32, (n-1)*dim), make([]float32, n-1), make([]float64, (n-1)*(dim+1))
	count := make([]float64, 2*n-1)
	mean := make([]float64, (2*n-1)*dim)
	for q := 2*n - 2; q >= 0; q-- {
		if q >= n-1 {
			count[q] = 1
			for d := range dim {
				mean[q*dim+d] = float64(f.gate.W.F32()[int(l.Leaves[q])*dim+d])
			}
			continue
		}
		a, b := 2*q+1, 2*q+2
		count[q] = count[a] + count[b]
		for d := range dim {
			left, right := mean[a*dim+d], mean[b*dim+d]
			mean[q*dim+d] = (left*count[a] + right*count[b]) / count[q]
			l.Nodes[q*dim+d] = float32(left - right)
		}
	}
}

// pass takes a step of logistic regression at every node above a chosen expert of every row, the rows in random order: a node is to send left the
// share of the weights that lie there. Steps shrink by the gradients so far, each column by its own.
func (f *fit) pass(l *Shortlist) {
	n, k, dim := f.gate.Spec.Experts, f.gate.Spec.K, f.x.Cols
	sides := make([][2]float64, n-1)
	for _, i := range f.random.Perm(f.x.Rows) {
		var total float64
		var touched []int
		for slot, e := range f.ids[i*k : (i+1)*k] {
			if e < 0 {
				break
			}
			w := float64(f.weights[i*k+slot])
			total += w
			for q := f.leaf[e]; q > 0; q = (q - 1) / 2 {
				at := &sides[(q-1)/2]
				if *at == ([2]float64{}) {
					touched = append(touched, (q-1)/2)
				}
				at[(q-1)%2] += w
			}
		}
		x := f.row(i)
		for _, q := range touched {
			left, right := sides[q][0], sides[q][1]
			sides[q] = [2]float64{}
			if !(left+right > 0) || !(total > 0) {
				continue
			}
			t := wideDot(x, l.Nodes[q*dim:(q+1)*dim]) + float64(l.NodeBias[q])
			slope := (left + right) / total * (sigmoid(t) - left/(left+right))
			f.step(l, q, slope, x)
		}
	}
}

func (f *fit) step(l *Shortlist, q int, slope float64, x []float32) {
	dim := len(x)
	squares, row := f.squares[q*(dim+1):(q+1)*(dim+1)], l.Nodes[q*dim:(q+1)*dim]
	move := func(d int, gradient float64) float32 {
		squares[d] += float64(gradient * gradient)
		if squares[d] == 0 {
			return 0
		}
		return float32(fitRate * gradient / math.Sqrt(squares[d]))
	}
	for d, v := range x {
		row[d] -= move(d, float64(slope*float64(v)))
	}
	l.NodeBias[q] -= move(dim, slope)
}

// measure compares choices with the router's own on rows held out.
func (l *Shortlist) measure(g Gate, held tensor.Mat, ids []int32, weights []float32) (out Figures) {
	k := g.Spec.K
	o := l.Op(g, held)
	o.Reference()
	for i := range held.Rows {
		var found, whole, both, count float64
		for slot, e := range ids[i*k : (i+1)*k] {
			if e < 0 {
				break
			}
			w := math.Abs(float64(weights[i*k+slot]))
			whole, count = whole+w, count+1
			if slices.Contains(o.IDs.I32()[i*k:(i+1)*k], e) {
				found, both = found+w, both+1
			}
		}
		if whole > 0 {
			out.Recall, out.Overlap, out.Rows = out.Recall+found/whole, out.Overlap+both/count, out.Rows+1
			out.Read += float64(o.Read.I32()[2*i])
		}
	}
	mean := 1 / float64(max(out.Rows, 1))
	out.Recall, out.Overlap, out.Read = out.Recall*mean, out.Overlap*mean, out.Read*mean
	return out
}
