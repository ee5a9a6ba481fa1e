// Which keys a row reads, as a list of segments: what attend_kernel.h runs over, the same in every variant.
#ifndef WN_ATTEND_H
#define WN_ATTEND_H

#include "cpu.h"

enum {
	WN_PAGE = 64, // keys in a page, and at most in a segment
	WN_SPLIT = 16, // segments whose softmax is taken by itself; the results are merged in order
	WN_TOGETHER = 4, // queries that share a pass over a tile of keys or values
	WN_QUERIES = 32, // queries in an item, which find the tiles in a near cache
};

// The op, unpacked. A unit is a run of query heads that read the same keys of the same key-value head.
typedef struct wn_attend {
	const float *q;
	float *y;
	const uint8_t *k, *v;
	const int32_t *tile, *sink, *local, *block_at, *block_n, *blocks, *key_at, *key_n, *keys;
	const int32_t *pages, *seq, *pos;
	int64_t rows, heads, kv, dim, groups, columns, stride; // columns: of the page table; stride: numbers from page to page
	int f16;
	float scale;

	int64_t padded; // dim, rounded up to 16
	int64_t bytes; // of a number in the cache
	int64_t units;
	const int32_t *unit; // units+1 first heads
	int64_t widest; // heads in the widest unit
	int64_t span; // rows of an item
	int64_t tiles; // of span rows
	int64_t splits; // of the row with most
	float *parts; // rows x heads x splits partial results, when splits are items of their own
	uint8_t *work; // of work_bytes for each thread
	int64_t work_bytes;
} wn_attend;

// What one row reads in one unit: sink pages, then blocks, then single keys by 64, then the pages of the local range.
typedef struct wn_list {
	int64_t sinks, blocks, keys, gathers, total; // gathers: segments of single keys; total: segments
	const int32_t *block, *key, *table;
	int64_t local, pos, head; // head: of keys and values
} wn_list;

// A run of keys lo to hi, hi excluded, in a tile of keys and one of values; or single keys, when key is not NULL.
typedef struct wn_segment {
	const uint8_t *k, *v;
	const int32_t *key;
	int64_t lo, hi;
} wn_segment;

static inline wn_list wn_list_of(const wn_attend *a, int64_t row, int64_t unit) {
	int64_t head = a->unit[unit], r = (a->tile ? a->tile[row] : row) * a->groups + head * a->groups / a->heads;
	wn_list l = {.sinks = a->sink[r] / WN_PAGE, .local = a->local[r], .pos = a->pos[row], .head = head * a->kv / a->heads};
	l.table = a->pages + a->seq[row] * a->columns;
	if (a->block_at) l.block = a->blocks + a->block_at[r], l.blocks = a->block_n[r];
	if (a->key_at) l.key = a->keys + a->key_at[r], l.keys = a->key_n[r];
	l.gathers = (l.keys + WN_PAGE - 1) / WN_PAGE;
	l.total = l.sinks + l.blocks + l.gathers + l.pos / WN_PAGE - l.local / WN_PAGE + 1;
	return l;
}

static inline int64_t wn_splits_of(const wn_list *l) { return (l->total + WN_SPLIT - 1) / WN_SPLIT; }

// wn_tile_of is the offset, in numbers, of a page's tile for the list's head: the same among keys and among values.
static inline int64_t wn_tile_of(const wn_attend *a, const wn_list *l, int64_t page) {
	return l->table[page] * a->stride + l->head * a->dim * WN_PAGE;
}

static inline wn_segment wn_segment_of(const wn_attend *a, const wn_list *l, int64_t i) {
	wn_segment s = {.hi = WN_PAGE};
	int64_t page = i;
	if ((i -= l->sinks) >= 0) {
		if (i < l->blocks) {
			page = l->block[i];
		} else if ((i -= l->blocks) < l->gathers) {
			s.key = l->key + WN_PAGE * i;
			s.hi = wn_min(l->keys - WN_PAGE * i, WN_PAGE);
			return s;
		} else {
			page = l->local / WN_PAGE + i - l->gathers;
			s.lo = wn_max(l->local - page * WN_PAGE, 0);
			s.hi = wn_min(l->pos + 1 - page * WN_PAGE, WN_PAGE);
		}
	}
	int64_t at = wn_tile_of(a, l, page) * a->bytes;
	s.k = a->k + at, s.v = a->v + at;
	return s;
}

// wn_units finds the units of a head shape: room is for heads+1 numbers. Returns how many there are.
static inline int64_t wn_units(wn_attend *a, int32_t *room) {
	int64_t n = 0;
	for (int64_t h = 0; h < a->heads; h++) {
		int64_t g = h * a->groups / a->heads, kv = h * a->kv / a->heads;
		if (h == 0 || g != (h - 1) * a->groups / a->heads || kv != (h - 1) * a->kv / a->heads) room[n++] = (int32_t)h;
	}
	room[n] = (int32_t)a->heads;
	for (int64_t u = 0; u < n; u++) a->widest = wn_max(a->widest, room[u + 1] - room[u]);
	a->unit = room;
	return n;
}

#endif
