// SelectS2: what tiles take; then p = columns; d = stride. f = local. An item is a tile.

#include "tiles.h"

typedef struct WN(s2) {
	wn_tiles tiles;
	const int32_t *columns;
	int64_t stride;
} WN(s2);

static void WN(s2_tile)(void *arg, int64_t tile, int worker) {
	const WN(s2) *s = arg;
	const wn_tiles *t = &s->tiles;
	(void)worker;
	if (t->policy[tile] != t->serves) return;
	int64_t start = wn_max(0, t->pos[t->first[tile]] / WN_PAGE_KEYS - (int64_t)wn_knob(t, tile) + 1);
	for (int64_t g = 0; g < t->groups; g++) {
		int64_t r = tile * t->groups + g, n = 0;
		int whole = s->columns[g] < 0;
		wn_plan_row(t, r, 0, whole ? 0 : start * WN_PAGE_KEYS);
		if (whole) continue;
		for (int64_t b = s->columns[g]; b < start && n < t->block_room; b += s->stride) t->blocks[r * t->block_room + n++] = (int32_t)b;
		if (t->block_n) t->block_n[r] = (int32_t)n;
	}
}

void WN(wn_select_s2)(wn_ctx *ctx, const wn_op *op) {
	WN(s2) s = {wn_tiles_of(ctx, op), op->p[WN_TILES_P], op->d[WN_TILES_D]};
	wn_parallel(ctx, s.tiles.n, WN(s2_tile), &s);
}
