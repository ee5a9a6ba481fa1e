package quant

import (
	"encoding/binary"
	"fmt"
	"math"
)

// F32 keeps values as they are.
//
// Layout: one value in 4 bytes, IEEE binary32, little-endian.
var F32 = register(Format{Name: "F32", Block: 1, Bytes: 4, Encode: encodeF32, Decode: decodeF32})

// F16 keeps 11 significant bits and magnitudes up to 65504; what is larger becomes infinite.
//
// Layout: one value in 2 bytes, IEEE binary16, little-endian.
var F16 = register(Format{Name: "F16", Block: 1, Bytes: 2, Encode: encodeF16, Decode: decodeF16})

// BF16 keeps 8 significant bits and the range of F32.
//
// Layout: one value in 2 bytes, the high half of an IEEE binary32, little-endian.
var BF16 = register(Format{Name: "BF16", Block: 1, Bytes: 2, Encode: encodeBF16, Decode: decodeBF16})

// F16ToF32 restores a binary16 value; every one of them is exact in float32. NaN keeps its payload.
func F16ToF32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := h>>10&31, uint32(h&0x3ff)
	switch exp {
	case 0: // zero or subnormal: frac * 2^-24, which is normal in float32
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-24))
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (uint32(exp)+112)<<23 | frac<<13)
}

// F32ToF16 rounds to the nearest binary16, ties to even. What rounds past 65504 becomes infinite; NaN is quieted.
func F32ToF16(f float32) uint16 {
	bits := math.Float32bits(f)
	sign, mag := uint16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case mag > 0x7f800000:
		return sign | 0x7e00 | uint16(mag>>13&0x1ff)
	case mag >= 0x47800000: // 2^16 and above, infinity
		return sign | 0x7c00
	case mag < 0x38800000: // below 2^-14: a whole number of 2^-24; adding 1/2 makes the FPU round there
		r := math.Float32frombits(mag) + 0.5
		return sign | uint16(math.Float32bits(r)-0x3f000000)
	}
	mag += 0xfff + mag>>13&1 // rounds the 13 bits to drop; a carry moves into the exponent, and 65520 to infinity
	return sign | uint16(mag>>13-112<<10)
}

// BF16ToF32 restores a bfloat16 value.
func BF16ToF32(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// F32ToBF16 rounds to the nearest bfloat16, ties to even; NaN is quieted.
func F32ToBF16(f float32) uint16 {
	bits := math.Float32bits(f)
	if bits&0x7fffffff > 0x7f800000 {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// blocks is the number of blocks that count values and size bytes hold; a caller that mixes them up has a bug.
func blocks(name string, count, block, size, bytes int) int {
	n := count / block
	if count%block != 0 || size < n*bytes {
		panic(fmt.Sprintf("winnow: bug: quant: %s: %d values and %d bytes do not match", name, count, size))
	}
	return n
}

func encodeF32(dst []byte, src []float32) {
	blocks("F32", len(src), 1, len(dst), 4)
	for i, v := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

func decodeF32(dst []float32, src []byte) {
	blocks("F32", len(dst), 1, len(src), 4)
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func encodeF16(dst []byte, src []float32) {
	blocks("F16", len(src), 1, len(dst), 2)
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F32ToF16(v))
	}
}

func decodeF16(dst []float32, src []byte) {
	blocks("F16", len(dst), 1, len(src), 2)
	for i := range dst {
		dst[i] = F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func encodeBF16(dst []byte, src []float32) {
	blocks("BF16", len(src), 1, len(dst), 2)
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F32ToBF16(v))
	}
}

func decodeBF16(dst []float32, src []byte) {
	blocks("BF16", len(dst), 1, len(src), 2)
	for i := range dst {
		dst[i] = BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

// half reads the binary16 at the start of b: the scales of all block formats.
func half(b []byte) float32 { return F16ToF32(binary.LittleEndian.Uint16(b)) }
