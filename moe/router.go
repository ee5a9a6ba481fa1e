// Package moe chooses experts and runs them: the router, the map from router rows to the experts that exist, the banks that hold
// them, the plan that groups tokens by expert, and the expert network itself.
package moe

import (
	"fmt"
	"math"
	"slices"

	"github.com/winnow-llm/winnow/tensor"
)

// Score turns router logits into scores.
type Score string

// The scores of published routers.
const (
	Softmax      Score = "softmax"
	Sigmoid      Score = "sigmoid"
	SqrtSoftplus Score = "sqrt-softplus"
	Identity     Score = "identity"
)

// Weight says where an expert's factor comes from.
type Weight string

// The factors of published routers.
const (
	FromScore   Weight = "score"         // the chosen experts' scores
	SoftmaxTopK Weight = "softmax-top-k" // a softmax over the chosen experts' logits
	SigmoidTopK Weight = "sigmoid-top-k" // sigmoids of the chosen experts' logits
	SparseMixer Weight = "sparse-mixer"  // each pick's share in a softmax over what is left of the logits that are as good as it: see Band
)

// GroupScore says how a group of experts is judged.
type GroupScore string

// The judgements of published routers: the best expert's score, or the sum of the two best.
const (
	GroupMax     GroupScore = "max"
	GroupTop2Sum GroupScore = "top-2-sum"
)

// RouterSpec is a top-k router as numbers: one function with fields covers every top-k family.
//
//	z = logits, -inf where pruned or no number; s = score(z); u = s + selection bias, -inf where z is; keep the best groups of u;
//	ids = K largest of u, ties to the lower id; w = weight(ids); w /= sum w + eps if Norm; w *= Scale
//
// A family that norms its hidden states once more before the router has a tensor.Norm in front.
type RouterSpec struct {
	Experts    int // router rows
	K          int // experts a token
	Score      Score
	Weight     Weight
	Groups     int // groups of neighbouring experts of which GroupsKept may be chosen from; 0 or 1 = no groups
	GroupsKept int
	GroupScore GroupScore
	Norm       bool    // weights of a token sum to Scale
	NormMinK   int     // Norm applies from this K on: 2 in DeepSeek-V3's code, 1 elsewhere
	NormEps    float32 // added to the sum
	Scale      float32 // factor of all weights
	Band       float32 // of SparseMixer: logits within 2*Band of a pick, as a share of the larger magnitude, are as good as it; Phi-3.5 has 0.01
}

// Check says what is wrong with a router that a file describes.
func (s RouterSpec) Check() error {
	switch {
	case s.Experts < 1 || s.Experts > MostExperts:
		return fmt.Errorf("%d experts, want 1 to %d", s.Experts, MostExperts)
	case s.K < 1 || s.K > s.Experts || s.K > MostActive:
		return fmt.Errorf("%d of %d experts active, want 1 to %d", s.K, s.Experts, min(s.Experts, MostActive))
	case s.Groups > 1 && (s.Experts%s.Groups != 0 || s.GroupsKept < 1 || s.GroupsKept > s.Groups):
		return fmt.Errorf("%d experts in %d groups of which %d are kept", s.Experts, s.Groups, s.GroupsKept)
	case s.Groups > 1 && s.K > s.GroupsKept*(s.Experts/s.Groups):
		return fmt.Errorf("%d experts active out of %d groups of %d", s.K, s.GroupsKept, s.Experts/s.Groups)
	case s.Score == "" || s.Weight == "":
		return fmt.Errorf("score %q, weight %q: both must be named", s.Score, s.Weight)
	case s.Weight == SparseMixer && !(s.Band >= 0 && s.Band < 1):
		return fmt.Errorf("a band of %v around each pick, want 0 to 1", s.Band)
	}
	return nil
}

// Limits of a layer, above every published model.
const (
	MostExperts = 1024
	MostActive  = 64
)

// Route chooses experts for every row. The router works in float32 whatever the rest of the model does: near ties flip otherwise.
type Route struct {
	X       tensor.Mat // rows x dim, F32: normed hidden states
	W       tensor.Mat // experts x dim, F32, as the device loads weights
	Bias    tensor.Mat // 1 x experts, F32: part of the logits; may be absent
	Select  tensor.Mat // 1 x experts, F32: added to scores for the choice only; may be absent
	Phys    tensor.Mat // 1 x experts, I32: see ExpertMap; -1 is never chosen
	Logits  tensor.Mat // rows x experts, F32: written, for who wants to see them
	IDs     tensor.Mat // rows x K, I32: router rows by falling score, -1 where fewer are left
	Weights tensor.Mat // rows x K, F32: their factors, 0 beside -1
	N       tensor.Mat // 1 x 1, I32: rows in use
	Spec    RouterSpec

	Wish  tensor.Mat // wishes x WishK+layers, F32: with how few experts tokens make do; may be absent
	Of    tensor.Mat // rows x 1, I32: a row's line of Wish, counted from 1, 0 = the model's own; absent where Wish is
	Mass  tensor.Mat // rows x 1, F32: share of the K experts' factors that Wish leaves; may be absent
	Layer int        // which of the layers of Wish this is
}

// Reference routes row by row.
func (o *Route) Reference() {
	n, k, dim := o.Spec.Experts, o.Spec.K, o.X.Cols
	bias, choice := floats(o.Bias), floats(o.Select)
	for i := range tensor.Live(o.N, o.X.Rows) {
		x, z := o.X.F32()[i*dim:(i+1)*dim], o.Logits.F32()[i*n:(i+1)*n]
		for e := range z {
			var sum float64
			for d, v := range o.W.F32()[e*dim : (e+1)*dim] {
				sum += float64(v) * float64(x[d])
			}
			z[e] = float32(sum)
			if bias != nil {
				z[e] += bias[e]
			}
		}
		out := Choice{o.IDs.I32()[i*k : (i+1)*k], o.Weights.F32()[i*k : (i+1)*k]}
		share, _ := o.Spec.choose(z, choice, o.Phys.I32(), out, o.wish(i))
		if o.Mass.Present() {
			o.Mass.F32()[i] = float32(share)
		}
	}
}

// floats are the values of an operand that may be absent: nil if it is.
func floats(m tensor.Mat) []float32 {
	if !m.Present() {
		return nil
	}
	return m.F32()
}

// Choice receives the K chosen experts of one token.
type Choice struct {
	IDs     []int32
	Weights []float32
}

// Choose is the router on one row of logits. The selection bias may be nil; phys is an ExpertMap's. It gives how many logits of live experts
// are NaN or +inf; they count as -inf, and experts of -inf are never chosen.
func (s RouterSpec) Choose(logits, bias []float32, phys []int32, out Choice) (bad int) {
	_, bad = s.choose(logits, bias, phys, out, Wish{})
	return bad
}

// choose is Choose under a wish, and gives the share of the K experts' factors that the wish leaves too.
func (s RouterSpec) choose(logits, bias []float32, phys []int32, out Choice, wish Wish) (share float64, bad int) {
	z, bad := live(logits, phys)
	score := s.scores(z)
	u := append([]float64(nil), score...)
	for e := range u {
		if bias != nil {
			u[e] += float64(bias[e])
		}
		if math.IsInf(z[e], -1) || u[e] != u[e] {
			u[e] = math.Inf(-1)
		}
	}
	s.keepGroups(u)
	for i := range out.IDs {
		out.IDs[i], out.Weights[i] = -1, 0
		if e := largest(u); !math.IsInf(u[e], -1) {
			out.IDs[i] = int32(e)
			u[e] = math.Inf(-1)
		}
	}
	if share = 1; wish != (Wish{}) {
		share = s.drop(z, score, out, wish)
	}
	s.weigh(s.factors(z, score, out.IDs), out.Weights)
	return share, bad
}

// live is a row of logits, -inf where an expert is pruned or its logit is bad, and how many are bad.
func live(logits []float32, phys []int32) (z []float64, bad int) {
	z = make([]float64, len(logits))
	for e, v := range logits {
		z[e] = float64(v)
		switch {
		case phys[e] < 0:
			z[e] = math.Inf(-1)
		case v != v || math.IsInf(z[e], 1):
			z[e] = math.Inf(-1)
			bad++
		}
	}
	return z, bad
}

// drop takes the experts out that a wish does without; those that stay close up.
func (s RouterSpec) drop(z, score []float64, out Choice, wish Wish) (share float64) {
	kept, share := wish.keep(s.factors(z, score, out.IDs))
	left := 0
	for i, ok := range kept {
		if ok {
			out.IDs[left] = out.IDs[i]
			left++
		}
	}
	for i := left; i < len(out.IDs); i++ {
		out.IDs[i] = -1
	}
	return share
}

func (s RouterSpec) scores(z []float64) []float64 {
	out := make([]float64, len(z))
	switch s.Score {
	case Softmax:
		softmax(out, z)
	case Sigmoid:
		for e, v := range z {
			out[e] = sigmoid(v)
		}
	case SqrtSoftplus:
		for e, v := range z {
			out[e] = math.Sqrt(max(v, 0) + math.Log1p(math.Exp(-math.Abs(v))))
		}
	case Identity:
		copy(out, z)
	default:
		panic("winnow: bug: moe: score " + string(s.Score))
	}
	return out
}

// keepGroups sets the scores of all but the best groups to -inf. A group without live experts is worst.
func (s RouterSpec) keepGroups(u []float64) {
	if s.Groups <= 1 {
		return
	}
	size := len(u) / s.Groups
	judged := make([]float64, s.Groups)
	for g := range judged {
		best, second := math.Inf(-1), math.Inf(-1)
		for _, v := range u[g*size : (g+1)*size] {
			if v > best {
				best, second = v, best
			} else if v > second {
				second = v
			}
		}
		judged[g] = best
		if s.GroupScore == GroupTop2Sum && !math.IsInf(second, -1) {
			judged[g] += second
		}
	}
	kept := make([]bool, s.Groups)
	for range s.GroupsKept {
		g := largest(judged)
		kept[g], judged[g] = true, math.Inf(-1)
	}
	for e := range u {
		if !kept[e/size] {
			u[e] = math.Inf(-1)
		}
	}
}

// factors are those of the chosen experts before norm.
func (s RouterSpec) factors(z, score []float64, ids []int32) []float64 {
	if s.Weight == SparseMixer {
		z = slices.Clone(z) // picks are taken out
	}
	w := make([]float64, 0, len(ids))
	for _, e := range ids {
		if e < 0 {
			break
		}
		switch s.Weight {
		case SigmoidTopK:
			w = append(w, sigmoid(z[e]))
		case SoftmaxTopK:
			w = append(w, z[e])
		case SparseMixer:
			w = append(w, band(z, int(e), float64(s.Band)))
			z[e] = math.Inf(-1)
		default:
			w = append(w, score[e])
		}
	}
	if s.Weight == SoftmaxTopK {
		softmax(w, w)
	}
	return w
}

// weigh writes factors with their norm and scale.
func (s RouterSpec) weigh(w []float64, out []float32) {
	factor := float64(s.Scale)
	if s.Norm && s.K >= s.NormMinK {
		sum := float64(s.NormEps)
		for _, v := range w {
			sum += v
		}
		if sum > 0 { // else all are 0
			factor /= sum
		}
	}
	for i, v := range w {
		out[i] = float32(v * factor)
	}
}

// band is the share of expert e in a softmax over the logits that are as good as its own.
func band(z []float64, e int, width float64) float64 {
	var sum float64
	for _, v := range z {
		if !math.IsInf(v, -1) && z[e]-v <= 2*width*max(math.Abs(v), z[e]) {
			sum += math.Exp(v - z[e])
		}
	}
	return 1 / sum
}

func softmax(dst, z []float64) {
	if len(z) == 0 {
		return
	}
	top, sum := z[largest(z)], 0.0
	if math.IsInf(top, -1) { // nothing to choose from
		clear(dst)
		return
	}
	for i, v := range z {
		dst[i] = math.Exp(v - top)
		sum += dst[i]
	}
	for i := range dst {
		dst[i] /= sum
	}
}

func sigmoid(v float64) float64 { return 1 / (1 + math.Exp(-v)) }

// largest is the index of the largest value, the lowest on ties.
func largest(v []float64) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}

// Operands lists inputs, weights, biases, map, wishes and count, then logits, ids, factors and shares.
func (o *Route) Operands() (in, out []*tensor.Mat) {
	in = []*tensor.Mat{&o.X, &o.W, &o.Bias, &o.Select, &o.Phys, &o.Wish, &o.Of, &o.N}
	return in, []*tensor.Mat{&o.Logits, &o.IDs, &o.Weights, &o.Mass}
}

// Cost counts one read of weights and inputs, and two operations a product.
func (o *Route) Cost() (bytes, flops int64) {
	rows := int64(tensor.Live(o.N, o.X.Rows))
	return int64(o.W.Bytes()) + rows*int64(o.X.RowBytes()+o.Logits.RowBytes()), 2 * rows * int64(o.W.Rows) * int64(o.W.Cols)
}
