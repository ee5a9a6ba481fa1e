// Angles: p = pos, freq, y, n; d = rows, half; f = scale. An item is a few rows.
// Rope: p = x, angles, n; d = rows of the batch, heads, dim, half, 1 for halves or 0 for neighbours. An item is a few heads.

typedef struct WN(angles_job) {
	const int32_t *pos;
	const float *freq;
	float *y, scale;
	int64_t rows, half, grain;
} WN(angles_job);

static void WN(angles_item)(void *arg, int64_t item, int worker) {
	const WN(angles_job) *j = arg;
	(void)worker;
	int64_t lo = item * j->grain, hi = wn_min(lo + j->grain, j->rows);
	for (int64_t i = lo; i < hi; i++) {
		float *cosines = j->y + i * 2 * j->half, *sines = cosines + j->half;
		for (int64_t k = 0; k < j->half; k++) {
			double angle = (double)((float)j->pos[i] * j->freq[k]);
			cosines[k] = (float)cos(angle) * j->scale, sines[k] = (float)sin(angle) * j->scale;
		}
	}
}

void WN(wn_angles)(wn_ctx *ctx, const wn_op *op) {
	int64_t rows = wn_live(ctx, op->p[3], op->d[0]), half = op->d[1];
	WN(angles_job) j = {op->p[0], op->p[1], op->p[2], op->f[0], rows, half, wn_max(1, 128 / wn_max(half, 1))};
	wn_parallel(ctx, wn_parts(rows, j.grain), WN(angles_item), &j);
}

typedef struct WN(rope_job) {
	float *x;
	const float *angles;
	int64_t rows, heads, dim, half, halves, grain; // rows with heads counted; rows an item
} WN(rope_job);

// Products and sums are rounded one by one, as the Reference does.
WN_INLINE void WN(turn_halves)(float *x, const float *turn, int64_t half) {
	for (int64_t i = 0; i < half; i += 16) {
		int64_t n = half - i;
		v16f u = v_load_n(x + i, n), v = v_load_n(x + half + i, n), c = v_load_n(turn + i, n), s = v_load_n(turn + half + i, n);
		v_store_n(x + i, v_sub(v_mul(u, c), v_mul(v, s)), n);
		v_store_n(x + half + i, v_add(v_mul(u, s), v_mul(v, c)), n);
	}
}

WN_INLINE void WN(turn_neighbours)(float *x, const float *turn, int64_t half) {
	for (int64_t i = 0; i < half; i++) {
		float u = x[2 * i], v = x[2 * i + 1], c = turn[i], s = turn[half + i];
		x[2 * i] = u * c - v * s, x[2 * i + 1] = u * s + v * c;
	}
}

static void WN(rope_item)(void *arg, int64_t item, int worker) {
	const WN(rope_job) *j = arg;
	(void)worker;
	int64_t lo = item * j->grain, hi = wn_min(lo + j->grain, j->rows);
	for (int64_t r = lo; r < hi; r++) {
		const float *turn = j->angles + r / j->heads * 2 * j->half;
		if (j->halves) {
			WN(turn_halves)(j->x + r * j->dim, turn, j->half);
		} else {
			WN(turn_neighbours)(j->x + r * j->dim, turn, j->half);
		}
	}
}

void WN(wn_rope)(wn_ctx *ctx, const wn_op *op) {
	int64_t heads = op->d[1], rows = wn_live(ctx, op->p[2], op->d[0]) * heads, dim = op->d[2];
	WN(rope_job) j = {op->p[0], op->p[1], rows, heads, dim, op->d[3], op->d[4], wn_max(1, WN_VALUES / dim)};
	wn_parallel(ctx, wn_parts(rows, j.grain), WN(rope_item), &j);
}
