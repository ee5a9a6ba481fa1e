package quant

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestPacked packs rows, with scales that are tiny, huge and nothing: as blocks and as floats they are the same values, near those that they were.
func TestPacked(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, scale := range []*Format{F32, F16, BF16} {
		for _, bits := range []int{4, 8} {
			p := Packed{Bits: bits, Group: 32, Scale: scale}
			for _, by := range []float64{1, 1e-3, 1e-6, 3e-8, 0, 7e4, 1e7, math.Inf(1), math.NaN()} {
				row := make([]float32, 96)
				for i := range row {
					row[i] = float32(r.NormFloat64() * by)
				}
				codes, scales := make([]byte, 4*p.Words(96)), make([]byte, 3*scale.Bytes)
				p.Encode(codes, scales, row)
				blocks, got, exact := make([]byte, p.Format().RowBytes(96)), make([]float32, 96), make([]float32, 96)
				if !p.Blocks(blocks, codes, scales) {
					t.Fatalf("%s, %d bits, values of %v: a scale that a binary16 has not", scale, bits, by)
				}
				p.Format().Decode(got, blocks)
				if p.Decode(exact, codes, scales); !slices.Equal(got, exact) {
					t.Fatalf("%s, %d bits, values of %v: %v in blocks, %v in floats", scale, bits, by, got, exact)
				}
				if by != 1 && by != 1e-3 {
					continue
				}
				own := make([]byte, len(blocks))
				p.Format().Encode(own, row)
				p.Format().Decode(exact, own)
				if a, b := squared(got, row), squared(exact, row); a > 1.3*b { // of 96 values: their rounding is chance
					t.Errorf("%s, %d bits: squared error %v, of the format itself %v", scale, bits, a, b)
				}
			}
		}
	}
}

func squared(a, b []float32) (sum float64) {
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return sum
}

// A scale that no binary16 is, or none at all, is refused, and rows whose groups are no blocks are floats.
func TestPackedOtherScales(t *testing.T) {
	for _, d := range []float32{1e-9, 1e6, 1.0001, float32(math.Inf(-1)), float32(math.NaN())} {
		p, scales := Packed{Bits: 4, Group: 64, Scale: F32}, make([]byte, 4)
		F32.Encode(scales, []float32{d})
		if p.Blocks(make([]byte, 2*Q4_0.Bytes), make([]byte, 32), scales) {
			t.Errorf("%v is no binary16", d)
		}
	}
	if f := (Packed{Bits: 8, Group: 16, Scale: F16}).Format(); f != F32 {
		t.Errorf("groups of 16 in %s", f)
	}
}
