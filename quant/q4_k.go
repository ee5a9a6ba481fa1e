package quant

import "encoding/binary"

// Q4_K keeps 256 values as 4-bit codes in 8 sub-blocks of 32, each with a 6-bit scale and a 6-bit minimum: 4.5 bits a
// value.
//
// Layout: 144 bytes. d, binary16, at 0; dmin, binary16, at 2; 12 bytes of packed scales and minimums at 4; 128 code
// bytes at 16. Code bytes 32c..32c+31 hold values 64c..64c+63: low nibbles the first 32, sub-block 2c, high nibbles the
// next 32, sub-block 2c+1. A value is d*scale*code - dmin*minimum.
var Q4_K = register(Format{Name: "Q4_K", Block: 256, Bytes: 144, Encode: encodeQ4_K, Decode: decodeQ4_K})

func decodeQ4_K(dst []float32, src []byte) {
	for range blocks("Q4_K", len(dst), 256, len(src), 144) {
		s := subScales(src[:16])
		for c := range 4 {
			lo, hi := dst[64*c:][:32:32], dst[64*c+32:][:32:32]
			dl, ml := s.scale[2*c], s.minimum[2*c]
			dh, mh := s.scale[2*c+1], s.minimum[2*c+1]
			for l, q := range src[16+32*c:][:32] { // the conversions keep the roundings of product and difference apart
				lo[l] = float32(dl*float32(q&15)) - ml
				hi[l] = float32(dh*float32(q>>4)) - mh
			}
		}
		dst, src = dst[256:], src[144:]
	}
}

// subScale holds d*scale and dmin*minimum of the 8 sub-blocks of a Q4_K or Q5_K block.
type subScale struct{ scale, minimum [8]float32 }

// subScales unpacks the first 16 bytes of a Q4_K or Q5_K block.
//
// Layout: d and dmin, binary16, at 0 and 2; s, 12 bytes, at 4. For j < 4, scale j is the low 6 bits of s[j] and minimum
// j those of s[j+4]. For j >= 4 their low 4 bits are the nibbles of s[j+4], low and high, and their upper 2 bits the top
// bits of s[j-4] and s[j].
func subScales(head []byte) (out subScale) {
	head = head[:16:16]
	d, dmin, s := half(head), half(head[2:]), head[4:]
	for j := range 4 {
		out.scale[j] = d * float32(s[j]&63)
		out.minimum[j] = dmin * float32(s[j+4]&63)
		out.scale[j+4] = d * float32(s[j+8]&15|s[j]>>6<<4)
		out.minimum[j+4] = dmin * float32(s[j+8]>>4|s[j+4]>>6<<4)
	}
	return out
}

var gridQ4_K = &grid{sub: 32, top: 15, scaleHi: 63, minimumHi: 63}

func encodeQ4_K(dst []byte, src []float32) {
	for range blocks("Q4_K", len(src), 256, len(dst), 144) {
		b := gridQ4_K.fit(src)
		packQ4_K(dst[:144:144], &b)
		dst, src = dst[144:], src[256:]
	}
}

func packQ4_K(dst []byte, b *superblock) {
	packSubScales(dst[:16], b)
	for i := range 128 {
		c := b.code[i/32*64+i%32:]
		dst[16+i] = c[0] | c[32]<<4
	}
}

// packSubScales writes what subScales reads.
func packSubScales(head []byte, b *superblock) {
	binary.LittleEndian.PutUint16(head, b.d)
	binary.LittleEndian.PutUint16(head[2:], b.dmin)
	s := head[4:16:16]
	for j := range 4 {
		sl, sh, ml, mh := byte(b.scale[j]), byte(b.scale[j+4]), byte(b.minimum[j]), byte(b.minimum[j+4])
		s[j] = sl | sh>>4<<6
		s[j+4] = ml | mh>>4<<6
		s[j+8] = sh&15 | mh<<4
	}
}
