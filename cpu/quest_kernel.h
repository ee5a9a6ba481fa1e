// SelectQuest: what tiles take; then p = q, bounds, pages, seq; d = heads, kv heads, dim, columns of the page table, 1 where bounds are F16,
// keys of a unit. f = budget. First the units are scored: an item is up to 128 pages of a tile and key-value head. Then they are
// chosen: an item is a tile and key-value head.

#include "pick.h"
#include "tiles.h"

enum { WN(QUEST_PAGES) = 128 };

// A tile that is to be planned by score.
typedef struct WN(quest_tile) {
	int64_t tile, row, pages, chosen; // its first row; pages before its own; units to choose
	const int32_t *table;
} WN(quest_tile);

typedef struct WN(quest) {
	wn_tiles tiles;
	const float *q;
	const uint8_t *bounds;
	int64_t heads, kv, dim, unit, units, part; // units: in a page; part: values of a page and head
	int f16;
	WN(quest_tile) *list;
	int64_t chunks, most; // of the tile with most pages: parts of them, units before
	float *scores; // tiles in list x kv x most
	float *signs; // of each worker: see quest_signs
	int64_t sign_floats;
	uint8_t *room; // of each worker, for choosing
	int64_t room_bytes;
} WN(quest);

// quest_signs lays out the queries of a key-value head: vector after vector of a page's least values, head after head, what is positive of
// the query and what is negative, each value as often as there are units.
static void WN(quest_signs)(const WN(quest) *w, const float *q, float *to) {
	int64_t g = w->heads / w->kv, channels = 16 / w->units;
	for (int64_t d = 0; d < w->dim; d += channels, to += 32 * g) {
		for (int64_t h = 0; h < g; h++) {
			float *positive = to + 32 * h, *negative = positive + 16;
			for (int64_t c = 0; c < channels; c++) {
				float x = d + c < w->dim ? q[h * w->dim + d + c] : 0;
				for (int64_t u = 0; u < w->units; u++, positive++, negative++) *positive = x > 0 ? x : 0, *negative = x > 0 ? 0 : x;
			}
		}
	}
}

WN_INLINE v16f WN(quest_load)(const uint8_t *p, int f16, int64_t n) {
	if (!f16) return v_load_n((const float *)p, n);
	if (n >= 16) return v_load_f16(p);
	uint16_t t[16] = {0};
	for (int64_t i = 0; i < n; i++) memcpy(t + i, p + 2 * i, 2);
	return v_load_f16(t);
}

// quest_add adds the products of n query heads with the bounds of 16 channels and units at i, of the largest values and of the least by themselves.
WN_INLINE void WN(quest_add)(const uint8_t *bounds, const float *signs, int64_t i, int64_t half, const int n, const int f16, v16f (*sum)[2]) {
	const int bytes = f16 ? 2 : 4;
	v16f least = WN(quest_load)(bounds + i * bytes, f16, half - i), most = WN(quest_load)(bounds + (half + i) * bytes, f16, half - i);
#pragma GCC unroll 4
	for (int h = 0; h < n; h++) {
		sum[h][0] = v_fma(v_load(signs + 32 * h), most, sum[h][0]);
		sum[h][1] = v_fma(v_load(signs + 32 * h + 16), least, sum[h][1]);
	}
}

// quest_raise raises best, one score a unit, to what is left of 16 lanes that are added up.
WN_INLINE void WN(quest_raise)(v16f sum, const int units, float *best) {
	float t[16];
	v_store(t, sum);
#pragma GCC unroll 4
	for (int wide = 8; wide >= units; wide /= 2) {
#pragma GCC unroll 8
		for (int i = 0; i < wide; i++) t[i] += t[i + wide];
	}
#pragma GCC unroll 4
	for (int u = 0; u < units; u++) best[u] = t[u] > best[u] ? t[u] : best[u];
}

// quest_heads raises best to the bounds of n query heads for a page. The bounds at next are asked for meanwhile.
WN_INLINE void WN(quest_heads)(const WN(quest) *w, const uint8_t *bounds, const uint8_t *next, const float *signs, const int n, const int f16, float *best) {
	int64_t half = w->part / 2, step = w->heads / w->kv * 32, i = 0;
	const int line = f16 ? 64 : 128; // bytes of 16 channels and units
	v16f sum[4][2];
	for (int h = 0; h < n; h++) sum[h][0] = v_zero(), sum[h][1] = v_zero();
	for (; i + 16 <= half; i += 16, signs += step, next += line) {
		for (int b = 0; b < line; b += 64) __builtin_prefetch(next + b);
		WN(quest_add)(bounds, signs, i, half, n, f16, sum);
	}
	if (i < half) WN(quest_add)(bounds, signs, i, half, n, f16, sum);
	for (int h = 0; h < n; h++) {
		v16f all = v_add(sum[h][0], sum[h][1]);
		if (w->units == 4) {
			WN(quest_raise)(all, 4, best);
		} else if (w->units == 2) {
			WN(quest_raise)(all, 2, best);
		} else {
			WN(quest_raise)(all, 1, best);
		}
	}
}

// quest_group raises best to the bounds of all query heads of a key-value head.
WN_INLINE void WN(quest_group)(const WN(quest) *w, const uint8_t *bounds, const uint8_t *next, const float *signs, const int f16, float *best) {
	int64_t h = 0, g = w->heads / w->kv;
	for (; WN_SUMS == 8 && h + 4 <= g; h += 4) WN(quest_heads)(w, bounds, next, signs + 32 * h, 4, f16, best);
	for (; h + 2 <= g; h += 2) WN(quest_heads)(w, bounds, next, signs + 32 * h, 2, f16, best);
	if (h < g) WN(quest_heads)(w, bounds, next, signs + 32 * h, 1, f16, best);
}

WN_INLINE const uint8_t *WN(quest_bounds)(const WN(quest) *w, const WN(quest_tile) *t, int64_t kv, int64_t page) {
	return w->bounds + (t->table[page] * w->kv + kv) * w->part * (w->f16 ? 2 : 4);
}

static void WN(quest_score)(void *arg, int64_t item, int worker) {
	const WN(quest) *w = arg;
	int64_t chunk = item % w->chunks, kv = item / w->chunks % w->kv, i = item / w->chunks / w->kv, g = w->heads / w->kv;
	const WN(quest_tile) *t = &w->list[i];
	int64_t first = chunk * WN(QUEST_PAGES), end = wn_min(first + WN(QUEST_PAGES), t->pages);
	float *signs = w->signs + worker * w->sign_floats, *best = w->scores + (i * w->kv + kv) * w->most + first * w->units;
	if (first >= end) return;
	WN(quest_signs)(w, w->q + (t->row * w->heads + kv * g) * w->dim, signs);
	const uint8_t *bounds = WN(quest_bounds)(w, t, kv, first);
	for (int64_t page = first; page < end; page++, best += w->units) {
		const uint8_t *next = page + 1 < end ? WN(quest_bounds)(w, t, kv, page + 1) : bounds;
		for (int64_t u = 0; u < w->units; u++) best[u] = -INFINITY;
		if (w->f16) {
			WN(quest_group)(w, bounds, next, signs, 1, best);
		} else {
			WN(quest_group)(w, bounds, next, signs, 0, best);
		}
		bounds = next;
	}
}

// quest_split writes the lists of a plan row: blocks where all units of a page are chosen, else single keys.
static void WN(quest_split)(const WN(quest) *w, const int32_t *chosen, int64_t n, int64_t r) {
	const wn_tiles *t = &w->tiles;
	int32_t *block = t->blocks + t->block_at[r], *key = t->keys ? t->keys + t->key_at[r] : NULL;
	int64_t blocks = 0, keys = 0;
	for (int64_t i = 0, end; i < n; i = end) {
		int64_t page = chosen[i] / w->units;
		for (end = i; end < n && chosen[end] / w->units == page;) end++;
		if (end - i == w->units) {
			block[blocks++] = (int32_t)page;
			continue;
		}
		for (; i < end; i++)
			for (int64_t j = 0; j < w->unit; j++) key[keys++] = (int32_t)(chosen[i] * w->unit + j);
	}
	t->block_n[r] = (int32_t)blocks;
	if (key) t->key_n[r] = (int32_t)keys;
}

static void WN(quest_choose)(void *arg, int64_t item, int worker) {
	const WN(quest) *w = arg;
	const WN(quest_tile) *t = &w->list[item / w->kv];
	int64_t share = w->tiles.groups / w->kv, r = t->tile * w->tiles.groups + item % w->kv * share;
	int32_t *chosen = (int32_t *)(w->room + worker * w->room_bytes);
	float *heap = (float *)(chosen + w->most);
	int64_t n = wn_top(w->scores + item * w->most, t->pages * w->units, t->chosen, chosen, heap);
	wn_plan_rows(&w->tiles, r, share, 0, t->pages * WN_PAGE_KEYS);
	WN(quest_split)(w, chosen, n, r);
	for (int64_t i = 1; i < share; i++) wn_share(&w->tiles, r + i, r);
}

// quest_gather lists the tiles to plan by score, and makes the others read everything. Returns how many there are.
static int64_t WN(quest_gather)(WN(quest) *w, const int32_t *pages, const int32_t *seq, int64_t columns) {
	const wn_tiles *t = &w->tiles;
	int64_t n = 0, share = t->groups / w->kv;
	for (int64_t i = 0; i < t->n; i++) {
		if (t->policy[i] != t->serves) continue;
		int64_t row = t->first[i], pos = t->pos[row], budget = (int64_t)wn_knob(t, i);
		if (7 * pos < 8 * budget || !wn_room_for(t, share, budget, w->unit)) {
			for (int64_t kv = 0; kv < w->kv; kv++) wn_plan_rows(t, i * t->groups + kv * share, share, 0, 0);
			continue;
		}
		w->list[n++] = (WN(quest_tile)){i, row, pos / WN_PAGE_KEYS, budget / w->unit, pages + seq[row] * columns};
		w->chunks = wn_max(w->chunks, wn_parts(pos / WN_PAGE_KEYS, WN(QUEST_PAGES)));
		w->most = wn_max(w->most, pos / WN_PAGE_KEYS * w->units);
	}
	return n;
}

void WN(wn_select_quest)(wn_ctx *ctx, const wn_op *op) {
	void *const *p = op->p + WN_TILES_P;
	const int64_t *d = op->d + WN_TILES_D;
	WN(quest) w = {.tiles = wn_tiles_of(ctx, op), .q = p[0], .bounds = p[1], .heads = d[0], .kv = d[1], .dim = d[2], .f16 = (int)d[4],
		.unit = d[5], .units = WN_PAGE_KEYS / d[5], .part = 2 * d[2] * (WN_PAGE_KEYS / d[5])};
	w.list = wn_scratch(ctx, w.tiles.n * sizeof *w.list);
	if (!w.list) return;
	int64_t n = WN(quest_gather)(&w, p[2], p[3], d[3]);
	if (n == 0) return;
	w.sign_floats = (w.part / 2 + 15) / 16 * 32 * (w.heads / w.kv);
	w.room_bytes = (w.most * 8 + 63) / 64 * 64;
	w.scores = wn_scratch(ctx, n * w.kv * w.most * sizeof *w.scores);
	w.signs = wn_scratch(ctx, wn_threads(ctx) * w.sign_floats * sizeof *w.signs);
	w.room = wn_scratch(ctx, wn_threads(ctx) * w.room_bytes);
	if (!w.scores || !w.signs || !w.room) return;
	wn_parallel(ctx, n * w.kv * w.chunks, WN(quest_score), &w);
	wn_parallel(ctx, n * w.kv, WN(quest_choose), &w);
}
