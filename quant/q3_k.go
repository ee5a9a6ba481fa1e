package quant

import "encoding/binary"

// Q3_K keeps 256 values as 3-bit codes around zero in 16 sub-blocks of 16, each with a signed 6-bit scale: 3.4375 bits a
// value.
//
// Layout: 110 bytes. 32 bytes H of high bits at 0; 64 bytes of lower 2 bits at 32; 12 bytes S of scales at 96; d,
// binary16, at 108. Each half h of 128 values has 32 bytes of lower bits: bits 2k, 2k+1 of byte l belong to value 32k+l,
// and so does bit 4h+k of H[l], which stands for 4. The low 4 bits of scale j are the low nibble of S[j], for j >= 8 the
// high nibble of S[j-8]; its upper 2 bits are bits 2(j/4), 2(j/4)+1 of S[8+j%4]. A value is d*(scale-32)*(code-4).
var Q3_K = register(Format{Name: "Q3_K", Block: 256, Bytes: 110, Encode: encodeQ3_K, Decode: decodeQ3_K})

func decodeQ3_K(dst []float32, src []byte) {
	for range blocks("Q3_K", len(dst), 256, len(src), 110) {
		high, packed, d := src[:32:32], src[96:108:108], half(src[108:])
		for j := range 16 {
			s := packed[j%8]>>(j/8*4)&15 | packed[8+j%4]>>(j/4*2)&3<<4
			scale := d * float32(int(s)-32)
			out, low, upper := dst[16*j:][:16:16], src[32+j/8*32+j%2*16:][:16:16], high[j%2*16:][:16:16]
			shift := j / 2 % 4 * 2
			for l, c := range low {
				out[l] = scale * float32(int(c>>shift&3|upper[l]>>(j/2)&1<<2)-4)
			}
		}
		dst, src = dst[256:], src[110:]
	}
}

var gridQ3_K = &grid{sub: 16, top: 7, zero: 4, scaleLo: -32, scaleHi: 31}

func encodeQ3_K(dst []byte, src []float32) {
	for range blocks("Q3_K", len(src), 256, len(dst), 110) {
		b := gridQ3_K.fit(src)
		packQ3_K(dst[:110:110], &b)
		dst, src = dst[110:], src[256:]
	}
}

func packQ3_K(dst []byte, b *superblock) {
	clear(dst)
	for i, c := range b.code {
		group := i / 32 // of values that share 32 bytes of H
		dst[i%32] |= c >> 2 << group
		dst[32+i/128*32+i%32] |= c & 3 << (group % 4 * 2)
	}
	for j, s := range b.scale {
		c := byte(s + 32)
		dst[96+j%8] |= c & 15 << (j / 8 * 4)
		dst[104+j%4] |= c >> 4 << (j / 4 * 2)
	}
	binary.LittleEndian.PutUint16(dst[108:], b.d)
}
