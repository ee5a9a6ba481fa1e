// Groups of tiles that are planned as one, and what their selectors read: see attention.Groups and entry.groups.
#ifndef WN_GROUPS_H
#define WN_GROUPS_H

#include "tiles.h"

enum { WN_STRIP = 16 }; // queries whose scores with all keys are kept at a time

typedef struct wn_group {
	int64_t tile, row, start; // its first tile, row and position
	float knob;
} wn_group;

typedef struct wn_groups {
	wn_tiles tiles;
	const float *q;
	const uint8_t *k;
	const int32_t *pages, *seq;
	int64_t heads, kv, dim, columns, stride, size; // columns: of the page table; stride: numbers from page to page; size: positions of a group
	int f16;
	float scale;

	wn_group *list;
	int64_t count, longest; // longest: keys that the last query of a group sees, at most
	float *work; // of work_floats for each thread
	int64_t work_floats;
} wn_groups;

enum { WN_GROUPS_P = WN_TILES_P + 4, WN_GROUPS_D = WN_TILES_D + 7 }; // pointers and numbers of a descriptor that groups take; and two floats

static inline int64_t wn_end(const wn_groups *s, const wn_group *g) { return g->start + s->size; }

// wn_find lists the whole groups, and has all tiles that are served read everything for now.
static inline void wn_find(wn_groups *s) {
	const wn_tiles *t = &s->tiles;
	wn_group open = {0};
	int64_t next = -1;
	for (int64_t i = 0; i < t->n; i++) {
		if (t->policy[i] != t->serves) continue;
		for (int64_t h = 0; h < t->groups; h++) wn_plan_row(t, i * t->groups + h, 0, 0);
		int64_t first = t->first[i], start = t->pos[first];
		int whole = start % WN_PAGE_KEYS == 0, opens = start % s->size == 0;
		int follows = i == next && s->seq[first] == s->seq[open.row] && start == open.start + first - open.row && whole;
		next = -1;
		if (opens) open = (wn_group){i, first, start, wn_knob(t, i)};
		if (!opens && !follows) continue;
		next = i + 1;
		if (t->first[i + 1] - open.row == s->size) {
			s->list[s->count++] = open;
			s->longest = wn_max(s->longest, wn_end(s, &open));
			next = -1;
		}
	}
}

// wn_groups_of unpacks a descriptor and finds the groups. There are none when memory is short.
static inline wn_groups wn_groups_of(wn_ctx *ctx, const wn_op *op) {
	void *const *p = op->p + WN_TILES_P;
	const int64_t *d = op->d + WN_TILES_D;
	wn_groups s = {.tiles = wn_tiles_of(ctx, op), .q = p[0], .k = p[1], .pages = p[2], .seq = p[3], .heads = d[0], .kv = d[1], .dim = d[2],
		.columns = d[3], .stride = d[4], .f16 = (int)d[5], .size = d[6], .scale = op->f[1]};
	s.list = wn_scratch(ctx, s.tiles.n * sizeof *s.list);
	if (s.list) wn_find(&s);
	return s;
}

// wn_keys is the tile of keys of a key-value head in a page of a group's sequence.
static inline const uint8_t *wn_keys(const wn_groups *s, const wn_group *g, int64_t kv, int64_t page) {
	int64_t at = s->pages[s->seq[g->row] * s->columns + page] * s->stride + kv * s->dim * WN_PAGE_KEYS;
	return s->k + at * (s->f16 ? 2 : 4);
}

#endif
