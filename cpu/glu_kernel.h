// GLU: p = gate, up, y, n; d = rows, dim.

typedef struct WN(glu_job) {
	const float *gate, *up;
	float *y;
	int64_t count;
} WN(glu_job);

static void WN(glu_item)(void *arg, int64_t item, int worker) {
	const WN(glu_job) *j = arg;
	(void)worker;
	int64_t lo = item * (WN_VALUES / 2), hi = wn_min(lo + WN_VALUES / 2, j->count);
	for (int64_t i = lo; i < hi; i += 16) v_store_n(j->y + i, v_swiglu(v_load_n(j->gate + i, hi - i), v_load_n(j->up + i, hi - i)), hi - i);
}

void WN(wn_glu)(wn_ctx *ctx, const wn_op *op) {
	WN(glu_job) j = {op->p[0], op->p[1], op->p[2], wn_live(ctx, op->p[3], op->d[0]) * op->d[1]};
	wn_parallel(ctx, wn_parts(j.count, WN_VALUES / 2), WN(glu_item), &j);
}
