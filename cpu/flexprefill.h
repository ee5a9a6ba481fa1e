// Blocks of queries and keys, and how far two distributions over them lie apart: see attention/flexprefill.go.
#ifndef WN_FLEXPREFILL_H
#define WN_FLEXPREFILL_H

#include <math.h>

#include "groups.h"
#include "pick.h"

enum { WN_FLEX_BLOCK = 128, WN_FLEX_QUERIES = 64 };

// wn_divergence is that of Jensen and Shannon, in nats.
static inline float wn_divergence(const float *p, const float *q, int64_t n) {
	double sum = 0;
	for (int64_t i = 0; i < n; i++) {
		double a = p[i], b = q[i], m = (a + b) / 2;
		if (a > 0) sum += a * log(a / m) / 2;
		if (b > 0) sum += b * log(b / m) / 2;
	}
	return (float)sum;
}

// Buckets of floats that are not negative, by exponent and 3 bits.
enum { WN_BUCKETS = 2048, WN_BUCKET_SHIFT = 20 };

static inline int64_t wn_bucket(float v) {
	uint32_t bits;
	memcpy(&bits, &v, sizeof bits);
	return bits >> WN_BUCKET_SHIFT;
}

// wn_cover_count is how many of the largest masses it takes to reach a share of all: those of the buckets above the cut, and of the bucket in
// which it lies as many as are needed. room is for n.
static inline int64_t wn_cover_count(const float *v, int64_t n, float share, float *room) {
	double sums[WN_BUCKETS] = {0}, total = 0, sum = 0;
	int64_t count[WN_BUCKETS] = {0}, k = 0, inside = 0, b = WN_BUCKETS - 1;
	for (int64_t i = 0; i < n; i++) {
		int64_t at = wn_bucket(v[i]);
		sums[at] += v[i], count[at]++;
	}
	for (int64_t i = WN_BUCKETS - 1; i >= 0; i--) total += sums[i];
	total *= share;
	for (; b > 0 && sum + sums[b] < total; b--) sum += sums[b], k += count[b];
	for (int64_t i = 0; i < n; i++)
		if (wn_bucket(v[i]) == b) room[inside++] = v[i];
	wn_descend(room, inside);
	for (int64_t i = 0; i < inside && sum < total; i++, k++) sum += room[i];
	return k;
}

// A group's blocks under a head, in the room where the scores of a strip have been.
typedef struct wn_blocks {
	int64_t first, own, n; // the group's first block, its number of blocks, and all up to its end
	float *columns, *slashes, *row; // n, with room for 15 more
	float *all, *sorted; // own x n
	int32_t *picked; // own x n
	uint8_t *column, *slash, *chosen; // n, n, own x n: 1 where it is read
} wn_blocks;

static inline wn_blocks wn_blocks_of(const wn_groups *s, const wn_run_of_tiles *g, float *room) {
	wn_blocks b = {.first = g->pos / WN_FLEX_BLOCK, .own = s->s.size / WN_FLEX_BLOCK, .n = wn_end(g) / WN_FLEX_BLOCK};
	int64_t map = b.own * b.n;
	b.all = room, b.sorted = room + map, b.picked = (int32_t *)(room + 2 * map);
	b.columns = room + 3 * map, b.slashes = b.columns + b.n + 16, b.row = b.slashes + b.n + 16;
	b.column = (uint8_t *)(b.row + b.n + 16), b.slash = b.column + b.n, b.chosen = b.slash + b.n;
	memset(b.column, 0, 2 * b.n + map);
	return b;
}

// wn_blocks_floats is the room that the blocks of the longest group take.
static inline int64_t wn_blocks_floats(const wn_groups *s) {
	int64_t n = s->longest / WN_FLEX_BLOCK, map = s->s.size / WN_FLEX_BLOCK * n;
	return 3 * map + 3 * (n + 16) + (2 * n + map + 3) / 4;
}

// wn_pool is the mean over queries of what lies in each block.
static inline void wn_pool(const float *sums, int64_t n, float *blocks) {
	for (int64_t b = 0; b < n; b++) {
		float sum = 0;
		for (int64_t i = 0; i < WN_FLEX_BLOCK; i++) sum += sums[b * WN_FLEX_BLOCK + i];
		blocks[b] = sum / WN_FLEX_QUERIES;
	}
}

// wn_flex_rows writes the plan rows of a group under one plan group of heads.
static inline void wn_flex_rows(const wn_groups *s, const wn_run_of_tiles *g, int64_t h, const wn_blocks *b) {
	const wn_tiles *t = &s->tiles;
	for (int64_t i = 0; i < s->s.size / WN_PAGE_KEYS; i++) {
		int64_t r = (g->tile + i) * t->groups + h, page = g->pos / WN_PAGE_KEYS + i, query = i / 2, n = 0;
		wn_plan_row(t, r, 0, page * WN_PAGE_KEYS);
		for (int64_t p = 0; p < page && n < t->block_room; p++) {
			int64_t k = p / 2;
			if (b->column[k] | b->slash[b->n - 1 - (b->first + query - k)] | b->chosen[query * b->n + k]) {
				t->blocks[r * t->block_room + n++] = (int32_t)p;
			}
		}
		t->block_n[r] = (int32_t)n;
	}
}

#endif
