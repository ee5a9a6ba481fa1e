package quant

import "encoding/binary"

// Q5_0 keeps 32 values as 5-bit codes around zero with one scale: 5.5 bits a value.
//
// Layout: 22 bytes. Scale d, binary16, at 0; the fifth bits, 4 bytes little-endian, at 2: bit j belongs to value j; 16
// bytes of low bits at 6. The low nibble of byte j is value j, its high nibble value j+16. A value is (code-16) * d.
var Q5_0 = register(Format{Name: "Q5_0", Block: 32, Bytes: 22, Encode: encodeQ5_0, Decode: decodeQ5_0})

func decodeQ5_0(dst []float32, src []byte) {
	for range blocks("Q5_0", len(dst), 32, len(src), 22) {
		out, b := dst[:32:32], src[:22:22]
		d, fifth := half(b), binary.LittleEndian.Uint32(b[2:])
		for j, c := range b[6:] {
			out[j] = float32(int(uint32(c&15)|fifth>>j&1<<4)-16) * d
			out[j+16] = float32(int(uint32(c>>4)|fifth>>(j+16)&1<<4)-16) * d
		}
		dst, src = dst[32:], src[22:]
	}
}

var q5 = integers(-16, 15)

func encodeQ5_0(dst []byte, src []float32) {
	for range blocks("Q5_0", len(src), 32, len(dst), 22) {
		in := finite(src)
		fit := q5.fit(&in, toF16)
		binary.LittleEndian.PutUint16(dst, F32ToF16(fit.scale))
		binary.LittleEndian.PutUint32(dst[2:], fit.codes.plane(4))
		fit.codes.nibbles(dst[6:22])
		src, dst = src[32:], dst[22:]
	}
}
