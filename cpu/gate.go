//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"fmt"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

func fillGateKeys(e *entry, o *attention.GateKeys) {
	c, l, t := o.Cache, o.Layout, &o.Layout.Tiles
	pages := l.Pages[o.Lane]
	e.runs(e.kernels.gate_keys)
	e.operands(c.K, o.W, o.Norm, o.Keys, o.Tails, o.Model.Freq, o.Gate.Freq, t.First, t.N, t.Policy, l.Pos, l.Seq, pages,
		*l.Own(c, o.Lane))
	e.numbers(t.Policy.Rows, c.Heads, c.Dim, c.Stride, stored(c), pages.Cols, o.W.Rows/(3*c.Dim), o.W.Cols, brain(o.W), o.Model.Freq.Cols,
		halves(o.Model), o.Gate.Freq.Cols, halves(o.Gate), o.Serves, o.Late)
	e.floats(o.Model.Scale, o.Gate.Scale)
}

func fillGateQueries(e *entry, o *attention.GateQueries) {
	t := &o.Layout.Tiles
	each := o.Q.Cols / o.Heads
	if !o.W.Present() && each != o.Y.Cols {
		panic(fmt.Sprintf("winnow: bug: cpu: a gate of width %d without a projection from %d", o.Y.Cols, each))
	}
	e.runs(e.kernels.gate_queries)
	e.operands(o.Q, o.W, o.Norm, o.Y, o.Gate.Freq, t.First, t.N, t.Policy, o.Layout.Pos)
	e.numbers(t.Policy.Rows, o.Heads, each, o.Y.Cols, brain(o.W), o.Gate.Freq.Cols, halves(o.Gate), o.Serves, o.Whole)
	e.floats(o.Gate.Scale)
}

// brain is 1 for a matrix of BF16, 0 for one of F32 or none.
func brain(m tensor.Mat) int {
	switch {
	case !m.Present() || m.Format == quant.F32:
		return 0
	case m.Format == quant.BF16:
		return 1
	}
	panic(fmt.Sprintf("winnow: bug: cpu: a gate of %s", m))
}

// halves is 1 where value i turns with value i + pairs.
func halves(r attention.Rotation) int {
	if r.Pairs == tensor.Halves {
		return 1
	}
	return 0
}
