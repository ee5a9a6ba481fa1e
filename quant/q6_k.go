package quant

// Q6_K keeps 256 values as 6-bit codes around zero in 16 sub-blocks of 16, each with a signed 8-bit scale: 6.5625 bits a
// value. Winnow only reads it.
//
// Layout: 210 bytes. 128 bytes of low nibbles at 0, 64 bytes of upper 2 bits at 128, 16 scales, int8, at 192, d,
// binary16, at 208. Each half of 128 values has 64 bytes L of the first, 32 bytes H of the second and 8 scales. For l in
// 0..31 the values l, l+32, l+64, l+96 take the nibbles L[l] low, L[l+32] low, L[l] high, L[l+32] high, the bits 0-1,
// 2-3, 4-5, 6-7 of H[l], and scales l/16 + 0, 2, 4, 6. A value is d*scale*(code-32).
var Q6_K = register(Format{Name: "Q6_K", Block: 256, Bytes: 210, Decode: decodeQ6_K})

func decodeQ6_K(dst []float32, src []byte) {
	for range blocks("Q6_K", len(dst), 256, len(src), 210) {
		d := half(src[208:])
		for h := range 2 {
			low, high, scales := src[64*h:][:64:64], src[128+32*h:][:32:32], src[192+8*h:][:8:8]
			var s [8]float32
			for i, c := range scales {
				s[i] = d * float32(int8(c))
			}
			out := dst[128*h:][:128:128]
			for l, u := range high {
				a, b, i := low[l], low[l+32], l/16
				out[l] = s[i] * float32(int(a&15|u&3<<4)-32)
				out[l+32] = s[i+2] * float32(int(b&15|u>>2&3<<4)-32)
				out[l+64] = s[i+4] * float32(int(a>>4|u>>4&3<<4)-32)
				out[l+96] = s[i+6] * float32(int(b>>4|u>>6<<4)-32)
			}
		}
		dst, src = dst[256:], src[210:]
	}
}
