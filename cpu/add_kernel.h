// Add: p = x, y, n; d = rows, dim.

typedef struct WN(add_job) {
	const float *x;
	float *y;
	int64_t count;
} WN(add_job);

static void WN(add_item)(void *arg, int64_t item, int worker) {
	const WN(add_job) *j = arg;
	(void)worker;
	int64_t lo = item * WN_VALUES, hi = wn_min(lo + WN_VALUES, j->count);
	for (int64_t i = lo; i < hi; i += 16) v_store_n(j->y + i, v_add(v_load_n(j->y + i, hi - i), v_load_n(j->x + i, hi - i)), hi - i);
}

void WN(wn_add)(wn_ctx *ctx, const wn_op *op) {
	WN(add_job) j = {op->p[0], op->p[1], wn_live(ctx, op->p[2], op->d[0]) * op->d[1]};
	wn_parallel(ctx, wn_parts(j.count, WN_VALUES), WN(add_item), &j);
}
