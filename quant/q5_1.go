package quant

import "encoding/binary"

// Q5_1 keeps 32 values as 5-bit codes above a minimum: 6 bits a value.
//
// Layout: 24 bytes. Scale d, binary16, at 0; minimum m, binary16, at 2; the fifth bits, 4 bytes little-endian, at 4: bit
// j belongs to value j; 16 bytes of low bits at 8. The low nibble of byte j is value j, its high nibble value j+16. A
// value is code*d + m.
var Q5_1 = register(Format{Name: "Q5_1", Block: 32, Bytes: 24, Encode: encodeQ5_1, Decode: decodeQ5_1})

func decodeQ5_1(dst []float32, src []byte) {
	for range blocks("Q5_1", len(dst), 32, len(src), 24) {
		out, b := dst[:32:32], src[:24:24]
		d, m, fifth := half(b), half(b[2:]), binary.LittleEndian.Uint32(b[4:])
		for j, c := range b[8:] { // the conversions keep product and sum apart: two roundings on every machine
			out[j] = float32(float32(uint32(c&15)|fifth>>j&1<<4)*d) + m
			out[j+16] = float32(float32(uint32(c>>4)|fifth>>(j+16)&1<<4)*d) + m
		}
		dst, src = dst[32:], src[24:]
	}
}

var q5Ladder = halves(31)

func encodeQ5_1(dst []byte, src []float32) {
	for range blocks("Q5_1", len(src), 32, len(dst), 24) {
		in := finite(src)
		fit := q5Ladder.fit(&in)
		binary.LittleEndian.PutUint16(dst, F32ToF16(fit.step))
		binary.LittleEndian.PutUint16(dst[2:], F32ToF16(fit.base))
		binary.LittleEndian.PutUint32(dst[4:], fit.codes.plane(4))
		fit.codes.nibbles(dst[8:24])
		src, dst = src[32:], dst[24:]
	}
}
