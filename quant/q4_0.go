package quant

import "encoding/binary"

// Q4_0 keeps 32 values as 4-bit codes around zero with one scale: 4.5 bits a value.
//
// Layout: 18 bytes. Scale d, binary16, at 0; 16 code bytes at 2. The low nibble of byte j is value j, its high nibble
// value j+16. A value is (code-8) * d.
var Q4_0 = register(Format{Name: "Q4_0", Block: 32, Bytes: 18, Encode: encodeQ4_0, Decode: decodeQ4_0})

func decodeQ4_0(dst []float32, src []byte) {
	for range blocks("Q4_0", len(dst), 32, len(src), 18) {
		out, b := dst[:32:32], src[:18:18]
		d := half(b)
		for j, c := range b[2:] {
			out[j] = float32(int(c&15)-8) * d
			out[j+16] = float32(int(c>>4)-8) * d
		}
		dst, src = dst[32:], src[18:]
	}
}

// RoundQ4_0 encodes as Q4_0 what is rounded as it is made, without the search for the best scale: the value of largest magnitude, of two opposite
// ones the positive, is on code -8, as in ggml, and the others are on the nearest ones. NaN becomes 0.
func RoundQ4_0(dst []byte, src []float32) {
	for range blocks("Q4_0", len(src), 32, len(dst), 18) {
		in, b := src[:32:32], dst[:18:18]
		var most, least float32
		for _, v := range in {
			if v == v {
				most, least = max(most, v), min(least, v)
			}
		}
		if most < -least {
			most = least
		}
		d := scale(most / -8)
		binary.LittleEndian.PutUint16(b, d)
		inv := inverse(F16ToF32(d))
		var c codes
		for j, v := range in {
			c[j] = uint8(nearest(v*inv, -8, 7) + 8)
		}
		c.nibbles(b[2:])
		src, dst = src[32:], dst[18:]
	}
}

var q4 = integers(-8, 7)

func encodeQ4_0(dst []byte, src []float32) {
	for range blocks("Q4_0", len(src), 32, len(dst), 18) {
		in := finite(src)
		fit := q4.fit(&in, toF16)
		binary.LittleEndian.PutUint16(dst, F32ToF16(fit.scale))
		fit.codes.nibbles(dst[2:18])
		src, dst = src[32:], dst[18:]
	}
}
