// Runs of tiles that are planned together, and where their lists lie: what attention/runs.go says.
#ifndef WN_RUNS_H
#define WN_RUNS_H

#include "tiles.h"

typedef struct wn_run_of_tiles {
	int64_t tile, tiles, row, rows, pos, seq;
	float knob;
} wn_run_of_tiles;

// wn_next_run finds the run that starts at tile i or after it, between whose positions there is no multiple of size. Returns the tile
// after it, or 0 where there is none.
static inline int64_t wn_next_run(const wn_tiles *t, const int32_t *seq, int64_t i, int64_t size, wn_run_of_tiles *r) {
	while (i < t->n && t->policy[i] != t->serves) i++;
	if (i >= t->n) return 0;
	int64_t row = t->first[i];
	*r = (wn_run_of_tiles){.tile = i, .row = row, .pos = t->pos[row], .seq = seq[row], .knob = wn_knob(t, i)};
	for (i++; i < t->n && t->policy[i] == t->serves; i++) {
		int64_t next = t->first[i];
		if (seq[next] != r->seq || t->pos[next] / size != r->pos / size) break;
	}
	r->tiles = i - r->tile, r->rows = t->first[i] - row;
	return i;
}

// wn_run_at is where a run's list starts for a group of heads; room is that of a plan row.
static inline int64_t wn_run_at(const wn_tiles *t, const wn_run_of_tiles *r, int64_t group, int64_t room) {
	return (r->tile * t->groups + group * r->tiles) * room;
}

// wn_pays is attention.run.pays: whether reading everything costs no more than so many of the keys before a run.
static inline int wn_pays(const wn_run_of_tiles *r, int64_t keys) { return 8 * keys >= 5 * r->pos; }

// wn_run_rows sets the plan rows of a run and a group of heads, whose lists have been written. Where little would be left out, they read
// everything.
static inline void wn_run_rows(const wn_tiles *t, const wn_run_of_tiles *r, int64_t group, const int64_t ranges[2], const int64_t counts[2]) {
	const int64_t nothing[2] = {0, 0};
	if (wn_pays(r, ranges[0] + r->pos - ranges[1] + counts[0] * WN_PAGE_KEYS + counts[1])) ranges = counts = nothing;
	for (int64_t i = r->tile; i < r->tile + r->tiles; i++) {
		int64_t p = i * t->groups + group;
		t->sink[p] = (int32_t)ranges[0], t->local[p] = (int32_t)ranges[1];
		t->block_at[p] = (int32_t)wn_run_at(t, r, group, t->block_room), t->block_n[p] = (int32_t)counts[0];
		t->key_at[p] = (int32_t)wn_run_at(t, r, group, t->key_room), t->key_n[p] = (int32_t)counts[1];
	}
}

// Keys that are chosen for a run: a bit for each of a page, of pages from to to. A page with more than single of them is listed as a block.
typedef struct wn_chosen {
	uint64_t *keys;
	int64_t from, to, single;
} wn_chosen;

// wn_split is attention.split: it writes the lists of a run and a group of heads, and how long they are.
static inline void wn_split(const wn_tiles *t, const wn_run_of_tiles *r, int64_t group, const wn_chosen *c, int64_t counts[2]) {
	int32_t *blocks = t->blocks + wn_run_at(t, r, group, t->block_room), *keys = t->keys + wn_run_at(t, r, group, t->key_room);
	int64_t n[WN_PAGE_KEYS + 1] = {0}, most = 0, room = r->tiles * t->key_room; // n: pages by how many of their keys are chosen
	counts[0] = counts[1] = 0;
	for (int64_t page = c->from; page < c->to; page++) n[__builtin_popcountll(c->keys[page])]++;
	for (; most < c->single && (most + 1) * n[most + 1] <= room; room -= most * n[most]) most++;
	for (int64_t page = c->from; page < c->to; page++) {
		int64_t count = __builtin_popcountll(c->keys[page]);
		if (count == most + 1 && count <= wn_min(c->single, room)) {
			room -= count;
		} else if (count > most) {
			blocks[counts[0]++] = (int32_t)page;
			continue;
		}
		for (uint64_t left = c->keys[page]; left; left &= left - 1) keys[counts[1]++] = (int32_t)(page * WN_PAGE_KEYS + __builtin_ctzll(left));
	}
}

// wn_heads_from is the first query head that reads a key-value head: they read them in runs.
static inline int64_t wn_heads_from(int64_t kv_head, int64_t heads, int64_t kv) { return (kv_head * heads + kv - 1) / kv; }

#endif
