package quant

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Packed is how compressed-tensors stores a matrix of whole numbers around zero in its format "pack-quantized": codes and scales are tensors of
// their own.
//
// Layout: a row of codes is little-endian I32 words, padded to a whole one. Code i is Bits bits from bit i*Bits of the row on, and stands for the
// number code - 2^(Bits-1). A row of scales has a plain float for every Group neighbouring values. A value is number * scale.
type Packed struct {
	Bits  int     // 4 or 8
	Group int     // values that share a scale, at least 1
	Scale *Format // F32, F16 or BF16
}

// packedBlock is the values of a block of the formats that a packed row becomes.
const packedBlock = 32

// Words is how many I32 a row of cols codes takes.
func (p Packed) Words(cols int) int { return (cols*p.Bits + 31) / 32 }

// Format is the one of whole blocks that rows are unpacked to: Q4_0 or Q8_0, or F32 where groups are no whole number of its blocks.
func (p Packed) Format() *Format {
	switch {
	case p.Group%packedBlock != 0:
		return F32
	case p.Bits == 4:
		return Q4_0
	}
	return Q8_0
}

// check panics where the caller has mixed rows up.
func (p Packed) check(cols int, codes, scales []byte) {
	if p.Bits != 4 && p.Bits != 8 || p.Group < 1 || cols%p.Group != 0 || len(codes) != 4*p.Words(cols) || len(scales) != p.Scale.RowBytes(cols/p.Group) {
		panic(fmt.Sprintf("winnow: bug: quant: %d values of %d bits in groups of %d from %d and %d bytes", cols, p.Bits, p.Group, len(codes), len(scales)))
	}
}

// code is the i-th of a row as it is stored.
func (p Packed) code(codes []byte, i int) byte {
	if p.Bits == 8 {
		return codes[i]
	}
	return codes[i/2] >> (i % 2 * 4) & 15
}

// Decode restores a row: each value exactly, in float32.
func (p Packed) Decode(dst []float32, codes, scales []byte) {
	p.check(len(dst), codes, scales)
	scale := make([]float32, len(dst)/p.Group)
	p.Scale.Decode(scale, scales)
	zero := 1 << (p.Bits - 1)
	for i := range dst {
		dst[i] = float32(int(p.code(codes, i))-zero) * scale[i/p.Group]
	}
}

// Blocks makes a row of Format, which is not F32, with the same values. It says false, and dst is of no use, where a scale is none that a binary16
// has.
func (p Packed) Blocks(dst, codes, scales []byte) bool {
	f := p.Format()
	cols := len(dst) / f.Bytes * packedBlock
	p.check(cols, codes, scales)
	scale := make([]float32, cols/p.Group)
	p.Scale.Decode(scale, scales)
	for i := range cols / packedBlock {
		d := scale[i*packedBlock/p.Group]
		half := F32ToF16(d)
		if F16ToF32(half) != d || math.IsInf(float64(d), 0) { // NaN is no number either
			return false
		}
		b := dst[i*f.Bytes:][:f.Bytes]
		binary.LittleEndian.PutUint16(b, half)
		first := i * packedBlock
		if p.Bits == 8 {
			for j := range packedBlock {
				b[2+j] = codes[first+j] ^ 0x80 // number + 128 as a signed byte
			}
			continue
		}
		for j := range packedBlock / 2 {
			b[2+j] = p.code(codes, first+j) | p.code(codes, first+packedBlock/2+j)<<4
		}
	}
	return true
}

// Encode stores a row, in groups of 32, as Q4_0 or Q8_0 would, with scales that the format Scale and a binary16 have both: so that whoever
// reads it computes with the same numbers. NaN becomes 0.
func (p Packed) Encode(codes, scales []byte, src []float32) {
	p.check(len(src), codes, scales)
	if p.Group != packedBlock {
		panic(fmt.Sprintf("winnow: bug: quant: rows are packed in groups of %d, not %d", packedBlock, p.Group))
	}
	for i := range len(src) / packedBlock {
		in := finite(src[i*packedBlock:])
		var d float32
		if out := codes[i*packedBlock*p.Bits/8:]; p.Bits == 4 {
			fit := q4.fit(&in, p.round)
			d = fit.scale
			for j := range packedBlock / 2 {
				out[j] = fit.codes[2*j]&15 | fit.codes[2*j+1]<<4
			}
		} else {
			step := math.Abs(float64(extreme(in[:]))) / 127
			if p.Scale == BF16 {
				step *= 1 + 0x1p-8 // is not rounded to less, which would clip
			}
			d = p.round(step)
			inv := inverse(d)
			for j, v := range in {
				out[j] = byte(nearest(v*inv, -127, 127) + 128)
			}
		}
		p.Scale.Encode(scales[i*p.Scale.Bytes:(i+1)*p.Scale.Bytes], []float32{d})
	}
}

// round is a scale near d that a binary16 has too.
func (p Packed) round(d float64) float32 {
	h := toF16(d)
	if p.Scale != BF16 {
		return h
	}
	const most = 65280 // the largest that both have
	return min(max(BF16ToF32(F32ToBF16(h)), -most), most)
}
