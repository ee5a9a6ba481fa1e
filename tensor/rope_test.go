package tensor

import (
	"math"
	"slices"
	"testing"
)

// A quarter turn takes (u, v) to (-v, u).
func TestRopePairs(t *testing.T) {
	for _, c := range []struct {
		pairs Pairing
		want  []float32
	}{
		{Halves, []float32{-3, -4, 1, 2, 5}},
		{Neighbours, []float32{-2, 1, -4, 3, 5}},
	} {
		o := Rope{X: FromF32(1, 5, []float32{1, 2, 3, 4, 5}), Angles: FromF32(1, 4, []float32{0, 0, 1, 1}), Heads: 1, Pairs: c.pairs}
		o.Reference()
		if have := o.X.F32(); !slices.Equal(have, c.want) {
			t.Errorf("%s: %v, want %v", c.pairs, have, c.want)
		}
	}
}

// Every head of a row turns by the row's angle.
func TestRopeHeadsShareTheAngle(t *testing.T) {
	o := Rope{X: FromF32(4, 2, []float32{1, 0, 1, 0, 1, 0, 1, 0}), Angles: FromF32(2, 2, []float32{1, 0, 0, 1}), Heads: 2, Pairs: Halves}
	o.Reference()
	if have, want := o.X.F32(), []float32{1, 0, 1, 0, 0, 1, 0, 1}; !slices.Equal(have, want) {
		t.Errorf("%v, want %v", have, want)
	}
}

// The product of a query and a key depends on the distance between them alone.
func TestRopeIsRelative(t *testing.T) {
	product := func(i, j int32) float64 {
		freq, angles := FromF32(1, 2, []float32{1, 0.1}), FromF32(2, 4, make([]float32, 8))
		table := Angles{Pos: FromI32(2, 1, []int32{i, j}), Freq: freq, Y: angles, Scale: 1}
		table.Reference()
		o := Rope{X: FromF32(2, 4, []float32{1, -2, 0.5, 3, 2, 1, -1, 0.25}), Angles: angles, Heads: 1, Pairs: Halves}
		o.Reference()
		x := o.X.F32()
		return float64(dot(x[:4], x[4:]))
	}
	if a, b := product(3, 10), product(503, 510); math.Abs(a-b) > 1e3*Roundoff {
		t.Errorf("distance 7 gives %v and, further on, %v", a, b)
	}
	if a, b := product(3, 10), product(3, 11); math.Abs(a-b) < 1e3*Roundoff {
		t.Error("distances 7 and 8 give the same")
	}
}
