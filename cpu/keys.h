// Keys of a cache as kernels read them that know F32 and F16. Included by such kernels, once for each variant.

#include "stored.h"

// codes16 reads the 16 codes of 16 bytes: of codes with 4 bits those from bit shift on.
WN_INLINE v16f WN(codes16)(const uint8_t *codes, int kind, int shift) {
	return kind == WN_CACHE_Q4_0 ? v_load_i4(codes, shift) : v_load_i8(codes);
}

// tile16 reads the 16 keys of a tile's strip that starts with key j, in dimension d.
WN_INLINE v16f WN(tile16)(const uint8_t *tile, int kind, int64_t dim, int64_t d, int64_t j) {
	int64_t at = j * dim + d * WN_STRIP_KEYS;
	if (kind == WN_CACHE_F32) return v_load((const float *)tile + at);
	if (kind == WN_CACHE_F16) return v_load_f16(tile + 2 * at);
	const uint8_t *codes = tile + j * wn_row_bytes(kind, dim) + wn_byte_of(kind, d) * WN_STRIP_KEYS;
	return v_mul(WN(codes16)(codes, kind, wn_shift_of(d)), v_load_f16(wn_scales(tile, kind, dim) + 2 * (d / WN_SHARED * 64 + j)));
}

// widen_keys makes floats of a packed tile of keys.
static void WN(widen_keys)(const uint8_t *tile, int kind, int64_t dim, float *to) {
	for (int64_t j = 0; j < 64; j += WN_STRIP_KEYS)
		for (int64_t d = 0; d < dim; d++) v_store(to + j * dim + d * WN_STRIP_KEYS, WN(tile16)(tile, kind, dim, d, j));
}

// spread_keys makes floats of a pruned tile of keys, 0 where they are not kept.
WN_INLINE void WN(spread_keys)(const uint8_t *tile, int64_t dim, int64_t keep, float *to) {
	const uint8_t *bits = tile + 2 * 64 * keep;
	for (int64_t d = 0; d < dim; d++) {
		for (int64_t j = 0; j < 64; j += WN_STRIP_KEYS, bits += 2) {
			unsigned mask = bits[0] | (unsigned)bits[1] << 8;
			v_store(to + j * dim + d * WN_STRIP_KEYS, v_load_kept(tile, mask));
			tile += 2 * __builtin_popcount(mask);
		}
	}
}

// plain_keys is a tile of keys, or where keys are packed the same as floats in room, which a thread has for itself.
WN_INLINE const uint8_t *WN(plain_keys)(const uint8_t *tile, int kind, int64_t dim, float *room, int worker) {
	if (!wn_packed(kind)) return tile;
	room += worker * dim * 64;
	WN(widen_keys)(tile, kind, dim, room);
	return (const uint8_t *)room;
}
