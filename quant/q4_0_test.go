package quant

import (
	"math"
	"math/rand/v2"
	"testing"
)

// RoundQ4_0 puts the largest magnitude on code -8 and every other value on the nearest code, of those that there are.
func TestRoundQ4_0(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 4))
	in, out, block := make([]float32, 32), make([]float32, 32), make([]byte, 18)
	for round := range 1000 {
		most := float32(0)
		for i := range in {
			in[i] = float32(r.NormFloat64() * math.Exp2(float64(round%28-12)))
			if abs(in[i]) > abs(most) {
				most = in[i]
			}
		}
		RoundQ4_0(block, in)
		decodeQ4_0(out, block)
		d := half(block)
		if off := abs(d*-8 - most); off > abs(most)/1024+8*0x1p-25 {
			t.Fatalf("round %d: %v is at %v", round, most, d*-8)
		}
		for i, v := range in {
			far := abs(d) * 1.01 / 2
			if v*d > 0 && abs(v) > abs(7*d) {
				far = abs(d) * 1.01 // beyond the last code
			}
			if abs(out[i]-v) > far {
				t.Fatalf("round %d: %v becomes %v with steps of %v", round, v, out[i], d)
			}
		}
	}
}

// What no scale fits: nothing but zeros, both signs alike, what is no number, and what is too large for a scale.
func TestRoundQ4_0Edges(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct{ in, want [4]float32 }{
		{[4]float32{}, [4]float32{}},
		{[4]float32{8, -8, 1, -1}, [4]float32{8, -7, 1, -1}},
		{[4]float32{nan, 4, -nan, -2}, [4]float32{0, 4, 0, -2}},
		{[4]float32{-inf, 1, 0, 65504}, [4]float32{-8 * 65504, 0, 0, 65504}},
		{[4]float32{0x1p-30, 0, 0, 0}, [4]float32{}},
	} {
		in, out, block := make([]float32, 32), make([]float32, 32), make([]byte, 18)
		copy(in, c.in[:])
		RoundQ4_0(block, in)
		if decodeQ4_0(out, block); [4]float32(out[:4]) != c.want {
			t.Errorf("%v becomes %v, want %v", c.in, out[:4], c.want)
		}
	}
}
