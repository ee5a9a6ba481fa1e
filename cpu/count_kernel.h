// Count: the plan; then p = seq, pos, n, y; d = rows, sequences. On the calling thread: it is a few sums a row.

#include "plan.h"

void WN(wn_count)(wn_ctx *ctx, const wn_op *op) {
	wn_plan plan = wn_plan_of(op->p, op->d);
	const int32_t *seq = op->p[9], *pos = op->p[10];
	float *y = op->p[12];
	int64_t rows = wn_live(ctx, op->p[11], op->d[2]), sequences = op->d[3];
	int64_t *sum = wn_scratch(ctx, 2 * sequences * sizeof *sum);
	if (!sum || !wn_check_rows(ctx, seq, rows, sequences)) return;
	memset(sum, 0, 2 * sequences * sizeof *sum);
	for (int64_t i = 0; i < rows; i++) {
		int64_t last = -1, reads = 0;
		for (int64_t h = 0; h < plan.heads; h++) {
			int64_t r = wn_row_of(&plan, i, h);
			if (r != last) {
				reads = plan.sink[r] + pos[i] + 1 - plan.local[r];
				if (plan.block_n) reads += (int64_t)64 * plan.block_n[r];
				if (plan.key_n) reads += plan.key_n[r];
				last = r;
			}
			sum[2 * seq[i]] += reads, sum[2 * seq[i] + 1] += pos[i] + 1;
		}
	}
	for (int64_t s = 0; s < sequences; s++) {
		if (sum[2 * s + 1] == 0) continue; // not in this step
		y[2 * s] += (float)sum[2 * s], y[2 * s + 1] += (float)sum[2 * s + 1];
	}
}
