// SelectWindow: p = pos, local, n; d = rows, width.

void WN(wn_select_window)(wn_ctx *ctx, const wn_op *op) {
	const int32_t *pos = op->p[0];
	int32_t *local = op->p[1];
	int64_t rows = wn_live(ctx, op->p[2], op->d[0]);
	for (int64_t i = 0; i < rows; i++) local[i] = (int32_t)wn_max(0, pos[i] - op->d[1] + 1);
}
