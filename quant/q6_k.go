package quant

import "encoding/binary"

// Q6_K keeps 256 values as 6-bit codes around zero in 16 sub-blocks of 16, each with a signed 8-bit scale: 6.5625 bits a
// value.
//
// Layout: 210 bytes. 128 bytes of low nibbles at 0, 64 bytes of upper 2 bits at 128, 16 scales, int8, at 192, d,
// binary16, at 208. Each half of 128 values has 64 bytes L of the first, 32 bytes H of the second and 8 scales. For l in
// 0..31 the values l, l+32, l+64, l+96 take the nibbles L[l] low, L[l+32] low, L[l] high, L[l+32] high, the bits 0-1,
// 2-3, 4-5, 6-7 of H[l], and scales l/16 + 0, 2, 4, 6. A value is d*scale*(code-32).
var Q6_K = register(Format{Name: "Q6_K", Block: 256, Bytes: 210, Encode: encodeQ6_K, Decode: decodeQ6_K})

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

var gridQ6_K = &grid{sub: 16, top: 63, zero: 32, scaleLo: -128, scaleHi: 127}

func encodeQ6_K(dst []byte, src []float32) {
	for range blocks("Q6_K", len(src), 256, len(dst), 210) {
		b := gridQ6_K.fit(src)
		packQ6_K(dst[:210:210], &b)
		dst, src = dst[210:], src[256:]
	}
}

func packQ6_K(dst []byte, b *superblock) {
	for i := range 64 {
		h, l := i/32, i%32
		c := b.code[128*h+l:]
		dst[64*h+l] = c[0]&15 | c[64]<<4
		dst[64*h+l+32] = c[32]&15 | c[96]<<4
		dst[128+i] = c[0]>>4 | c[32]>>4<<2 | c[64]>>4<<4 | c[96]>>4<<6
	}
	for j, s := range b.scale {
		dst[192+j] = byte(s)
	}
	binary.LittleEndian.PutUint16(dst[208:], b.d)
}
