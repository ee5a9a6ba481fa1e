// Tally: p = ids, logits, counts, n; d = rows, k, experts. Behind the experts' counts come those of rows and of logits that are NaN. On the
// calling thread: a step's choices are few, and its logits are read at the speed of memory.

void WN(wn_tally)(wn_ctx *ctx, const wn_op *op) {
	const int32_t *ids = op->p[0];
	const float *logits = op->p[1];
	uint32_t *counts = (uint32_t *)op->p[2]; // which wrap
	int64_t rows = wn_live(ctx, op->p[3], op->d[0]), k = op->d[1], experts = op->d[2];
	for (int64_t i = 0; i < rows * k; i++)
		if (ids[i] >= 0) counts[ids[i]]++;
	counts[experts] += (uint32_t)rows;
	if (!logits) return;
	int32_t nan = 0;
	for (int64_t i = 0; i < rows * experts; i++) nan += logits[i] != logits[i];
	counts[experts + 1] += (uint32_t)nan;
}
