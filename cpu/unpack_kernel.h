// Unpack: p = cache k, pruned k, to, pages, pages of the cache that rows are in, seq, pos, first, tiles in use, policy; d = tiles, heads, dim, columns of
// the page tables, stride of the cache in numbers, numbers kept, stride of pruned pages in bytes, stride of to in numbers, policy served. An item is a
// page of a sequence that is served, and a head of it.

#include "keys.h"

typedef struct WN(unpack_page) {
	int64_t in; // where the page tables have it
	int whole; // it is not full, and so not pruned
} WN(unpack_page);

typedef struct WN(unpack) {
	const wn_op *op;
	WN(unpack_page) *list;
	float *room; // for a tile, of each thread
} WN(unpack);

static void WN(unpack_item)(void *arg, int64_t item, int worker) {
	const WN(unpack) *j = arg;
	const wn_op *op = j->op;
	const int32_t *pages = op->p[3], *own = op->p[4];
	int64_t heads = op->d[1], dim = op->d[2], keep = op->d[5], head = item % heads;
	const WN(unpack_page) *p = &j->list[item / heads];
	uint8_t *to = (uint8_t *)op->p[2] + 2 * (pages[p->in] * op->d[7] + head * dim * 64);
	if (p->whole) {
		memcpy(to, (const uint8_t *)op->p[0] + 2 * (own[p->in] * op->d[4] + head * dim * 64), dim * 128);
		return;
	}
	float *room = j->room + worker * dim * 64;
	WN(spread_keys)((const uint8_t *)op->p[1] + pages[p->in] * op->d[6] + head * 64 * (2 * keep + dim / 8), dim, keep, room);
	for (int64_t i = 0; i < dim * 64; i += 16) v_store_f16(to + 2 * i, v_load(room + i));
}

// unpack_list lists the pages of all sequences that are served, where there is a list, and says how many there are. The last of a sequence's
// neighbouring tiles sees them all.
static int64_t WN(unpack_list)(const wn_op *op, int64_t tiles, WN(unpack_page) *list) {
	const int32_t *seq = op->p[5], *pos = op->p[6], *first = op->p[7], *policy = op->p[9];
	int64_t n = 0;
	for (int64_t i = 0; i < tiles; i++) {
		int64_t row = first[i + 1] - 1, own = pos[row] / 64;
		if (policy[i] != op->d[8] || (i + 1 < tiles && policy[i + 1] == op->d[8] && seq[first[i + 1]] == seq[row])) continue;
		for (int64_t page = 0; list && page <= own; page++)
			list[n + page] = (WN(unpack_page)){seq[row] * op->d[3] + page, page == own && pos[row] % 64 != 63};
		n += own + 1;
	}
	return n;
}

void WN(wn_unpack)(wn_ctx *ctx, const wn_op *op) {
	int64_t tiles = wn_live(ctx, op->p[8], op->d[0]), n = WN(unpack_list)(op, tiles, NULL);
	if (!n) return;
	WN(unpack) j = {.op = op, .list = wn_scratch(ctx, n * sizeof *j.list)};
	if (!j.list || !wn_floats(ctx, op->d[2], &j.room)) return;
	WN(unpack_list)(op, tiles, j.list);
	wn_parallel(ctx, n * op->d[1], WN(unpack_item), &j);
}
