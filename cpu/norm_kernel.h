// Norm: p = x, w, y, n; d = rows of the batch, groups, dim; f = eps. An item is whole rows.

typedef struct WN(norm_job) {
	const float *x, *w;
	float *y, eps;
	int64_t rows, dim, grain; // rows with groups counted; rows an item
} WN(norm_job);

// norm_row sums squares in four runs of 16 lanes, whose order depends on dim alone.
WN_INLINE void WN(norm_row)(const float *x, const float *w, float *y, int64_t dim, float eps) {
	v16f sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
	int64_t i = 0;
	for (; i + 64 <= dim; i += 64)
		for (int k = 0; k < 4; k++) {
			v16f v = v_load(x + i + 16 * k);
			sum[k] = v_fma(v, v, sum[k]);
		}
	for (; i < dim; i += 16) {
		v16f v = v_load_n(x + i, dim - i);
		sum[0] = v_fma(v, v, sum[0]);
	}
	float squares = v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));
	v16f scale = v_set((float)(1 / sqrt((double)squares / (double)dim + (double)eps)));
	for (i = 0; i < dim; i += 16) v_store_n(y + i, v_mul(v_mul(v_load_n(x + i, dim - i), scale), v_load_n(w + i, dim - i)), dim - i);
}

static void WN(norm_item)(void *arg, int64_t item, int worker) {
	const WN(norm_job) *j = arg;
	(void)worker;
	int64_t lo = item * j->grain, hi = wn_min(lo + j->grain, j->rows);
	for (int64_t r = lo; r < hi; r++) WN(norm_row)(j->x + r * j->dim, j->w, j->y + r * j->dim, j->dim, j->eps);
}

void WN(wn_norm)(wn_ctx *ctx, const wn_op *op) {
	int64_t rows = wn_live(ctx, op->p[3], op->d[0]) * op->d[1], dim = op->d[2];
	WN(norm_job) j = {op->p[0], op->p[1], op->p[2], op->f[0], rows, dim, wn_max(1, WN_VALUES / dim)};
	wn_parallel(ctx, wn_parts(rows, j.grain), WN(norm_item), &j);
}
