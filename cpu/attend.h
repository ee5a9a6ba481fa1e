// Which keys a row reads, as a list of segments: what attend_kernel.h runs over, the same in every variant.
#ifndef WN_ATTEND_H
#define WN_ATTEND_H

#include <stdlib.h>

#include "stored.h"

enum {
	WN_PAGE = 64, // keys in a page, and at most in a segment
	WN_STRIPS = WN_PAGE / WN_STRIP_KEYS,
	WN_SPLIT = 16, // segments whose softmax is taken by itself; the results are merged in order
	WN_QUERIES = 128, // queries in an item at most
};

// The op, unpacked.
typedef struct wn_attend {
	const float *q;
	float *y;
	const uint8_t *k, *v;
	const int32_t *tile, *sink, *local, *block_at, *block_n, *blocks, *key_at, *key_n, *keys;
	const int32_t *pages, *lanes, *seq, *pos; // lanes: from the layer's own columns on
	int64_t rows, heads, kv, dim, groups, columns, stride; // columns: of the page table; stride: numbers from page to page
	int64_t wide, base; // columns of lanes; numbers of a page before the layer's, or bytes of one that is pruned
	int kind; // how the cache stores numbers
	const int32_t *own; // where pages are pruned, the page table of those that are not; else NULL
	const uint8_t *pruned_k, *pruned_v;
	int64_t keep, pruned_stride; // numbers of a token; bytes from page to page
	float scale;

	int64_t padded; // dim, rounded up to whole strips
	int64_t row; // bytes of a token's key or value in a head, without its scales
	int64_t widest; // query heads of a key-value head, at most
	int64_t span, cuts; // an item is one of the cuts of the queries that span rows have in the heads of a key-value head
	int64_t items, most; // most: queries of an item
	int64_t splits; // of the row with most
	int64_t *order; // items, those with most to do first; each with its length above the low 32 bits
	float *parts; // rows x heads x splits partial results, when splits are items of their own
	uint8_t *work; // of work_bytes for each thread
	int64_t work_bytes;
} wn_attend;

// What one row reads in one head: sink pages, then blocks, then single keys by 64, then the pages of the local range.
typedef struct wn_list {
	int64_t sinks, blocks, keys, gathers, total; // gathers: segments of single keys; total: segments
	const int32_t *block, *key, *table, *own;
	int64_t local, pos, head; // head: of keys and values
} wn_list;

// Neighbouring query heads of a row that read the same list.
typedef struct wn_bundle {
	wn_list list;
	int64_t row, head, heads; // head: the first
} wn_bundle;

// Some queries of some rows in the heads of a key-value head: those of cut, of the op's cuts.
typedef struct wn_item {
	int64_t first, rows, kv, cut, cuts;
} wn_item;

// A run of keys lo to hi, hi excluded, in a tile of keys and one of values; or single keys, when key is not NULL.
typedef struct wn_segment {
	const uint8_t *k, *v;
	const int32_t *key;
	int64_t lo, hi;
	int pruned; // the tiles are
} wn_segment;

// Where some neighbours of a segment lie that begin a strip: their page's tiles, and the slot of the first.
typedef struct wn_strip {
	const uint8_t *k, *v;
	int64_t slot;
} wn_strip;

static inline int64_t wn_plan_row_of(const wn_attend *a, int64_t row, int64_t head) {
	return (a->tile ? a->tile[row] : row) * a->groups + head * a->groups / a->heads;
}

static inline wn_list wn_list_of(const wn_attend *a, int64_t row, int64_t head) {
	int64_t r = wn_plan_row_of(a, row, head);
	wn_list l = {.sinks = a->sink[r] / WN_PAGE, .local = a->local[r], .pos = a->pos[row], .head = head * a->kv / a->heads};
	l.table = a->pages + a->seq[row] * a->columns;
	if (a->own) l.own = a->own + a->seq[row] * a->columns;
	if (a->block_at) l.block = a->blocks + a->block_at[r], l.blocks = a->block_n[r];
	if (a->key_at) l.key = a->keys + a->key_at[r], l.keys = a->key_n[r];
	l.gathers = (l.keys + WN_PAGE - 1) / WN_PAGE;
	l.total = l.sinks + l.blocks + l.gathers + l.pos / WN_PAGE - l.local / WN_PAGE + 1;
	return l;
}

// wn_alike says whether two heads of a row read the same list.
static inline int wn_alike(const wn_attend *a, int64_t row, int64_t head, int64_t other) {
	int64_t r = wn_plan_row_of(a, row, head), s = wn_plan_row_of(a, row, other);
	if (r == s) return 1;
	if (a->sink[r] != a->sink[s] || a->local[r] != a->local[s]) return 0;
	if (a->block_at && (a->block_n[r] != a->block_n[s] || (a->block_n[r] && a->block_at[r] != a->block_at[s]))) return 0;
	return !a->key_at || (a->key_n[r] == a->key_n[s] && (!a->key_n[r] || a->key_at[r] == a->key_at[s]));
}

// wn_first_head is the first query head that reads a head of keys and values.
static inline int64_t wn_first_head(const wn_attend *a, int64_t kv) { return wn_parts(kv * a->heads, a->kv); }

// wn_bundles finds the bundles of an item, in an order in which rows that may share a list are neighbours: room is for WN_QUERIES.
// Returns how many there are. A cut may go through a bundle.
static inline int64_t wn_bundles(const wn_attend *a, const wn_item *t, wn_bundle *room) {
	int64_t first = wn_first_head(a, t->kv), end = wn_first_head(a, t->kv + 1), all = t->rows * (end - first);
	int64_t from = all * t->cut / t->cuts, to = all * (t->cut + 1) / t->cuts, at = 0, n = 0;
	for (int64_t h = first; h < end && at < to; h++) {
		for (int64_t row = t->first; row < t->first + t->rows && at < to; row++) {
			if (h > first && wn_alike(a, row, h - 1, h)) continue;
			int64_t heads = 1;
			while (h + heads < end && wn_alike(a, row, h + heads - 1, h + heads)) heads++;
			int64_t lo = wn_max(from - at, 0), hi = wn_min(to - at, heads);
			if (lo < hi) room[n++] = (wn_bundle){wn_list_of(a, row, h), row, h + lo, hi - lo};
			at += heads;
		}
	}
	return n;
}

static inline int64_t wn_splits_of(const wn_list *l) { return (l->total + WN_SPLIT - 1) / WN_SPLIT; }

// wn_tile_of is the offset, in numbers, of a page's tile for the list's head: the same among keys and among values. It may lie before the
// layer's own first tile, see attention/lanes.go.
static inline int64_t wn_tile_of(const wn_attend *a, const wn_list *l, int64_t page) {
	int64_t at = (l->own ? l->own : l->table)[page], tile = a->dim * WN_PAGE;
	if (at < 0 && a->lanes) return a->lanes[(-1 - at) * a->wide + l->head] * tile - a->base;
	return at * a->stride + l->head * tile;
}

// wn_is_pruned says whether a list's row reads a page pruned: all but its own.
static inline int wn_is_pruned(const wn_list *l, int64_t page) { return l->own && page != l->pos / WN_PAGE; }

// wn_pruned_of is the offset, in bytes, of a page's pruned tile for the list's head, likewise.
static inline int64_t wn_pruned_of(const wn_attend *a, const wn_list *l, int64_t page) {
	int64_t at = l->table[page], tile = WN_PAGE * (2 * a->keep + a->dim / 8);
	if (at < 0 && a->lanes) return a->lanes[(-1 - at) * a->wide + l->head] * tile - a->base;
	return at * a->pruned_stride + l->head * tile;
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
	if (wn_is_pruned(l, page)) {
		int64_t at = wn_pruned_of(a, l, page);
		s.k = a->pruned_k + at, s.v = a->pruned_v + at, s.pruned = 1;
		return s;
	}
	int64_t at = wn_stored(a->kind, wn_tile_of(a, l, page));
	s.k = a->k + at, s.v = a->v + at;
	return s;
}

// wn_same says that two lists differ in their last segments at most, where that is seen at once: they are of one plan row.
static inline int wn_same(const wn_list *l, const wn_list *m) {
	return l->block == m->block && l->key == m->key && l->table == m->table && l->local == m->local && l->sinks == m->sinks && l->blocks == m->blocks &&
		l->keys == m->keys && l->head == m->head && !l->own;
}

// wn_strips_of finds the strips that a segment consists of, the last one again where there are less than in a page. Single keys need not be
// strips, and those of pruned tiles are none: then it says 0.
static inline int wn_strips_of(const wn_attend *a, const wn_list *l, const wn_segment *s, wn_strip *strip) {
	if (s->pruned || (s->key && l->own)) return 0;
	for (int64_t u = 0; !s->key && u < WN_STRIPS; u++) strip[u] = (wn_strip){s->k, s->v, u * WN_STRIP_KEYS};
	if (!s->key) return 1;
	if (s->hi % WN_STRIP_KEYS) return 0;
	for (const int32_t *k = s->key; k < s->key + s->hi; k += WN_STRIP_KEYS) {
		if (k[0] % WN_STRIP_KEYS || k[WN_STRIP_KEYS - 1] != k[0] + WN_STRIP_KEYS - 1) return 0;
	}
	for (int64_t u = 0; u < WN_STRIPS; u++) {
		int32_t key = s->key[wn_min(u * WN_STRIP_KEYS, s->hi - WN_STRIP_KEYS)];
		int64_t at = wn_stored(a->kind, wn_tile_of(a, l, key / WN_PAGE));
		strip[u] = (wn_strip){a->k + at, a->v + at, key % WN_PAGE};
	}
	return 1;
}

// wn_item_of is item i of a->items: cuts of a key-value head side by side, then heads, then rows.
static inline wn_item wn_item_of(const wn_attend *a, int64_t i) {
	int64_t cut = i % a->cuts, kv = i / a->cuts % a->kv, first = i / a->cuts / a->kv * a->span;
	return (wn_item){first, wn_min(a->rows - first, a->span), kv, cut, a->cuts};
}

// wn_cut sets items of queries queries at most. From a page of rows on, an item may be a page of rows in one head as well as fewer rows in all
// heads of a key-value head, whichever share lists.
static inline void wn_cut(wn_attend *a, int64_t queries) {
	int paged = a->rows >= WN_PAGE && queries >= WN_PAGE;
	a->cuts = paged ? a->widest : 1;
	int64_t runs = wn_parts(a->rows, paged ? queries : wn_max(queries / a->widest, 1));
	a->span = wn_parts(a->rows, runs);
	a->most = wn_parts(a->span * a->widest, a->cuts);
	a->items = wn_parts(a->rows, a->span) * a->kv * a->cuts;
}

// wn_arrange decides on items: as large as leaves enough of them for the threads. Says whether splits are items of their own.
static inline int wn_arrange(wn_attend *a, int threads) {
	a->widest = 0;
	for (int64_t k = 0; k < a->kv; k++) a->widest = wn_max(a->widest, wn_first_head(a, k + 1) - wn_first_head(a, k));
	for (int64_t queries = WN_QUERIES; queries; queries /= 2) {
		wn_cut(a, queries);
		if (a->items >= 4 * threads) return 0;
	}
	for (int64_t r = 0; r < a->rows; r++) {
		for (int64_t h = 0; h < a->heads; h++) {
			wn_list l = wn_list_of(a, r, h);
			a->splits = wn_max(a->splits, wn_splits_of(&l));
		}
	}
	if (a->splits <= 1) return 0;
	for (int64_t queries = WN_QUERIES; queries; queries /= 2) {
		wn_cut(a, queries);
		if (a->items * a->splits >= 4 * threads) break;
	}
	return 1;
}

static inline int wn_longer(const void *x, const void *y) {
	int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
	return (a < b) - (a > b);
}

// wn_longest_first orders items by the segments that a few of their rows read.
static inline void wn_longest_first(wn_attend *a) {
	for (int64_t i = 0; i < a->items; i++) {
		wn_item t = wn_item_of(a, i);
		int64_t head = wn_min(wn_first_head(a, t.kv) + t.cut, wn_first_head(a, t.kv + 1) - 1), length = 0;
		for (int64_t r = 0; r < t.rows; r += 16) length += wn_list_of(a, t.first + r, head).total;
		a->order[i] = length << 32 | i;
	}
	qsort(a->order, a->items, sizeof *a->order, wn_longer);
}

#endif
