package attention

import (
	"math"
	"testing"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Two heads look at keys 0 and 1, of scores 0 and 0 in the first head, 0 and ln 3 in the second; the plan reads key 1 only.
func TestReceiptsByHand(t *testing.T) {
	d := tensor.Reference()
	caches, err := NewCaches(d, 1, []Shape{{Heads: 1, Dim: 1, Format: quant.F32}})
	if err != nil {
		t.Fatal(err)
	}
	caches[0].K.F32()[1] = 1
	one := func(v ...int32) tensor.Mat { return tensor.FromI32(len(v), 1, v) }
	l := &Layout{Pages: []tensor.Mat{one(0)}, Seq: one(0), Pos: one(1), Rows: one(1)}
	plan := &Plan{Sink: one(0), Local: one(1), Groups: 1}
	probe := &Probe{
		Q: tensor.FromF32(1, 2, []float32{0, float32(math.Log(3))}), Rows: one(0), N: one(1), Y: tensor.FromF32(1, 2, make([]float32, 2)),
		Cache: caches[0], Plan: plan, Layout: l, Heads: 2, Scale: 1,
	}
	probe.Reference()
	if y := probe.Y.F32(); y[0] != 0.5 || math.Abs(float64(y[1])-0.75) > 1e-6 {
		t.Errorf("key 1 has %v of the mass, want 0.5 and 0.75", y)
	}
	count := &Count{Y: tensor.FromF32(1, 2, []float32{10, 100}), Plan: plan, Layout: l, Heads: 2}
	count.Reference()
	if y := count.Y.F32(); y[0] != 12 || y[1] != 104 {
		t.Errorf("%v keys read and visible, want 2 and 4 added to 10 and 100", y)
	}
}
