package moe

import (
	"math"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// A tally adds up over steps: choices, rows, logits that are no numbers, steps, and different experts of each step.
func TestTally(t *testing.T) {
	nan := float32(math.NaN())
	o := &Tally{
		IDs:    tensor.FromI32(3, 2, []int32{0, 2, 2, -1, 1, 3}),
		Logits: tensor.FromF32(3, 4, []float32{0, 1, nan, 3, 4, nan, nan, 7, 8, 9, nan, 1}),
		Counts: tensor.FromI32(1, 4+TallyColumns, make([]int32, 4+TallyColumns)),
		N:      tensor.HostMat("", quant.I32, 1, 1, make([]byte, 4)),
	}
	for _, rows := range []int32{2, 0, 3} {
		o.N.I32()[0] = rows
		o.Reference()
	}
	if got, want := o.Counts.I32(), []int32{2, 1, 4, 1, 5, 7, 2, 6}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
