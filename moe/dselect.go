package moe

import (
	"fmt"
	"math/bits"

	"github.com/winnow-llm/winnow/tensor"
)

// DSelectSpec is the router of DSelect-k as numbers. Each selector spells an expert's number in binary, the highest bit first: a bit is 1 with the
// smooth step of a hyperplane's distance, and an expert has the product of its bits. Selectors share the weight by a softmax over their scores.
// The mass of numbers that are no expert's is dropped, and the rest scaled to sum to 1.
type DSelectSpec struct {
	Experts   int
	Selectors int
	Gamma     float32 // width of the smooth step: see TreeSpec
	Cut       float32 // numbers whose first bits have this mass or less are not followed
}

// Bits is how many bits an expert's number has.
func (s DSelectSpec) Bits() int { return bits.Len(uint(s.Experts - 1)) }

// Check says what is wrong with selectors that a file describes.
func (s DSelectSpec) Check() error {
	if err := (TreeSpec{Experts: s.Experts, Trees: s.Selectors, Gamma: s.Gamma, Cut: s.Cut}).Check(); err != nil {
		return fmt.Errorf("selectors, as trees of one hyperplane a level: %w", err)
	}
	return nil
}

// RouteDSelect chooses experts for every row by selectors. Its matrices are in plain order on every device.
type RouteDSelect struct {
	X         tensor.Mat // rows x dim, F32: normed hidden states
	Digits    tensor.Mat // Selectors*Bits x dim, F32: hyperplanes, selector after selector; absent where one expert needs no bit
	DigitBias tensor.Mat // 1 x Selectors*Bits, F32: their offsets; may be absent
	Share     tensor.Mat // Selectors x dim, F32: scorers of the selectors
	ShareBias tensor.Mat // 1 x Selectors, F32; may be absent
	Phys      tensor.Mat // 1 x experts, I32: see ExpertMap; -1 is never chosen
	IDs       tensor.Mat // rows x K, I32: experts by falling weight, the lower id first, -1 where fewer are active
	Weights   tensor.Mat // rows x K, F32: see RouteTree
	Active    tensor.Mat // rows x 2, I32: see RouteTree
	N         tensor.Mat // 1 x 1, I32: rows in use
	Spec      DSelectSpec
}

// Reference spells the numbers that have mass.
func (o *RouteDSelect) Reference() { o.each(o.spell) }

// Dense does the same by the mass of every expert: the choices are those of Reference to the bit.
func (o *RouteDSelect) Dense() { o.each(o.every) }

// each chooses for every row; find appends the pairs of one selector, given the masses of its bits being 1 and its score.
func (o *RouteDSelect) each(find func(w *visit, ones []float64, score float64)) {
	k, dim, m := o.IDs.Cols, o.X.Cols, o.Spec.Bits()
	for i := range tensor.Live(o.N, o.X.Rows) {
		w := visit{x: o.X.F32()[i*dim : (i+1)*dim]}
		for j := range o.Spec.Selectors {
			ones := make([]float64, m)
			for b := range ones {
				ones[b] = smoothStep(w.logit(o.Digits, o.DigitBias, j*m+b), float64(o.Spec.Gamma))
			}
			find(&w, ones, w.logit(o.Share, o.ShareBias, j))
		}
		active := addUp(w.pairs, o.Spec.Experts, Choice{o.IDs.I32()[i*k : (i+1)*k], o.Weights.F32()[i*k : (i+1)*k]})
		o.Active.I32()[2*i], o.Active.I32()[2*i+1] = int32(active), int32(w.bad)
	}
}

// prefix is the first bits of a number.
type prefix struct {
	value, length int
	mass          float64
}

func (o *RouteDSelect) spell(w *visit, ones []float64, score float64) {
	stack := []prefix{{0, 0, 1}}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		first := at.value << (len(ones) - at.length) // the smallest number that begins so
		switch {
		case at.mass <= float64(o.Spec.Cut) || first >= o.Spec.Experts:
		case at.length == len(ones):
			o.take(w, pair{at.mass, score, int32(at.value)})
		default:
			s := ones[at.length]
			stack = append(stack, prefix{2*at.value + 1, at.length + 1, at.mass * s}, prefix{2 * at.value, at.length + 1, at.mass * (1 - s)})
		}
	}
}

func (o *RouteDSelect) every(w *visit, ones []float64, score float64) {
	for e := range o.Spec.Experts {
		mass := 1.0
		for b, s := range ones {
			if e>>(len(ones)-1-b)&1 == 0 {
				s = 1 - s
			}
			mass *= s
		}
		if mass > float64(o.Spec.Cut) {
			o.take(w, pair{mass, score, int32(e)})
		}
	}
}

// Saturated says whether at most twice as many experts are active as there are selectors: see RouteTree.Saturated.
func (o *RouteDSelect) Saturated() error {
	return saturated(o.Active, tensor.Live(o.N, o.X.Rows), o.Spec.Selectors)
}

func (o *RouteDSelect) take(w *visit, p pair) {
	if o.Phys.I32()[p.expert] >= 0 {
		w.add(p)
	}
}

// Operands lists inputs, selectors, map and count, then ids, factors and counts.
func (o *RouteDSelect) Operands() (in, out []*tensor.Mat) {
	in = []*tensor.Mat{&o.X, &o.Digits, &o.DigitBias, &o.Share, &o.ShareBias, &o.Phys, &o.N}
	return in, []*tensor.Mat{&o.IDs, &o.Weights, &o.Active}
}

// Cost counts one read of the selectors and of the inputs, and two operations a product.
func (o *RouteDSelect) Cost() (bytes, flops int64) {
	rows, products := int64(tensor.Live(o.N, o.X.Rows)), int64(o.Spec.Selectors*(o.Spec.Bits()+1)*o.X.Cols)
	return 4*products + rows*int64(o.X.RowBytes()), 2 * rows * products
}
