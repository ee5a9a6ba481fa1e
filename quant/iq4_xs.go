package quant

import (
	"encoding/binary"
	"math"
)

// IQ4_XS keeps 256 values as IQ4_NL codes in 8 sub-blocks of 32, each with a 6-bit scale around zero: 4.25 bits a value.
//
// Layout: 136 bytes. d, binary16, at 0; the upper 2 bits of the scales, 2 bytes little-endian, at 2: bits 2b and 2b+1
// belong to sub-block b; their low 4 bits, 4 bytes, at 4: sub-block 2i has the low nibble of byte i, 2i+1 the high one;
// 128 code bytes at 8, 16 a sub-block, with the nibbles of IQ4_NL. A value is d * (scale-32) * level[code].
var IQ4_XS = register(Format{Name: "IQ4_XS", Block: 256, Bytes: 136, Encode: encodeIQ4_XS, Decode: decodeIQ4_XS})

func decodeIQ4_XS(dst []float32, src []byte) {
	for range blocks("IQ4_XS", len(dst), 256, len(src), 136) {
		d, upper := half(src), binary.LittleEndian.Uint16(src[2:])
		for b := range 8 {
			s := int(src[4+b/2]>>(4*(b&1))&15) | int(upper>>(2*b)&3)<<4
			iq4.decode(dst[32*b:][:32], src[8+16*b:][:16], d*float32(s-32))
		}
		dst, src = dst[256:], src[136:]
	}
}

// encodeIQ4_XS fits the sub-blocks on their own first. Then d puts the largest of their scales on whole numbers near the
// end of the range, each sub-block takes the best scale around its own, and d is refitted to the codes.
func encodeIQ4_XS(dst []byte, src []float32) {
	for range blocks("IQ4_XS", len(src), 256, len(dst), 136) {
		var in [8][32]float32
		var scales [8]float32
		for b := range in {
			in[b] = finite(src[32*b:])
			scales[b] = iq4.fit(&in[b], func(d float64) float32 { return float32(d) }).scale
		}
		found := iq4xs{err: math.Inf(1)}
		e := float64(extreme(scales[:]))
		for s := -32; s <= -24; s++ {
			if found.try(&in, &scales, toF16(e/float64(s))) {
				found.try(&in, &scales, toF16(found.refit(&in)))
			}
		}
		found.store(dst)
		src, dst = src[256:], dst[136:]
	}
}

// iq4xs is the block with the least squared error of those tried so far.
type iq4xs struct {
	d      float32
	scales [8]int // -32..31
	codes  [8]codes
	err    float64
}

// try gives each sub-block the best of the three scales around the one it wants, and keeps the result if it beats those
// before.
func (s *iq4xs) try(in *[8][32]float32, want *[8]float32, d float32) bool {
	t := iq4xs{d: d}
	for i := range in {
		b := scaled{err: math.Inf(1)}
		near := nearest(want[i]*inverse(d), -32, 31)
		for k := max(near-1, -32); k <= min(near+1, 31); k++ {
			if b.try(iq4, &in[i], d*float32(k)) {
				t.scales[i] = k
			}
		}
		t.codes[i] = b.codes
		if t.err += b.err; t.err >= s.err {
			return false
		}
	}
	*s = t
	return true
}

// refit is the d with the least squared error for the scales and codes found.
func (s *iq4xs) refit(in *[8][32]float32) float64 {
	var xq, qq float64
	for b := range in {
		for i, v := range in[b] {
			q := float64(s.scales[b]) * float64(iq4.levels[s.codes[b][i]])
			xq += float64(float64(v) * q)
			qq += q * q // whole numbers
		}
	}
	if qq == 0 {
		return 0
	}
	return xq / qq
}

func (s *iq4xs) store(dst []byte) {
	var upper uint16
	binary.LittleEndian.PutUint16(dst, F32ToF16(s.d))
	clear(dst[4:8])
	for b, k := range s.scales {
		u := uint16(k + 32)
		upper |= u >> 4 << (2 * b)
		dst[4+b/2] |= byte(u&15) << (4 * (b & 1))
		s.codes[b].nibbles(dst[8+16*b:][:16])
	}
	binary.LittleEndian.PutUint16(dst[2:], upper)
}
