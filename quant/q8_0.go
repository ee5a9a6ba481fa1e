package quant

import (
	"encoding/binary"
	"math"
)

// Q8_0 keeps 32 values as signed bytes with one scale: 8.5 bits a value.
//
// Layout: 34 bytes. Scale d, binary16, at 0; 32 codes, int8, in order of the values, at 2. A value is code * d.
var Q8_0 = register(Format{Name: "Q8_0", Block: 32, Bytes: 34, Encode: encodeQ8_0, Decode: decodeQ8_0})

func decodeQ8_0(dst []float32, src []byte) {
	for range blocks("Q8_0", len(dst), 32, len(src), 34) {
		out, b := dst[:32:32], src[:34:34]
		d := half(b)
		for j, c := range b[2:] {
			out[j] = float32(int8(c)) * d
		}
		dst, src = dst[32:], src[34:]
	}
}

// encodeQ8_0 puts the largest magnitude on code 127. NaN becomes 0.
func encodeQ8_0(dst []byte, src []float32) {
	for range blocks("Q8_0", len(src), 32, len(dst), 34) {
		in, b := src[:32:32], dst[:34:34]
		e := extreme(in)
		d := scale(max(e, -e) / 127)
		binary.LittleEndian.PutUint16(b, d)
		inv := inverse(F16ToF32(d))
		for j, v := range in {
			b[2+j] = byte(nearest(v*inv, -127, 127))
		}
		src, dst = src[32:], dst[34:]
	}
}

// extreme is the value of largest magnitude, with its sign. NaN is passed over.
func extreme(v []float32) float32 {
	var e, mag float32
	for _, x := range v {
		if a := max(x, -x); a > mag {
			e, mag = x, a
		}
	}
	return e
}

// scale rounds a block's scale to binary16, at most the largest finite one: an infinite scale would decode to NaN.
func scale(d float32) uint16 {
	return F32ToF16(min(max(d, -65504), 65504))
}

// inverse is 1/d, and 0 for a block whose scale is 0, which decodes to zeros whatever the codes are.
func inverse(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// nearest is the whole number next to v, ties to even, within lo..hi. NaN gives 0.
func nearest(v, lo, hi float32) int {
	if v != v {
		return 0
	}
	return int(math.RoundToEven(float64(min(max(v, lo), hi))))
}
