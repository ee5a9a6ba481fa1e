// KeyBounds: p = cache k, bounds, pages, seq, pos, n, pages of the cache that rows are in; d = rows, heads, dim, columns of the page table, how the cache stores numbers, its stride,
// keys of a unit, 1 where bounds are F16. An item is 64 rows of one head, without those that go on with a unit begun before, and with those that go on behind.

#include "keys.h"

enum { WN(BOUNDS_ROWS) = 64 };

// bounds_of finds the least and the largest of count keys in a channel, from the first of a strip on; the next strip is step numbers away.
// Those behind, up to the next multiple of 16, may be anything.
WN_INLINE void WN(bounds_of)(const uint8_t *key, int64_t step, int64_t count, int f16, float *least, float *most) {
	int64_t bytes = f16 ? 2 : 4, i = 0;
	v16f low = v_zero(), high = low;
	for (; i < count; i += 16) {
		const uint8_t *from = key + i / 16 * step * bytes;
		v16f x = f16 ? v_load_f16(from) : v_load((const float *)from);
		if (count - i < 16) {
			float t[16];
			v_store(t, x);
			for (int64_t j = count - i; j < 16; j++) t[j] = t[0];
			x = v_load(t);
		}
		low = i ? v_min(low, x) : x, high = i ? v_max(high, x) : x;
	}
	*least = -v_most(v_sub(v_zero(), low));
	*most = v_most(high);
}

// bounds_put stores n numbers, step numbers apart.
WN_INLINE void WN(bounds_put)(uint8_t *to, int64_t step, const float *x, int64_t n, int f16) {
	uint16_t t[16];
	if (f16) v_store_f16(t, v_load(x));
	for (int64_t i = 0; i < n; i++) {
		if (f16) {
			memcpy(to + 2 * i * step, t + i, 2);
		} else {
			memcpy(to + 4 * i * step, x + i, 4);
		}
	}
}

// bounds_unit does one unit of one head: the keys from the unit's first to that in slot. page counts in pages and heads.
static void WN(bounds_unit)(const wn_op *op, const uint8_t *tile, int64_t page, int64_t slot) {
	int64_t dim = op->d[2], unit = op->d[6], units = 64 / unit, first = slot / unit * unit;
	int f16 = op->d[4] == WN_CACHE_F16, half = (int)op->d[7];
	int64_t bytes = f16 ? 2 : 4, each = half ? 2 : 4;
	uint8_t *to = (uint8_t *)op->p[1] + (page * 2 * dim * units + slot / unit) * each;
	for (int64_t d = 0; d < dim; d += 16) {
		float least[16] = {0}, most[16] = {0};
		int64_t n = wn_min(dim - d, 16);
		for (int64_t i = 0; i < n; i++) WN(bounds_of)(tile + (first * dim + (d + i) * 16) * bytes, dim * 16, slot - first + 1, f16, least + i, most + i);
		WN(bounds_put)(to + d * units * each, units, least, n, half);
		WN(bounds_put)(to + (dim + d) * units * each, units, most, n, half);
	}
}

static void WN(bounds_item)(void *arg, int64_t item, int worker) {
	const wn_op *op = arg;
	const int32_t *pages = op->p[2], *seq = op->p[3], *pos = op->p[4], *own = op->p[6];
	int64_t rows = op->d[0], heads = op->d[1], unit = op->d[6], dim = op->d[2];
	int kind = (int)op->d[4];
	int64_t head = item % heads, first = item / heads * WN(BOUNDS_ROWS), end = wn_min(first + WN(BOUNDS_ROWS), rows);
	for (int64_t r = first, last; r < end; r = last + 1) {
		for (last = r; last + 1 < rows && seq[last + 1] == seq[r] && pos[last + 1] / unit == pos[r] / unit;) last++;
		if (r == first && r > 0 && seq[r - 1] == seq[r] && pos[r - 1] / unit == pos[r] / unit) continue;
		int64_t in = seq[r] * op->d[3] + pos[r] / 64;
		const uint8_t *tile = (const uint8_t *)op->p[0] + wn_stored(kind, own[in] * op->d[5] + head * dim * 64);
		WN(bounds_unit)(op, WN(plain_keys)(tile, kind, dim, op->p[7], worker), pages[in] * heads + head, pos[last] % 64);
	}
}

void WN(wn_key_bounds)(wn_ctx *ctx, const wn_op *op) {
	wn_op o = *op;
	o.d[0] = wn_live(ctx, op->p[5], op->d[0]);
	float *room;
	if (!wn_widened(ctx, (int)op->d[4], op->d[2], &room)) return;
	o.p[7] = room;
	wn_parallel(ctx, wn_parts(o.d[0], WN(BOUNDS_ROWS)) * o.d[1], WN(bounds_item), &o);
}
