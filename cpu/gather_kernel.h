// Gather: p = x, rows, y, n; d = picked, dim, rows of x.

typedef struct WN(gather_job) {
	const float *x;
	const int32_t *rows;
	float *y;
	int64_t picked, dim, grain; // rows an item
} WN(gather_job);

static void WN(gather_item)(void *arg, int64_t item, int worker) {
	const WN(gather_job) *j = arg;
	(void)worker;
	int64_t lo = item * j->grain, hi = wn_min(lo + j->grain, j->picked);
	for (int64_t i = lo; i < hi; i++) memcpy(j->y + i * j->dim, j->x + j->rows[i] * j->dim, j->dim * sizeof *j->y);
}

void WN(wn_gather)(wn_ctx *ctx, const wn_op *op) {
	int64_t picked = wn_live(ctx, op->p[3], op->d[0]), dim = op->d[1];
	WN(gather_job) j = {op->p[0], op->p[1], op->p[2], picked, dim, wn_max(1, WN_VALUES / dim)};
	if (wn_check_rows(ctx, j.rows, picked, op->d[2])) wn_parallel(ctx, wn_parts(picked, j.grain), WN(gather_item), &j);
}
