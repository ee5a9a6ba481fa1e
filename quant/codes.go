package quant

import "math"

// codes are those of a block of 32 values.
type codes [32]uint8

// nibbles stores the low 4 bits of the codes: code j in the low nibble of byte j, code j+16 in its high nibble.
func (c *codes) nibbles(dst []byte) {
	for j := range dst[:16] {
		dst[j] = c[j]&15 | c[j+16]<<4
	}
}

// quarters stores the low 2 bits of the codes: those of codes j, j+8, j+16 and j+24 in byte j, from the lowest bits up.
func (c *codes) quarters(dst []byte) {
	for j := range dst[:8] {
		dst[j] = c[j]&3 | c[j+8]&3<<2 | c[j+16]&3<<4 | c[j+24]&3<<6
	}
}

// plane gathers bit n of the codes: bit j belongs to code j.
func (c *codes) plane(n int) (bits uint32) {
	for j, v := range c {
		bits |= uint32(v>>n&1) << j
	}
	return bits
}

// finite copies the next 32 values. NaN becomes 0 and an infinity the largest finite value, which then is clipped to
// what a format reaches.
func finite(src []float32) (out [32]float32) {
	for i, v := range src[:32] {
		if v == v {
			out[i] = min(max(v, -math.MaxFloat32), math.MaxFloat32)
		}
	}
	return out
}

// toF16 rounds a scale to a finite binary16 and, where it is not 0, not to 0.
func toF16(d float64) float32 {
	h := F16ToF32(scale(float32(d)))
	if h == 0 && d != 0 {
		h = float32(math.Copysign(0x1p-24, d))
	}
	return h
}
