// Append: p = k, v, cache k, cache v, pages, seq, pos, n; d = rows, heads, dim, columns of the page table, how the cache stores numbers, its
// stride. An item is 64 rows of one head, so that the tile they mostly share stays near.

#include "stored.h"

enum { WN(APPEND_ROWS) = 64 };

// put16 stores n numbers, at most 16, step numbers apart.
WN_INLINE void WN(put16)(uint8_t *to, int64_t step, v16f x, int64_t n, int f16) {
	if (f16) {
		uint16_t t[16];
		v_store_f16(t, x);
		for (int64_t i = 0; i < n; i++) memcpy(to + 2 * i * step, t + i, 2);
	} else {
		float t[16];
		v_store(t, x);
		for (int64_t i = 0; i < n; i++) memcpy(to + 4 * i * step, t + i, 4);
	}
}

// codes_of rounds 32 numbers to codes from bottom to top with a scale, of which it stores the nearest that binary16 has. NaN is 0.
WN_INLINE void WN(codes_of)(const float *x, float scale, float bottom, float top, uint8_t *at, float *code) {
	uint16_t h[16];
	v_store_f16(h, v_set(scale > 65504 ? 65504 : scale < -65504 ? -65504 : scale));
	memcpy(at, h, 2);
	float d = v_one_f16(h);
	v16f inverse = v_set(d == 0 ? 0 : 1 / d);
	for (int i = 0; i < 32; i += 16) v_store(code + i, v_round(v_min(v_set(top), v_max(v_set(bottom), v_mul(v_load(x + i), inverse)))));
	for (int i = 0; i < 32; i++) code[i] = code[i] == code[i] ? code[i] : 0;
}

// put_block stores 32 numbers as codes, in bytes that are step apart, and a scale: as quant.Q8_0 rounds them, or as quant.RoundQ4_0 does.
WN_INLINE void WN(put_block)(int kind, uint8_t *to, int64_t step, uint8_t *scale, const float *x) {
	v16f low = v_load(x), high = v_load(x + 16), zero = v_zero();
	float code[32], most = v_most(v_max(high, v_max(low, zero))), least = v_most(v_max(v_sub(zero, high), v_max(v_sub(zero, low), zero)));
	if (kind == WN_CACHE_Q4_0) {
		WN(codes_of)(x, (most >= least ? most : -least) / -8, -8, 7, scale, code);
		for (int64_t i = 0; i < 16; i++) to[i * step] = (uint8_t)((int)code[i] + 8) | (uint8_t)(((int)code[i + 16] + 8) << 4);
		return;
	}
	WN(codes_of)(x, (most >= least ? most : least) / 127, -127, 127, scale, code);
	for (int64_t i = 0; i < 32; i++) to[i * step] = (uint8_t)(int8_t)code[i];
}

// put_packed stores a token of a head in its tiles of keys and values.
static void WN(put_packed)(int kind, uint8_t *const *tile, int64_t slot, int64_t dim, const float *const *row) {
	int64_t bytes = wn_row_bytes(kind, dim), block = wn_row_bytes(kind, WN_SHARED);
	uint8_t *key = tile[0] + wn_key_at(bytes, slot), *value = tile[1] + slot * bytes;
	uint8_t *key_scale = tile[0] + 64 * bytes + 2 * slot, *value_scale = tile[1] + 64 * bytes + 2 * slot * (dim / WN_SHARED);
	for (int64_t d = 0; d < dim; d += WN_SHARED, key += block * WN_STRIP_KEYS, value += block, key_scale += 2 * 64, value_scale += 2) {
		WN(put_block)(kind, key, WN_STRIP_KEYS, key_scale, row[0] + d);
		WN(put_block)(kind, value, 1, value_scale, row[1] + d);
	}
}

static void WN(append_item)(void *arg, int64_t item, int worker) {
	const wn_op *op = arg;
	const float *k = op->p[0], *v = op->p[1];
	const int32_t *pages = op->p[4], *seq = op->p[5], *pos = op->p[6];
	int64_t rows = op->d[0], heads = op->d[1], dim = op->d[2], bytes = op->d[4] == WN_CACHE_F16 ? 2 : 4;
	int kind = (int)op->d[4];
	int64_t head = item % heads, first = item / heads * WN(APPEND_ROWS), last = wn_min(first + WN(APPEND_ROWS), rows);
	(void)worker;
	for (int64_t r = first; r < last; r++) {
		int64_t slot = pos[r] % 64, page = pages[seq[r] * op->d[3] + pos[r] / 64], tile = page * op->d[5] + head * dim * 64;
		if (wn_packed(kind)) {
			const float *row[2] = {k + (r * heads + head) * dim, v + (r * heads + head) * dim};
			int64_t at = wn_stored(kind, tile);
			WN(put_packed)(kind, (uint8_t *[2]){(uint8_t *)op->p[2] + at, (uint8_t *)op->p[3] + at}, slot, dim, row);
			continue;
		}
		uint8_t *key = (uint8_t *)op->p[2] + (tile + wn_key_at(dim, slot)) * bytes, *value = (uint8_t *)op->p[3] + (tile + slot * dim) * bytes;
		for (int64_t d = 0, from = (r * heads + head) * dim; d < dim; d += 16) {
			int64_t n = wn_min(dim - d, 16);
			WN(put16)(key + d * WN_STRIP_KEYS * bytes, WN_STRIP_KEYS, v_load_n(k + from + d, n), n, bytes == 2);
			WN(put16)(value + d * bytes, 1, v_load_n(v + from + d, n), n, bytes == 2);
		}
	}
}

void WN(wn_append)(wn_ctx *ctx, const wn_op *op) {
	wn_op o = *op;
	o.d[0] = wn_live(ctx, op->p[7], op->d[0]);
	wn_parallel(ctx, (o.d[0] + WN(APPEND_ROWS) - 1) / WN(APPEND_ROWS) * o.d[1], WN(append_item), &o);
}
