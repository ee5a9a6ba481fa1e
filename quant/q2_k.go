package quant

// Q2_K keeps 256 values as 2-bit codes in 16 sub-blocks of 16, each with a 4-bit scale and a 4-bit minimum: 2.625 bits a
// value.
//
// Layout: 84 bytes. 16 bytes at 0, one a sub-block: scale in the low nibble, minimum in the high one; 64 code bytes at
// 16; d, binary16, at 80; dmin, binary16, at 82. Each half of 128 values has 32 code bytes: bits 2k, 2k+1 of byte l are
// the code of value 32k+l. A value is d*scale*code - dmin*minimum.
var Q2_K = register(Format{Name: "Q2_K", Block: 256, Bytes: 84, Decode: decodeQ2_K})

func decodeQ2_K(dst []float32, src []byte) {
	for range blocks("Q2_K", len(dst), 256, len(src), 84) {
		d, dmin := half(src[80:]), half(src[82:])
		for j, s := range src[:16] {
			scale, minimum := d*float32(s&15), dmin*float32(s>>4)
			out, codes, shift := dst[16*j:][:16:16], src[16+j/8*32+j%2*16:][:16:16], j/2%4*2
			for l, c := range codes { // the conversion keeps the roundings of product and difference apart
				out[l] = float32(scale*float32(c>>shift&3)) - minimum
			}
		}
		dst, src = dst[256:], src[84:]
	}
}
