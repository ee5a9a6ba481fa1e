package moe

import (
	"fmt"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// DispatchPlan groups the rows of a step by physical expert: each expert runs over its rows at once. It is plain data on the
// device, of fixed capacity, and one plan serves all layers, which run in order.
//
// Dispatched rows of expert e are Offset[e] to Offset[e+1]; within an expert they keep the order of the batch. Worked example: ids
// [[3,6],[1,3],[6,-1],[3,1]] of 8 experts give offsets 0 0 2 2 5 5 5 7 7 and tokens 1 3 0 1 3 0 2.
type DispatchPlan struct {
	Offset tensor.Mat // experts+1 x 1, I32
	Token  tensor.Mat // rows*K x 1, I32: the batch row of each dispatched row
	Place  tensor.Mat // rows x K, I32: the dispatched row of each choice, -1 = unused
	Weight tensor.Mat // rows x K, F32: the factor of each choice, merged experts added up
}

// Extent says how large a plan must be.
type Extent struct{ Rows, K, Experts int }

// NewDispatchPlan allocates a plan on a device.
func NewDispatchPlan(d tensor.Device, e Extent) (*DispatchPlan, error) {
	var p DispatchPlan
	for _, m := range []struct {
		mat        *tensor.Mat
		format     *quant.Format
		rows, cols int
	}{
		{&p.Offset, quant.I32, e.Experts + 1, 1}, {&p.Token, quant.I32, e.Rows * e.K, 1},
		{&p.Place, quant.I32, e.Rows, e.K}, {&p.Weight, quant.F32, e.Rows, e.K},
	} {
		var err error
		if *m.mat, err = tensor.NewMat(d, m.format, m.rows, m.cols); err != nil {
			return nil, fmt.Errorf("dispatch plan: %w", err)
		}
	}
	return &p, nil
}

// For is the plan's memory as a layer of k choices a row sees it; k is at most what the plan was made for.
func (p *DispatchPlan) For(k int) *DispatchPlan {
	q := *p
	q.Place.Cols, q.Weight.Cols = k, k
	return &q
}

// Free gives the plan's memory back to its device.
func (p *DispatchPlan) Free(d tensor.Device) {
	for _, m := range p.operands() {
		d.Free(m.Buf)
	}
}

func (p *DispatchPlan) operands() []*tensor.Mat {
	return []*tensor.Mat{&p.Offset, &p.Token, &p.Place, &p.Weight}
}

// Dispatch builds the plan of a layer from its router's choices. Choices of one row that lead to the same physical expert become one:
// their factors add up in the first slot, the others are unused, as are those of a pruned row.
type Dispatch struct {
	IDs     tensor.Mat // rows x K, I32: router rows, -1 = none
	Weights tensor.Mat // rows x K, F32
	Phys    tensor.Mat // 1 x experts, I32: see ExpertMap
	Plan    *DispatchPlan
	N       tensor.Mat // 1 x 1, I32: rows in use
	Experts int        // physical experts; Plan.Offset has at least one row more
}

// Reference is a counting sort.
func (o *Dispatch) Reference() {
	k, rows := o.IDs.Cols, tensor.Live(o.N, o.IDs.Rows)
	ids, weights, phys := o.IDs.I32(), o.Weights.F32(), o.Phys.I32()
	place, factor, offset, token := o.Plan.Place.I32(), o.Plan.Weight.F32(), o.Plan.Offset.I32(), o.Plan.Token.I32()
	clear(offset)
	for i := range rows * k {
		place[i], factor[i] = -1, 0
		if ids[i] < 0 || phys[ids[i]] < 0 {
			continue
		}
		expert, slot := phys[ids[i]], i
		for j := i - i%k; j < i; j++ {
			if place[j] == expert {
				slot = j
				break
			}
		}
		factor[slot] += weights[i]
		if slot == i {
			place[i] = expert
			offset[expert+1]++
		}
	}
	for e := range o.Experts {
		offset[e+1] += offset[e]
	}
	next := append([]int32(nil), offset...)
	for i := range rows * k {
		if expert := place[i]; expert >= 0 {
			place[i] = next[expert]
			token[place[i]] = int32(i / k)
			next[expert]++
		}
	}
}

// Operands lists choices, map and count, then the plan.
func (o *Dispatch) Operands() (in, out []*tensor.Mat) {
	return []*tensor.Mat{&o.IDs, &o.Weights, &o.Phys, &o.N}, o.Plan.operands()
}

// Cost counts one read of the choices and one write of the plan.
func (o *Dispatch) Cost() (bytes, flops int64) {
	n := int64(tensor.Live(o.N, o.IDs.Rows) * o.IDs.Cols)
	return 20 * n, 4 * n
}
