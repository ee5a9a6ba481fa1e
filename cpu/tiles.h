// The tiles of a step, and the plan that selectors write for them. What follows in a descriptor's pointers and numbers is the same for
// all selectors: see entry.tiles.
#ifndef WN_TILES_H
#define WN_TILES_H

#include "cpu.h"

enum { WN_PAGE_KEYS = 64 };

typedef struct wn_tiles {
	const int32_t *first, *policy, *pos;
	const float *knob;
	int64_t n; // in use
	int32_t *sink, *local, *block_at, *block_n, *blocks, *key_at, *key_n, *keys;
	int64_t groups, block_room, key_room;
	int64_t serves; // the policy whose tiles are to be planned
	float own; // the knob where a request has none
} wn_tiles;

enum { WN_TILES_P = 13, WN_TILES_D = 5 }; // pointers and numbers of a descriptor that tiles take

static inline wn_tiles wn_tiles_of(wn_ctx *ctx, const wn_op *op) {
	void *const *p = op->p;
	const int64_t *d = op->d;
	return (wn_tiles){.first = p[0], .n = wn_live(ctx, p[1], d[0]), .policy = p[2], .knob = p[3], .pos = p[4], .sink = p[5], .local = p[6],
		.block_at = p[7], .block_n = p[8], .blocks = p[9], .key_at = p[10], .key_n = p[11], .keys = p[12], .serves = d[1], .groups = d[2],
		.block_room = d[3], .key_room = d[4], .own = op->f[0]};
}

static inline float wn_knob(const wn_tiles *t, int64_t tile) { return t->knob[tile] != t->knob[tile] ? t->own : t->knob[tile]; }

// wn_plan_row sets the ranges of a plan row, whose lists are empty for now and lie where the row has room.
static inline void wn_plan_row(const wn_tiles *t, int64_t r, int64_t sink, int64_t local) {
	t->sink[r] = (int32_t)sink, t->local[r] = (int32_t)local;
	if (t->block_at) t->block_at[r] = (int32_t)(r * t->block_room), t->block_n[r] = 0;
	if (t->key_at) t->key_at[r] = (int32_t)(r * t->key_room), t->key_n[r] = 0;
}

// wn_share makes plan row r read the lists of another one.
static inline void wn_share(const wn_tiles *t, int64_t r, int64_t with) {
	if (t->block_at) t->block_at[r] = t->block_at[with], t->block_n[r] = t->block_n[with];
	if (t->key_at) t->key_at[r] = t->key_at[with], t->key_n[r] = t->key_n[with];
}

// wn_plan_rows sets the ranges of n plan rows from r on, which share lists that are empty for now.
static inline void wn_plan_rows(const wn_tiles *t, int64_t r, int64_t n, int64_t sink, int64_t local) {
	for (int64_t i = r; i < r + n; i++) {
		wn_plan_row(t, i, sink, local);
		wn_share(t, i, r);
	}
}

// wn_room_for is attention.roomFor: whether so many plan rows have room together for lists of keys that are chosen unit by unit.
static inline int wn_room_for(const wn_tiles *t, int64_t rows, int64_t keys, int64_t unit) {
	return keys / WN_PAGE_KEYS <= rows * t->block_room && (unit == WN_PAGE_KEYS || keys <= rows * t->key_room);
}

#endif
