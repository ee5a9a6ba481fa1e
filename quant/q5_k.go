package quant

// Q5_K is Q4_K with a fifth bit a code: 5.5 bits a value.
//
// Layout: 176 bytes. d, binary16, at 0; dmin, binary16, at 2; 12 bytes of scales and minimums, packed as in Q4_K, at 4;
// 32 bytes of fifth bits at 16; 128 code bytes at 48, nibbles in the order of Q4_K. In chunk c of 64 values, bit 2c of
// fifth-bit byte l belongs to value l and bit 2c+1 to value l+32. A value is d*scale*code - dmin*minimum.
var Q5_K = register(Format{Name: "Q5_K", Block: 256, Bytes: 176, Encode: encodeQ5_K, Decode: decodeQ5_K})

func decodeQ5_K(dst []float32, src []byte) {
	for range blocks("Q5_K", len(dst), 256, len(src), 176) {
		s := subScales(src[:16])
		fifth := src[16:48:48]
		for c := range 4 {
			lo, hi := dst[64*c:][:32:32], dst[64*c+32:][:32:32]
			dl, ml := s.scale[2*c], s.minimum[2*c]
			dh, mh := s.scale[2*c+1], s.minimum[2*c+1]
			for l, q := range src[48+32*c:][:32] { // the conversions keep the roundings of product and difference apart
				f := fifth[l] >> (2 * c)
				lo[l] = float32(dl*float32(q&15|f&1<<4)) - ml
				hi[l] = float32(dh*float32(q>>4|f&2<<3)) - mh
			}
		}
		dst, src = dst[256:], src[176:]
	}
}

var gridQ5_K = &grid{sub: 32, top: 31, scaleHi: 63, minimumHi: 63}

func encodeQ5_K(dst []byte, src []float32) {
	for range blocks("Q5_K", len(src), 256, len(dst), 176) {
		b := gridQ5_K.fit(src)
		packQ5_K(dst[:176:176], &b)
		dst, src = dst[176:], src[256:]
	}
}

func packQ5_K(dst []byte, b *superblock) {
	packSubScales(dst[:16], b)
	clear(dst[16:48])
	for i := range 128 {
		c, l := b.code[i/32*64+i%32:], i%32
		dst[48+i] = c[0]&15 | c[32]<<4
		dst[16+l] |= (c[0]>>4 | c[32]>>4<<1) << (i / 32 * 2)
	}
}
