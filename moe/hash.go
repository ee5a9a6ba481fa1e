package moe

import (
	"fmt"
	"math"

	"github.com/winnow-llm/winnow/tensor"
)

// RouteHash chooses experts by the token's id: a table says which, whatever the row holds, and the router's own matrix gives the weights, by
// the same function as in Route. DeepSeek-V4's first layers route so. Without a matrix every weight is Spec.Scale.
type RouteHash struct {
	X       tensor.Mat // rows x dim, F32: normed hidden states
	Tokens  tensor.Mat // rows x 1, I32: ids of the vocabulary
	Table   tensor.Mat // vocabulary x K, I32: the experts of each token, -1 = none
	W       tensor.Mat // experts x dim, F32 in plain order on every device; may be absent
	Bias    tensor.Mat // 1 x experts, F32: part of the logits; may be absent
	Phys    tensor.Mat // 1 x experts, I32: see ExpertMap; -1 is never chosen
	Logits  tensor.Mat // rows x experts, F32: written where there is a matrix
	IDs     tensor.Mat // rows x K, I32: experts in the table's order, -1 where fewer are left
	Weights tensor.Mat // rows x K, F32: their factors, 0 beside -1
	N       tensor.Mat // 1 x 1, I32: rows in use
	Spec    RouterSpec // K columns of the table; groups do not count
}

// CheckTable says what is wrong with a table of experts for a router.
func (s RouterSpec) CheckTable(table []int32) error {
	for i, e := range table {
		if e < -1 || int(e) >= s.Experts {
			return fmt.Errorf("token %d leads to expert %d of %d", i/s.K, e, s.Experts)
		}
	}
	return nil
}

// Reference looks each row's token up.
func (o *RouteHash) Reference() {
	n, k, dim, bias := o.Spec.Experts, o.Spec.K, o.X.Cols, floats(o.Bias)
	flat := make([]float32, n)
	for i := range tensor.Live(o.N, o.X.Rows) {
		logits := flat
		if o.W.Present() {
			logits = o.Logits.F32()[i*n : (i+1)*n]
			for e := range logits {
				z := wideDot(o.X.F32()[i*dim:(i+1)*dim], o.W.F32()[e*dim:(e+1)*dim])
				if bias != nil {
					z += float64(bias[e])
				}
				logits[e] = float32(z)
			}
		}
		token := int(o.Tokens.I32()[i])
		out := Choice{o.IDs.I32()[i*k : (i+1)*k], o.Weights.F32()[i*k : (i+1)*k]}
		o.choose(logits, o.Table.I32()[token*k:(token+1)*k], out)
	}
}

// choose takes those of the token's experts that can be chosen.
func (o *RouteHash) choose(logits []float32, token []int32, out Choice) {
	z, _ := live(logits, o.Phys.I32())
	next := 0
	for i := range out.IDs {
		out.IDs[i], out.Weights[i] = -1, 0
	}
	for _, e := range token {
		if e >= 0 && !math.IsInf(z[e], -1) {
			out.IDs[next] = e
			next++
		}
	}
	if o.W.Present() {
		o.Spec.weigh(o.Spec.factors(z, o.Spec.scores(z), out.IDs), out.Weights)
		return
	}
	for i := range next {
		out.Weights[i] = o.Spec.Scale
	}
}

// Operands lists inputs, table, gate, map and count, then logits, ids and factors.
func (o *RouteHash) Operands() (in, out []*tensor.Mat) {
	return []*tensor.Mat{&o.X, &o.Tokens, &o.Table, &o.W, &o.Bias, &o.Phys, &o.N}, []*tensor.Mat{&o.Logits, &o.IDs, &o.Weights}
}

// Cost counts one read of the gate and of the inputs, and two operations a product.
func (o *RouteHash) Cost() (bytes, flops int64) {
	rows := int64(tensor.Live(o.N, o.X.Rows))
	if !o.W.Present() {
		return 8 * rows * int64(o.Spec.K), 0
	}
	return int64(o.W.Bytes()) + rows*int64(o.X.RowBytes()), 2 * rows * int64(o.W.Rows) * int64(o.W.Cols)
}
