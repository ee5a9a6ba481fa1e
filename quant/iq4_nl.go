package quant

import "encoding/binary"

// IQ4_NL keeps 32 values as 4-bit codes of 16 unevenly spaced levels with one scale: 4.5 bits a value. None of the levels
// is zero.
//
// Layout: 18 bytes. Scale d, binary16, at 0; 16 code bytes at 2. The low nibble of byte j is value j, its high nibble
// value j+16. A value is level[code] * d, with the levels of iq4.
var IQ4_NL = register(Format{Name: "IQ4_NL", Block: 32, Bytes: 18, Encode: encodeIQ4_NL, Decode: decodeIQ4_NL})

// iq4 holds the levels of IQ4_NL and IQ4_XS: dense around zero, where most weights are.
var iq4 = newCodebook(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

func decodeIQ4_NL(dst []float32, src []byte) {
	for range blocks("IQ4_NL", len(dst), 32, len(src), 18) {
		iq4.decode(dst[:32], src[2:18], half(src))
		dst, src = dst[32:], src[18:]
	}
}

func encodeIQ4_NL(dst []byte, src []float32) {
	for range blocks("IQ4_NL", len(src), 32, len(dst), 18) {
		in := finite(src)
		fit := iq4.fit(&in, toF16)
		binary.LittleEndian.PutUint16(dst, F32ToF16(fit.scale))
		fit.codes.nibbles(dst[2:18])
		src, dst = src[32:], dst[18:]
	}
}
