// SelectMInference: what groups take; d = columns, diagonals. f = times both, scale. An item is a group under a plan group of heads.

#include "minference.h"
#include "pick.h"
#include "sight.h"

typedef struct WN(lines) {
	wn_groups groups;
	int64_t columns, diagonals;
} WN(lines);

// crossed marks the distances in pages at which the distances that a group looks at cross a page.
static void WN(crossed)(const WN(lines) *s, const WN(sight) *e, const wn_run_of_tiles *g, uint8_t *marks) {
	int64_t end = wn_end(g);
	for (int64_t k = 0; k < wn_min(WN_NEAR_DIAGONALS, end); k++) e->diagonals[end - 1 - k] = INFINITY;
	int64_t n = wn_top(e->diagonals, end, (int64_t)((float)s->diagonals * g->knob), e->picked, e->room);
	memset(marks, 0, end / WN_PAGE_KEYS + 1);
	for (int64_t i = 0; i < n; i++) {
		int64_t distance = end - 1 - e->picked[i];
		marks[distance / WN_PAGE_KEYS] = marks[wn_parts(distance, WN_PAGE_KEYS)] = 1;
	}
}

// lines_of writes the plan row of a page's tile, and returns what reading it costs: 5 a key of a block, 8 a single key.
static int64_t WN(lines_of)(const wn_tiles *t, int64_t r, int64_t page, const int32_t *columns, int64_t n, const uint8_t *marks) {
	wn_plan_row(t, r, 0, page * WN_PAGE_KEYS);
	int32_t *blocks = t->blocks + r * t->block_room, *keys = t->keys + r * t->key_room;
	int64_t block_n = 0, key_n = 0;
	for (int64_t b = 0, at = 0, next; b < page; b++, at = next) {
		for (next = at; next < n && columns[next] < (b + 1) * WN_PAGE_KEYS;) next++;
		if (marks[page - b] || next - at > WN_PAGE_KEYS / 2) {
			if (block_n < t->block_room) blocks[block_n++] = (int32_t)b;
		} else {
			memcpy(keys + key_n, columns + at, (next - at) * sizeof *keys);
			key_n += next - at;
		}
	}
	t->block_n[r] = (int32_t)block_n, t->key_n[r] = (int32_t)key_n;
	return 5 * WN_PAGE_KEYS * block_n + 8 * key_n;
}

static void WN(lines_item)(void *arg, int64_t item, int worker) {
	const WN(lines) *s = arg;
	const wn_groups *o = &s->groups;
	const wn_tiles *t = &o->tiles;
	const wn_run_of_tiles *g = &o->list[item / t->groups];
	int64_t h = item % t->groups, end = wn_end(g);
	if (2 * (int64_t)((float)s->diagonals * g->knob) > end) return; // it reads everything as it is
	WN(sight) e = WN(sight_of)(o, worker);
	WN(look)(o, &e, g, h * o->s.heads / t->groups, (WN(looks)){WN_LAST_QUERIES, 1}, worker);
	uint8_t *marks = (uint8_t *)e.scores; // which have been summed
	WN(crossed)(s, &e, g, marks);
	for (int64_t k = 0; k < wn_min(WN_FIRST_COLUMNS, end); k++) e.columns[k] = INFINITY;
	int64_t n = wn_top(e.columns, end, wn_min((int64_t)((float)s->columns * g->knob), t->key_room), e.picked, e.room);
	int64_t cost = 0, before = 0;
	for (int64_t i = 0; i < g->tiles; i++) {
		int64_t page = g->pos / WN_PAGE_KEYS + i;
		cost += WN(lines_of)(t, (g->tile + i) * t->groups + h, page, e.picked, n, marks), before += 5 * WN_PAGE_KEYS * page;
	}
	for (int64_t i = 0; i < g->tiles && 10 * cost >= 9 * before; i++) wn_plan_row(t, (g->tile + i) * t->groups + h, 0, 0);
}

void WN(wn_select_minference)(wn_ctx *ctx, const wn_op *op) {
	WN(lines) s = {wn_groups_of(ctx, op), op->d[WN_SCORED_D], op->d[WN_SCORED_D + 1]};
	if (WN(sights)(ctx, &s.groups, 0)) wn_parallel(ctx, s.groups.count * s.groups.tiles.groups, WN(lines_item), &s);
}
