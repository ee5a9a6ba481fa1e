package quant

import "math"

// MXFP4 keeps 32 values as 4-bit floats, E2M1, with a power of two as scale: 4.25 bits a value. It is the microscaling
// format of the Open Compute Project in GGUF's order of bytes.
//
// Layout: 17 bytes. Scale exponent e, E8M0, at 0; 16 code bytes at 1. The low nibble of byte j is value j, its high
// nibble value j+16. A value is level[code] * 2^(e-128), with the levels of fp4, which are twice the E2M1 values: the
// smallest scales, 2^-128 and 2^-127, are subnormal in float32. The exponent 255 says that the block is NaN.
var MXFP4 = register(Format{Name: "MXFP4", Block: 32, Bytes: 17, Encode: encodeMXFP4, Decode: decodeMXFP4})

// fp4 holds twice the values of E2M1 by code: sign in bit 3. Minus zero decodes to zero.
var fp4 = newCodebook(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)

func decodeMXFP4(dst []float32, src []byte) {
	for range blocks("MXFP4", len(dst), 32, len(src), 17) {
		fp4.decode(dst[:32], src[1:17], e8m0(src[0]))
		dst, src = dst[32:], src[17:]
	}
}

// e8m0 is 2^(e-128), half of what an E8M0 byte says, to go with doubled levels.
func e8m0(e byte) float32 {
	switch {
	case e == 255:
		return float32(math.NaN())
	case e < 2: // subnormal: 2^-149 has bit 0
		return math.Float32frombits(0x200000 << e)
	}
	return math.Float32frombits(uint32(e-1) << 23)
}

// encodeMXFP4 takes the best of the four exponents around the one that puts the largest magnitude into the last octave
// of E2M1, which clips a little or leaves levels unused.
func encodeMXFP4(dst []byte, src []float32) {
	for range blocks("MXFP4", len(src), 32, len(dst), 17) {
		in := finite(src)
		_, octave := math.Frexp(float64(extreme(in[:]))) // magnitude in [2^(octave-1), 2^octave), levels to 12 in [2^3, 2^4)
		b := scaled{err: math.Inf(1)}
		var exponent int
		for e := octave + 128 - 5; e <= octave+128-2; e++ {
			if e := min(max(e, 0), 252); b.try(fp4, &in, e8m0(byte(e))) {
				exponent = e
			}
		}
		dst[0] = byte(exponent)
		b.codes.nibbles(dst[1:17])
		src, dst = src[32:], dst[17:]
	}
}
