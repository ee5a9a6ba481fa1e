package quant

import "encoding/binary"

// Q2_K keeps 256 values as 2-bit codes in 16 sub-blocks of 16, each with a 4-bit scale and a 4-bit minimum: 2.625 bits a
// value.
//
// Layout: 84 bytes. 16 bytes at 0, one a sub-block: scale in the low nibble, minimum in the high one; 64 code bytes at
// 16; d, binary16, at 80; dmin, binary16, at 82. Each half of 128 values has 32 code bytes: bits 2k, 2k+1 of byte l are
// the code of value 32k+l. A value is d*scale*code - dmin*minimum.
var Q2_K = register(Format{Name: "Q2_K", Block: 256, Bytes: 84, Encode: encodeQ2_K, Decode: decodeQ2_K})

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

var gridQ2_K = &grid{sub: 16, top: 3, scaleHi: 15, minimumHi: 15}

func encodeQ2_K(dst []byte, src []float32) {
	for range blocks("Q2_K", len(src), 256, len(dst), 84) {
		b := gridQ2_K.fit(src)
		packQ2_K(dst[:84:84], &b)
		dst, src = dst[84:], src[256:]
	}
}

func packQ2_K(dst []byte, b *superblock) {
	for j := range 16 {
		dst[j] = byte(b.scale[j] | b.minimum[j]<<4)
	}
	for i := range 64 {
		c := b.code[i/32*128+i%32:]
		dst[16+i] = c[0] | c[32]<<2 | c[64]<<4 | c[96]<<6
	}
	binary.LittleEndian.PutUint16(dst[80:], b.d)
	binary.LittleEndian.PutUint16(dst[82:], b.dmin)
}
