// Dispatch: p = ids, weights, phys, offset, token, place, weight, n; d = rows, k, physical experts, rows of offset. A counting sort
// on the calling thread: a step's choices are few.

// choose writes each choice's expert into place and its factor into weight, and counts the rows of expert e in offset[e+1].
static void WN(choose)(const wn_op *op, int64_t rows) {
	const int32_t *ids = op->p[0], *phys = op->p[2];
	const float *factor = op->p[1];
	int32_t *offset = op->p[3], *place = op->p[5];
	float *weight = op->p[6];
	int64_t k = op->d[1];
	for (int64_t i = 0; i < rows * k; i++) {
		place[i] = -1, weight[i] = 0;
		if (ids[i] < 0 || phys[ids[i]] < 0) continue;
		int32_t expert = phys[ids[i]];
		int64_t slot = i - i % k;
		while (slot < i && place[slot] != expert) slot++;
		weight[slot] += factor[i];
		if (slot == i) place[i] = expert, offset[expert + 1]++;
	}
}

void WN(wn_dispatch)(wn_ctx *ctx, const wn_op *op) {
	int32_t *offset = op->p[3], *token = op->p[4], *place = op->p[5];
	int64_t rows = wn_live(ctx, op->p[7], op->d[0]), k = op->d[1], experts = op->d[2];
	int32_t *next = wn_scratch(ctx, (experts + 1) * sizeof *next);
	if (!next) return;
	memset(offset, 0, op->d[3] * sizeof *offset);
	WN(choose)(op, rows);
	for (int64_t e = 0; e < experts; e++) offset[e + 1] += offset[e];
	memcpy(next, offset, (experts + 1) * sizeof *next);
	for (int64_t i = 0; i < rows * k; i++) {
		if (place[i] < 0) continue;
		place[i] = next[place[i]]++;
		token[place[i]] = (int32_t)(i / k);
	}
}
