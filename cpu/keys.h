// Keys of a cache as kernels read them that know F32 and F16. Included by such kernels, once for each variant.

#include "stored.h"

// packed16 reads 16 keys of a row of a packed tile, and their scales.
WN_INLINE v16f WN(packed16)(const uint8_t *codes, const uint8_t *scales) { return v_mul(v_load_i8(codes), v_load_f16(scales)); }

// tile16 reads the 16 keys of a tile's strip that starts with key j, in dimension d.
WN_INLINE v16f WN(tile16)(const uint8_t *tile, int kind, int64_t dim, int64_t d, int64_t j) {
	int64_t at = j * dim + d * WN_STRIP_KEYS;
	if (kind == WN_CACHE_F32) return v_load((const float *)tile + at);
	if (kind == WN_CACHE_F16) return v_load_f16(tile + 2 * at);
	return WN(packed16)(tile + at, wn_scales(tile, dim) + 2 * (d / WN_SHARED * 64 + j));
}

// widen_keys makes floats of a packed tile of keys.
static void WN(widen_keys)(const uint8_t *tile, int64_t dim, float *to) {
	for (int64_t j = 0; j < 64; j += WN_STRIP_KEYS)
		for (int64_t d = 0; d < dim; d++) v_store(to + j * dim + d * WN_STRIP_KEYS, WN(tile16)(tile, WN_CACHE_Q8_0, dim, d, j));
}

// plain_keys is a tile of keys, or where keys are packed the same as floats in room, which a thread has for itself.
WN_INLINE const uint8_t *WN(plain_keys)(const uint8_t *tile, int kind, int64_t dim, float *room, int worker) {
	if (kind != WN_CACHE_Q8_0) return tile;
	room += worker * dim * 64;
	WN(widen_keys)(tile, dim, room);
	return (const uint8_t *)room;
}
