package quant

import (
	"encoding/binary"
	"math"
)

// W2G32, W3G32 and W4G32 keep groups of 32 values as 2-, 3- and 4-bit codes with a scale and a zero point of their own,
// in 2.5, 3.5 and 4.5 bits a value. They are Winnow's: GGUF has no such types.
//
// Layout: a head h of 2 bytes, little-endian, at 0, and the codes at 2. Bits 6-15 of h are the scale d, the exponent and
// the upper 5 fraction bits of a binary16: its bits are (h>>6)<<5. Bits 0-5 are the zero point in 2^bits/64 of a code, so
// that it lies anywhere on the ladder of codes. A value is (code - zero) * d, which is exact in float32.
//
//   - W4G32, 18 bytes: the nibbles of Q4_0. Byte j has values j and j+16, low and high.
//   - W3G32, 14 bytes: the lower 2 bits of the codes as in W2G32, then their third bits, 4 bytes little-endian, at 10: bit
//     j belongs to value j.
//   - W2G32, 10 bytes: byte j of 8 has values j, j+8, j+16 and j+24, from the lowest 2 bits to the highest.
var (
	W2G32 = register(Format{Name: "W2G32", Block: 32, Bytes: 10, Encode: encodeW2G32, Decode: decodeW2G32})
	W3G32 = register(Format{Name: "W3G32", Block: 32, Bytes: 14, Encode: encodeW3G32, Decode: decodeW3G32})
	W4G32 = register(Format{Name: "W4G32", Block: 32, Bytes: 18, Encode: encodeW4G32, Decode: decodeW4G32})
)

// groupHead reads scale and zero point of a group with codes of so many bits.
func groupHead(src []byte, bits int) (d, zero float32) {
	h := binary.LittleEndian.Uint16(src)
	return F16ToF32(h >> 6 << 5), float32(h&63) / float32(int(64)>>bits)
}

// putGroupHead stores the scale and the zero point that are nearest to step and base.
func putGroupHead(dst []byte, bits int, step, base float64) {
	var d, zero uint16
	if step > 0 {
		d = min(max((scale(float32(step))+16)>>5, 1), 0x3df) // not 0, and at most 64512
		s := float64(F16ToF32(d << 5))
		zero = uint16(min(max(math.Round(-base/s*float64(int(64)>>bits)), 0), 63))
	}
	binary.LittleEndian.PutUint16(dst, d<<6|zero)
}

// grouped is the ladder of a group with codes of so many bits.
func grouped(bits int) *ladder {
	return &ladder{top: 1<<bits - 1, zero: true, place: func(step, base float64) (s, b float32) {
		var head [2]byte
		putGroupHead(head[:], bits, step, base)
		d, zero := groupHead(head[:], bits)
		return d, -zero * d
	}}
}

var w2, w3, w4 = grouped(2), grouped(3), grouped(4)

func decodeW2G32(dst []float32, src []byte) {
	for range blocks("W2G32", len(dst), 32, len(src), 10) {
		d, zero := groupHead(src, 2)
		for j, c := range src[2:10] {
			for i := range 4 {
				dst[j+8*i] = (float32(c>>(2*i)&3) - zero) * d
			}
		}
		dst, src = dst[32:], src[10:]
	}
}

func decodeW3G32(dst []float32, src []byte) {
	for range blocks("W3G32", len(dst), 32, len(src), 14) {
		d, zero := groupHead(src, 3)
		third := binary.LittleEndian.Uint32(src[10:])
		for j, c := range src[2:10] {
			for i := range 4 {
				k := j + 8*i
				dst[k] = (float32(uint32(c>>(2*i)&3)|third>>k&1<<2) - zero) * d
			}
		}
		dst, src = dst[32:], src[14:]
	}
}

func decodeW4G32(dst []float32, src []byte) {
	for range blocks("W4G32", len(dst), 32, len(src), 18) {
		d, zero := groupHead(src, 4)
		for j, c := range src[2:18] {
			dst[j] = (float32(c&15) - zero) * d
			dst[j+16] = (float32(c>>4) - zero) * d
		}
		dst, src = dst[32:], src[18:]
	}
}

func encodeW2G32(dst []byte, src []float32) {
	for range blocks("W2G32", len(src), 32, len(dst), 10) {
		in := finite(src)
		fit := w2.fit(&in)
		putGroupHead(dst, 2, float64(fit.step), float64(fit.base))
		fit.codes.quarters(dst[2:10])
		src, dst = src[32:], dst[10:]
	}
}

func encodeW3G32(dst []byte, src []float32) {
	for range blocks("W3G32", len(src), 32, len(dst), 14) {
		in := finite(src)
		fit := w3.fit(&in)
		putGroupHead(dst, 3, float64(fit.step), float64(fit.base))
		fit.codes.quarters(dst[2:10])
		binary.LittleEndian.PutUint32(dst[10:], fit.codes.plane(2))
		src, dst = src[32:], dst[14:]
	}
}

func encodeW4G32(dst []byte, src []float32) {
	for range blocks("W4G32", len(src), 32, len(dst), 18) {
		in := finite(src)
		fit := w4.fit(&in)
		putGroupHead(dst, 4, float64(fit.step), float64(fit.base))
		fit.codes.nibbles(dst[2:18])
		src, dst = src[32:], dst[18:]
	}
}
