package quant

import "encoding/binary"

// Q4_1 keeps 32 values as 4-bit codes above a minimum: 5 bits a value.
//
// Layout: 20 bytes. Scale d, binary16, at 0; minimum m, binary16, at 2; 16 code bytes at 4. The low nibble of byte j is
// value j, its high nibble value j+16. A value is code*d + m.
var Q4_1 = register(Format{Name: "Q4_1", Block: 32, Bytes: 20, Encode: encodeQ4_1, Decode: decodeQ4_1})

func decodeQ4_1(dst []float32, src []byte) {
	for range blocks("Q4_1", len(dst), 32, len(src), 20) {
		out, b := dst[:32:32], src[:20:20]
		d, m := half(b), half(b[2:])
		for j, c := range b[4:] { // the conversions keep product and sum apart: two roundings on every machine
			out[j] = float32(float32(c&15)*d) + m
			out[j+16] = float32(float32(c>>4)*d) + m
		}
		dst, src = dst[32:], src[20:]
	}
}

var q4Ladder = halves(15)

func encodeQ4_1(dst []byte, src []float32) {
	for range blocks("Q4_1", len(src), 32, len(dst), 20) {
		in := finite(src)
		fit := q4Ladder.fit(&in)
		binary.LittleEndian.PutUint16(dst, F32ToF16(fit.step))
		binary.LittleEndian.PutUint16(dst[2:], F32ToF16(fit.base))
		fit.codes.nibbles(dst[4:20])
		src, dst = src[32:], dst[20:]
	}
}
