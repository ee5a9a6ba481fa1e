// Tally: p = ids, logits, counts, n; d = rows, k, experts. Behind the experts' counts come those of rows, of logits that are NaN, of steps and of
// experts that were chosen at all. On the calling thread: a step's choices are few, and its logits are read at the speed of memory.

void WN(wn_tally)(wn_ctx *ctx, const wn_op *op) {
	const int32_t *ids = op->p[0];
	const float *logits = op->p[1];
	uint32_t *counts = (uint32_t *)op->p[2]; // which wrap
	int64_t rows = wn_live(ctx, op->p[3], op->d[0]), k = op->d[1], experts = op->d[2];
	uint64_t seen[1024 / 64] = {0}; // a bit for each of moe.MostExperts
	for (int64_t i = 0; i < rows * k; i++) {
		if (ids[i] < 0) continue;
		counts[ids[i]]++;
		uint64_t bit = (uint64_t)1 << (ids[i] & 63), *word = &seen[ids[i] >> 6];
		counts[experts + 3] += !(*word & bit);
		*word |= bit;
	}
	counts[experts] += (uint32_t)rows;
	counts[experts + 2] += rows > 0;
	if (!logits) return;
	int32_t nan = 0;
	for (int64_t i = 0; i < rows * experts; i++) nan += logits[i] != logits[i];
	counts[experts + 1] += (uint32_t)nan;
}
