// Prune: p = cache k, cache v, pruned k, pruned v, pages, dense pages, seq, pos, n; d = rows, heads, dim, columns of the page tables, stride of the
// cache in numbers, numbers kept, stride of pruned pages in bytes. An item is a page that a row fills and a head of it.

#include "stored.h"

typedef struct WN(prune) {
	const wn_op *op;
	int64_t *rows; // those that fill a page
	uint8_t *work; // of work_bytes for each thread
	int64_t work_bytes;
} WN(prune);

// keep_bits marks the keep largest magnitudes of dim binary16 numbers, of equals the first ones.
static void WN(keep_bits)(const uint16_t *x, int64_t dim, int64_t keep, uint64_t *bits) {
	uint16_t least = 0; // the largest magnitude that keep numbers reach at least
	for (int b = 14; b >= 0; b--) {
		uint16_t tried = least | (uint16_t)(1 << b);
		int64_t n = 0;
		for (int64_t d = 0; d < dim; d++) n += (x[d] & 0x7fff) >= tried;
		if (n >= keep) least = tried;
	}
	for (int64_t d = 0; d < dim; d++) keep -= (x[d] & 0x7fff) > least;
	for (int64_t w = 0; 64 * w < dim; w++) bits[w] = 0;
	for (int64_t d = 0; d < dim; d++) {
		int equal = (x[d] & 0x7fff) == least && keep > 0;
		if ((x[d] & 0x7fff) > least || equal) bits[d / 64] |= (uint64_t)1 << d % 64;
		keep -= equal;
	}
}

// put_kept writes the numbers of a row that have a bit, and gives where the next ones go.
static uint16_t *WN(put_kept)(const uint16_t *x, int64_t step, uint64_t bits, uint16_t *to) {
	for (; bits; bits &= bits - 1) *to++ = x[__builtin_ctzll(bits) * step];
	return to;
}

static void WN(prune_item)(void *arg, int64_t item, int worker) {
	const WN(prune) *j = arg;
	const wn_op *op = j->op;
	const int32_t *pages = op->p[4], *own = op->p[5], *seq = op->p[6], *pos = op->p[7];
	int64_t heads = op->d[1], dim = op->d[2], keep = op->d[5], head = item % heads, row = j->rows[item / heads];
	int64_t at = seq[row] * op->d[3] + pos[row] / 64, from = own[at] * op->d[4] + head * dim * 64;
	int64_t to = pages[at] * op->d[6] + head * 64 * (2 * keep + dim / 8);
	const uint16_t *k = (const uint16_t *)op->p[0] + from, *v = (const uint16_t *)op->p[1] + from;
	uint16_t *kept_k = (uint16_t *)((uint8_t *)op->p[2] + to), *kept_v = (uint16_t *)((uint8_t *)op->p[3] + to);
	uint64_t *bits_k = (uint64_t *)(kept_k + 64 * keep);
	uint8_t *bits_v = (uint8_t *)(kept_v + 64 * keep);
	uint16_t *rows = (uint16_t *)(j->work + worker * j->work_bytes); // keys, 64 x dim
	uint64_t *bits = (uint64_t *)(rows + 64 * dim); // of one
	memset(bits_k, 0, dim * 8);
	for (int64_t slot = 0; slot < 64; slot++) {
		const uint16_t *key = k + wn_key_at(dim, slot);
		uint16_t *x = rows + slot * dim;
		for (int64_t d = 0; d < dim; d++) x[d] = key[d * WN_STRIP_KEYS];
		WN(keep_bits)(x, dim, keep, bits);
		for (int64_t d = 0; d < dim; d++) bits_k[d] |= (bits[d / 64] >> d % 64 & 1) << slot;
		WN(keep_bits)(v + slot * dim, dim, keep, bits);
		memcpy(bits_v + slot * dim / 8, bits, dim / 8);
		for (int64_t w = 0; 64 * w < dim; w++) kept_v = WN(put_kept)(v + slot * dim + 64 * w, 1, bits[w], kept_v);
	}
	for (int64_t d = 0; d < dim; d++) kept_k = WN(put_kept)(rows + d, dim, bits_k[d], kept_k);
}

void WN(wn_prune)(wn_ctx *ctx, const wn_op *op) {
	const int32_t *pos = op->p[7];
	int64_t rows = wn_live(ctx, op->p[8], op->d[0]), n = 0, dim = op->d[2];
	WN(prune) j = {.op = op, .rows = wn_scratch(ctx, (rows + 1) * sizeof *j.rows), .work_bytes = 2 * 64 * dim + wn_parts(dim, 64) * 8};
	j.work_bytes = wn_parts(j.work_bytes, 64) * 64;
	j.work = wn_scratch(ctx, wn_threads(ctx) * j.work_bytes);
	if (!j.rows || !j.work) return;
	for (int64_t r = 0; r < rows; r++)
		if (pos[r] % 64 == 63) j.rows[n++] = r;
	wn_parallel(ctx, n * op->d[1], WN(prune_item), &j);
}
