// Embed: p = ids, table, y, n; d = rows, dim, vocab, kind. The table is packed: it may serve as the output matrix too.

typedef struct WN(embed_job) {
	wn_weights table;
	const int32_t *ids;
	float *y;
} WN(embed_job);

static void WN(embed_item)(void *arg, int64_t item, int worker) {
	const WN(embed_job) *j = arg;
	(void)worker;
	wn_unpack_row(&j->table, j->ids[item], j->y + item * j->table.cols);
}

void WN(wn_embed)(wn_ctx *ctx, const wn_op *op) {
	WN(embed_job) j = {{op->d[3], op->d[2], op->d[1], op->p[1]}, op->p[0], op->p[2]};
	int64_t rows = wn_live(ctx, op->p[3], op->d[0]);
	if (wn_check_rows(ctx, j.ids, rows, op->d[2])) wn_parallel(ctx, rows, WN(embed_item), &j);
}
