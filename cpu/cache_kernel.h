// Append: p = k, v, cache k, cache v, pages, seq, pos, n; d = rows, heads, dim, columns of the page table, 1 where the cache is F16, its
// stride. An item is 64 rows of one head, so that the tile they mostly share stays near.

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

static void WN(append_item)(void *arg, int64_t item, int worker) {
	const wn_op *op = arg;
	const float *k = op->p[0], *v = op->p[1];
	const int32_t *pages = op->p[4], *seq = op->p[5], *pos = op->p[6];
	int64_t rows = op->d[0], heads = op->d[1], dim = op->d[2], bytes = op->d[4] ? 2 : 4;
	int64_t head = item % heads, first = item / heads * WN(APPEND_ROWS), last = wn_min(first + WN(APPEND_ROWS), rows);
	(void)worker;
	for (int64_t r = first; r < last; r++) {
		int64_t slot = pos[r] % 64, page = pages[seq[r] * op->d[3] + pos[r] / 64], tile = page * op->d[5] + head * dim * 64;
		uint8_t *key = (uint8_t *)op->p[2] + (tile + slot) * bytes, *value = (uint8_t *)op->p[3] + (tile + slot * dim) * bytes;
		for (int64_t d = 0, from = (r * heads + head) * dim; d < dim; d += 16) {
			int64_t n = wn_min(dim - d, 16);
			WN(put16)(key + d * 64 * bytes, 64, v_load_n(k + from + d, n), n, bytes == 2);
			WN(put16)(value + d * bytes, 1, v_load_n(v + from + d, n), n, bytes == 2);
		}
	}
}

void WN(wn_append)(wn_ctx *ctx, const wn_op *op) {
	wn_op o = *op;
	o.d[0] = wn_live(ctx, op->p[7], op->d[0]);
	wn_parallel(ctx, (o.d[0] + WN(APPEND_ROWS) - 1) / WN(APPEND_ROWS) * o.d[1], WN(append_item), &o);
}
