// Keys of a cache as kernels read them that know F32 and F16. Included by such kernels, once for each variant.

#include "stored.h"

// packed16 reads 16 keys of a row of a packed tile, and their scales.
WN_INLINE v16f WN(packed16)(const uint8_t *codes, const uint8_t *scales) { return v_mul(v_load_i8(codes), v_load_f16(scales)); }

// tile16 reads 16 keys from key j on of a tile in dimension d.
WN_INLINE v16f WN(tile16)(const uint8_t *tile, int kind, int64_t dim, int64_t d, int64_t j) {
	if (kind == WN_CACHE_F32) return v_load((const float *)tile + d * 64 + j);
	if (kind == WN_CACHE_F16) return v_load_f16(tile + 2 * (d * 64 + j));
	return WN(packed16)(tile + d * 64 + j, wn_scales(tile, dim) + 2 * (d / WN_SHARED * 64 + j));
}

// widen_keys makes floats of a packed tile of keys.
static void WN(widen_keys)(const uint8_t *tile, int64_t dim, float *to) {
	for (int64_t d = 0; d < dim; d++)
		for (int64_t j = 0; j < 64; j += 16) v_store(to + d * 64 + j, WN(tile16)(tile, WN_CACHE_Q8_0, dim, d, j));
}

// plain_keys is a tile of keys, or where keys are packed the same as floats in room, which a thread has for itself.
WN_INLINE const uint8_t *WN(plain_keys)(const uint8_t *tile, int kind, int64_t dim, float *room, int worker) {
	if (kind != WN_CACHE_Q8_0) return tile;
	room += worker * dim * 64;
	WN(widen_keys)(tile, dim, room);
	return (const uint8_t *)room;
}
