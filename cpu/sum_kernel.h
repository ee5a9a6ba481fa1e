// Sum: p = x, start, y, n; d = sums, dim, rows of x. An item is a few columns of one sum, whose rows are added in order.

typedef struct WN(sum_job) {
	const float *x;
	const int32_t *start;
	float *y;
	int64_t dim, strips; // columns; strips of them in a row
} WN(sum_job);

enum { WN(sum_cols) = 128 };

static void WN(sum_item)(void *arg, int64_t item, int worker) {
	const WN(sum_job) *j = arg;
	(void)worker;
	int64_t i = item / j->strips, lo = item % j->strips * WN(sum_cols), hi = wn_min(lo + WN(sum_cols), j->dim);
	for (int64_t c = lo; c < hi; c += 16) {
		float *y = j->y + i * j->dim + c;
		v16f sum = v_load_n(y, hi - c);
		for (int64_t r = j->start[i]; r < j->start[i + 1]; r++) sum = v_add(sum, v_load_n(j->x + r * j->dim + c, hi - c));
		v_store_n(y, sum, hi - c);
	}
}

void WN(wn_sum)(wn_ctx *ctx, const wn_op *op) {
	int64_t sums = wn_live(ctx, op->p[3], op->d[0]), dim = op->d[1];
	WN(sum_job) j = {op->p[0], op->p[1], op->p[2], dim, wn_parts(dim, WN(sum_cols))};
	if (sums > 0 && wn_check_rows(ctx, j.start, sums + 1, op->d[2] + 1)) wn_parallel(ctx, sums * j.strips, WN(sum_item), &j);
}
