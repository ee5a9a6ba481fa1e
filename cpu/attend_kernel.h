// Attend: p = q, y, k, v, pages, seq, pos, n, tile, sink, local, block at, block n, blocks, key at, key n, keys, lanes, dense pages, pruned k, pruned v; d = rows,
// heads, kv heads, dim, plan groups, columns of the page tables, how the cache stores numbers, its stride, columns of lanes, the layer's base, numbers that pruned
// pages keep, their stride; f = scale. An item is a number of rows in the
// query heads of one key-value head or in some of them, or when there are few rows, one split of that. Rows and heads of an item that read the
// same keys share passes over them, which is found out as it runs. Single keys that fill strips are read as they lie, others are gathered.
//
// What a row computes depends on its own list alone. Every 64 keys at most make a segment; segments are taken in order, 16 of them
// to a split with an online softmax of its own, and the splits are merged in order, on whatever threads they ran. A sum over values of a
// head runs over dimensions in order, one over keys over keys in order, however many queries share the pass.

#include "attend.h"
#include "keys.h"
#include "attend_pass.h"

// A partial result, as it lies in memory: o, then 16 lanes of sum, then top.
WN_INLINE int64_t WN(part_floats)(const wn_attend *a) { return a->padded + 32; }

// From a strip of a panel to the next: a line is between them, so that strips differ in where they lie in the nearest cache.
WN_INLINE int64_t WN(key_strip)(const wn_attend *a) { return (a->dim + 1) * WN(COLUMNS); }
WN_INLINE int64_t WN(value_strip)(const wn_attend *a) { return (void)a, (WN_PAGE + 1) * WN(COLUMNS); }

// What a thread keeps while it works on an item.
typedef struct WN(bench) {
	wn_bundle bundle[WN_QUERIES];
	int64_t bundles, queries;
	WN(query) *query;
	float *whole; // the same number of merged results
	float *k, *v; // panels; where strips are made one by one, all of them at k
	uint16_t *raw; // 64 gathered keys as a tile stores them
	float *whole_k, *whole_v; // panels of a page of which single keys are read, where pages are pruned
	float *key_scale, *value_scale; // of the packed tiles that a pass reads: dim/32 x 64, 64 x dim/32
} WN(bench);

WN_INLINE int64_t WN(panel_floats)(const wn_attend *a) {
	return WN_PAGE / WN(COLUMNS) * WN(key_strip)(a) + a->padded / WN(COLUMNS) * WN(value_strip)(a);
}

WN_INLINE int64_t WN(scale_floats)(const wn_attend *a) { return WN_PAGE * (a->dim / WN_SHARED); }

// bench_bytes is the memory that bench lays out.
WN_INLINE int64_t WN(bench_bytes)(const wn_attend *a) {
	int64_t n = a->most, floats = n * (2 * a->padded + WN_PAGE + WN(part_floats)(a)) + WN(panel_floats)(a) + WN_PAGE * a->padded;
	if (wn_packed(a->kind)) floats += 2 * WN(scale_floats)(a);
	if (a->own) floats += WN(panel_floats)(a);
	return (sizeof(WN(bench)) + n * sizeof(WN(query)) + 127) / 64 * 64 + (floats * 4 + 63) / 64 * 64;
}

static WN(bench) *WN(bench_of)(const wn_attend *a, int worker) {
	uint8_t *at = a->work + worker * a->work_bytes;
	WN(bench) *b = (WN(bench) *)at;
	int64_t n = a->most;
	b->query = (WN(query) *)(at + sizeof *b);
	float *f = (float *)(at + (sizeof *b + n * sizeof(WN(query)) + 127) / 64 * 64);
	for (int64_t i = 0; i < n; i++, f += 2 * a->padded + WN_PAGE) {
		b->query[i].q = f, b->query[i].o = f + a->padded, b->query[i].p = f + 2 * a->padded;
	}
	b->whole = f;
	b->k = f + n * WN(part_floats)(a);
	b->v = b->k + WN_PAGE / WN(COLUMNS) * WN(key_strip)(a);
	b->raw = (uint16_t *)(b->v + a->padded / WN(COLUMNS) * WN(value_strip)(a));
	b->key_scale = (float *)b->raw + WN_PAGE * a->padded;
	b->value_scale = b->key_scale + WN(scale_floats)(a);
	b->whole_k = (float *)b->raw + WN_PAGE * a->padded; // instead of scales
	b->whole_v = b->whole_k + WN_PAGE / WN(COLUMNS) * WN(key_strip)(a);
	return b;
}

#include "attend_panel.h"

// A segment as the queries of several rows pass over it.
typedef struct WN(visit) {
	const wn_strip *strip; // WN_STRIPS of them; NULL where the segment lies in the panels
	const uint8_t *v[WN_STRIPS]; // their values
	const uint8_t *next_k[WN_STRIPS], *next_v[WN_STRIPS]; // strips that come after; NULL = none are known
	const float *key_scale, *value_scale; // of packed strips that are read as they lie
} WN(visit);

// average_strips adds p times values, a run of values that lie together at a time.
static void WN(average_strips)(const wn_attend *a, WN(group) g, int64_t n, const WN(visit) *t, int64_t d) {
	int64_t lo = g[0]->lo, hi = g[0]->hi, blocks = a->dim / WN_SHARED, row = a->row;
	for (int64_t u = lo / WN_STRIP_KEYS, end; u * WN_STRIP_KEYS < hi; u = end) {
		for (end = u + 1; end < WN_STRIPS && t->v[end] == t->v[end - 1] + WN_STRIP_KEYS * row;) end++;
		int64_t base = u * WN_STRIP_KEYS;
		WN(strip) s = {.step = row, .part = WN_STRIP_KEYS, .next = t->next_k + u, .skip = WN_STRIP_KEYS * wn_row_bytes(a->kind, d),
			.scale = t->value_scale + base * blocks + d / WN_SHARED, .blocks = blocks, .shift = wn_shift_of(d)};
		for (int w = 0; w < WN_WIDE(n); w++) s.at[w] = t->v[u] + WN(value_at)(a, d + 16 * w);
		WN(averages)[a->kind][n - 1](g, &s, &(WN(span)){wn_max(lo, base), wn_min(hi, end * WN_STRIP_KEYS), base, d, lo >= base});
	}
}

// pass_cache runs one segment for a group, straight from the cache.
static void WN(pass_cache)(const wn_attend *a, WN(group) g, int64_t n, const WN(visit) *t) {
	int64_t wide = WN_WIDE(n);
	for (int64_t u = 0; u < WN_STRIPS; u += wide) {
		WN(strip) s = {.step = wn_packed(a->kind) ? WN_STRIP_KEYS : wn_row_bytes(a->kind, WN_STRIP_KEYS), .rows = a->dim, .part = a->dim / wide, .next = t->v + u,
			.scale = t->key_scale + u * WN_STRIP_KEYS};
		for (int64_t w = 0; w < wide; w++) s.at[w] = t->strip[u + w].k + t->strip[u + w].slot * a->row;
		WN(scores)[a->kind][n - 1](g, &s, u * WN_STRIP_KEYS);
	}
	WN(soften)(g, n);
	int same = 1;
	for (int64_t i = 0; i < n; i++) same &= g[i]->lo == g[0]->lo && g[i]->hi == g[0]->hi;
	int64_t each = same ? n : 1; // queries that share a pass over values
	wide = 16 * WN_WIDE(each);
	for (int64_t i = 0; i < n; i += each) {
		for (int64_t d = 0; d < a->dim; d += wide) WN(average_strips)(a, g + i, each, t, d);
	}
}

// fetch_strips asks for some bytes of strips, as if they lay one after the other.
WN_INLINE void WN(fetch_strips)(const uint8_t *const *strip, int64_t size, int64_t at, int64_t bytes) {
	for (int64_t n; bytes > 0; at += n, bytes -= n) {
		n = wn_min(bytes, size - at % size);
		WN(fetch)(strip[at / size] + at % size, n, 0);
	}
}

// move_keys scores a strip of keys for the first queries that go together, and makes a strip of a panel of it.
static void WN(move_keys)(const wn_attend *a, WN(group) g, const wn_strip *strip, int64_t first, float *panel) {
	WN(strip) s = {.step = 2 * WN_STRIP_KEYS, .rows = a->dim, .part = a->dim, .panel = panel};
	for (int w = 0; w < WN(STRIP); w++) s.at[w] = strip[w].k + strip[w].slot * a->row;
	WN(score_moved)(g, &s, first);
}

// move_values does so with a page of values from dimension d on, a run of them that lie together at a time.
static void WN(move_values)(const wn_attend *a, WN(group) g, const wn_strip *strip, int64_t d, float *panel) {
	for (int64_t u = 0, end; u < WN_STRIPS; u = end) {
		for (end = u + 1; end < WN_STRIPS && strip[end].v == strip[u].v && strip[end].slot == strip[u].slot + (end - u) * WN_STRIP_KEYS;) end++;
		WN(strip) s = {.step = a->row, .part = WN_PAGE, .panel = panel + u * WN_STRIP_KEYS * WN(COLUMNS)};
		for (int w = 0; w < WN(STRIP); w++) s.at[w] = strip[u].v + strip[u].slot * a->row + 2 * (d + 16 * w);
		WN(average_moved)(g, &s, &(WN(span)){u * WN_STRIP_KEYS, end * WN_STRIP_KEYS, u * WN_STRIP_KEYS, d, u == 0});
	}
}

// pass_panel runs one segment for any number of queries, through panels. What is in the cache moves there first, a strip at a time, and all to the
// same place, which is in the nearest cache because the strip before was just read there. Of whole pages the first queries that go together read
// the cache, and move it as they do.
static void WN(pass_panel)(const wn_attend *a, WN(bench) *b, WN(group) g, int64_t count, const WN(visit) *t) {
	int64_t lo = WN_PAGE, hi = 0, apart = 0, size = WN_STRIP_KEYS * a->row, bytes = WN_STRIPS * size;
	for (int64_t i = 0; i < count; i++) {
		lo = wn_min(lo, g[i]->lo), hi = wn_max(hi, g[i]->hi);
		apart |= (g[i]->lo ^ g[0]->lo) | (g[i]->hi ^ g[0]->hi);
	}
	int moves = t->strip && !apart && hi - lo == WN_PAGE && a->kind == WN_CACHE_F16 && a->dim % WN(COLUMNS) == 0 && count >= WN(TOGETHER);
	int64_t moved = moves ? WN(TOGETHER) : 0;
	int64_t groups = wn_parts(count, WN(TOGETHER)), share = wn_parts(bytes, groups * (WN_PAGE / WN(COLUMNS)) * 64) * 64, fetched = 0;
	for (int64_t c = lo / WN(COLUMNS) * WN(COLUMNS); c < hi; c += WN(COLUMNS)) {
		WN(strip) s = {.step = WN(COLUMNS) * 4, .rows = a->dim, .part = a->dim};
		const wn_strip *from = t->strip ? t->strip + c / WN_STRIP_KEYS : NULL;
		float *k = from ? b->k : WN(place_key)(a, b->k, 0, c);
		if (moved) {
			WN(move_keys)(a, g, from, c, k);
		} else if (from) {
			WN(strip_of_keys)(a, k, from);
		}
		for (int w = 0; w < WN(STRIP); w++) s.at[w] = (const uint8_t *)(k + 16 * w);
		for (int64_t i = 0; i < count; i += WN(TOGETHER), fetched += share) {
			if (t->next_k[0]) WN(fetch_strips)(t->next_k, size, fetched, wn_min(share, bytes - fetched));
			if (i >= moved) WN(scores)[WN(PANEL)][wn_min(count - i, WN(TOGETHER)) - 1](g + i, &s, c);
		}
	}
	for (int64_t i = 0; i < count; i += WN(TOGETHER)) WN(soften)(g + i, wn_min(count - i, WN(TOGETHER)));
	share = wn_parts(bytes, groups * (a->padded / WN(COLUMNS)) * 64) * 64, fetched = 0;
	for (int64_t d = 0; d < a->dim; d += WN(COLUMNS)) {
		WN(strip) s = {.step = WN(COLUMNS) * 4, .part = WN_PAGE};
		float *v = t->strip ? b->k : WN(place_value)(a, b->v, 0, d);
		if (moved) {
			WN(move_values)(a, g, t->strip, d, v);
		} else if (t->strip) {
			WN(strip_of_values)(a, v, t->strip, d, (int64_t[]){lo, hi});
		}
		for (int w = 0; w < WN(STRIP); w++) s.at[w] = (const uint8_t *)(v + 16 * w);
		for (int64_t i = 0; i < count; i += WN(TOGETHER), fetched += share) {
			int64_t n = wn_min(count - i, WN(TOGETHER));
			if (t->next_v[0]) WN(fetch_strips)(t->next_v, size, fetched, wn_min(share, bytes - fetched));
			if (i < moved) continue;
			if (apart) {
				WN(average_apart)(g + i, n, WN(PANEL), &s, d);
			} else {
				WN(averages)[WN(PANEL)][n - 1](g + i, &s, &(WN(span)){lo, hi, 0, d, 1});
			}
		}
	}
}

// widen_scales makes floats of the scales of packed strips, as a pass reads them.
static void WN(widen_scales)(const wn_attend *a, const wn_strip *strip, float *keys, float *values) {
	int64_t blocks = a->dim / WN_SHARED;
	for (int64_t u = 0; u < WN_STRIPS; u++) {
		const uint8_t *k = wn_scales(strip[u].k, a->kind, a->dim) + 2 * strip[u].slot, *v = wn_scales(strip[u].v, a->kind, a->dim) + 2 * strip[u].slot * blocks;
		for (int64_t i = 0; i < blocks; i++) {
			v_store(keys + i * WN_PAGE + u * WN_STRIP_KEYS, v_load_f16(k + 2 * i * WN_PAGE));
			v_store(values + (u * blocks + i) * 16, v_load_f16(v + 2 * i * 16));
		}
	}
}

// pass_over runs one segment for queries that share it, each with its own lo and hi. It is segment i of list l.
static void WN(pass_over)(const wn_attend *a, WN(bench) *b, WN(group) g, int64_t count, const wn_list *l, int64_t i) {
	wn_segment s = wn_segment_of(a, l, i);
	wn_strip strip[WN_STRIPS], next[WN_STRIPS];
	WN(visit) t = {.key_scale = b->key_scale, .value_scale = b->value_scale};
	int64_t row = a->row;
	if (wn_strips_of(a, l, &s, strip)) {
		t.strip = strip;
	} else if (s.pruned) {
		WN(unpack)(a, b->k, b->v, s.k, s.v);
	} else if (l->own) {
		WN(gather_own)(a, b, l, &s);
	} else {
		WN(gather)(a, b, l, &s);
	}
	if (i + 1 < l->total) {
		wn_segment after = wn_segment_of(a, l, i + 1);
		for (int64_t u = 0; wn_strips_of(a, l, &after, next) && u < WN_STRIPS; u++) {
			t.next_k[u] = next[u].k + next[u].slot * row, t.next_v[u] = next[u].v + next[u].slot * row;
		}
	}
	if (!t.strip || count > WN(FEW) || a->dim % WN_PAGE) {
		WN(pass_panel)(a, b, g, count, &t);
		return;
	}
	for (int64_t u = 0; u < WN_STRIPS; u++) {
		t.v[u] = strip[u].v + strip[u].slot * row;
		if (!t.next_k[u]) t.next_k[u] = t.v[u];
	}
	if (wn_packed(a->kind)) WN(widen_scales)(a, strip, b->key_scale, b->value_scale);
	for (int64_t j = 0; j < count; j += WN(TOGETHER)) WN(pass_cache)(a, g + j, wn_min(count - j, WN(TOGETHER)), &t);
}

// step runs segment i of every bundle's list. Neighbours whose segments are the same single keys or lie in one tile go through it together.
static void WN(step)(const wn_attend *a, WN(bench) *b, int64_t i) {
	WN(query) *together[WN_QUERIES];
	const wn_list *shared = NULL;
	wn_segment s = {0};
	int64_t count = 0, same = 0;
	for (int64_t q = 0; q < b->queries; q++) {
		const wn_list *l = &b->bundle[b->query[q].bundle].list;
		if (i >= l->total) continue;
		int known = count && b->query[q].same == same && i + 1 < l->total && i + 1 < shared->total;
		wn_segment own = known ? s : wn_segment_of(a, l, i);
		if (count && (own.k != s.k || own.key != s.key || (own.key && (own.hi != s.hi || l->table != shared->table || (l->own && l->pos / WN_PAGE != shared->pos / WN_PAGE))))) {
			WN(pass_over)(a, b, together, count, shared, i);
			count = 0;
		}
		if (!count) shared = l, s = own, same = b->query[q].same;
		b->query[q].lo = own.lo, b->query[q].hi = own.hi;
		together[count++] = &b->query[q];
	}
	if (count) WN(pass_over)(a, b, together, count, shared, i);
}

// merge adds a later partial result to an earlier one.
static void WN(merge)(const wn_attend *a, float *whole, const float *part) {
	int64_t n = a->padded;
	float top = whole[n + 16] > part[n + 16] ? whole[n + 16] : part[n + 16];
	v16f keep = v_exp(v_set(whole[n + 16] - top)), take = v_exp(v_set(part[n + 16] - top));
	for (int64_t d = 0; d < n + 16; d += 16) v_store(whole + d, v_fma(v_load(part + d), take, v_mul(v_load(whole + d), keep)));
	whole[n + 16] = top;
}

// finish divides by the sum of exponentials.
static void WN(finish)(const wn_attend *a, const float *whole, int64_t row, int64_t head) {
	v16f sum = v_set(v_sum(v_load(whole + a->padded)));
	float *y = a->y + (row * a->heads + head) * a->dim;
	for (int64_t d = 0; d < a->dim; d += 16) v_store_n(y + d, v_div(v_load(whole + d), sum), a->dim - d);
}

// begin resets a query's softmax; write stores it as a partial result.
static void WN(begin)(const wn_attend *a, WN(query) *s) {
	memset(s->o, 0, a->padded * sizeof(float));
	memset(s->sum, 0, sizeof s->sum);
	s->top = -INFINITY;
}

static void WN(write)(const wn_attend *a, const WN(query) *s, float *part) {
	memcpy(part, s->o, a->padded * sizeof(float));
	memcpy(part + a->padded, s->sum, sizeof s->sum);
	part[a->padded + 16] = s->top;
}

// prepare finds the bundles of an item and scales their queries.
static void WN(prepare)(const wn_attend *a, WN(bench) *b, const wn_item *t) {
	b->bundles = wn_bundles(a, t, b->bundle);
	b->queries = 0;
	for (int64_t n = 0, same = 0; n < b->bundles; n++) {
		if (!wn_same(&b->bundle[same].list, &b->bundle[n].list)) same = n;
		for (int64_t h = 0; h < b->bundle[n].heads; h++) {
			WN(query) *s = &b->query[b->queries++];
			s->row = b->bundle[n].row, s->head = b->bundle[n].head + h, s->bundle = n, s->same = same;
			const float *q = a->q + (s->row * a->heads + s->head) * a->dim;
			for (int64_t d = 0; d < a->dim; d += 16) v_store(s->q + d, v_mul(v_load_n(q + d, a->dim - d), v_set(a->scale)));
		}
	}
}

// split runs one split of every query of an item that has it.
static void WN(split)(const wn_attend *a, WN(bench) *b, int64_t split) {
	for (int64_t i = 0; i < b->queries; i++) WN(begin)(a, &b->query[i]);
	for (int64_t i = split * WN_SPLIT; i < (split + 1) * WN_SPLIT; i++) WN(step)(a, b, i);
}

WN_INLINE int64_t WN(splits_of)(const WN(bench) *b, int64_t query) { return wn_splits_of(&b->bundle[b->query[query].bundle].list); }

// attend_whole does all splits of an item.
static void WN(attend_whole)(void *arg, int64_t item, int worker) {
	const wn_attend *a = arg;
	WN(bench) *b = WN(bench_of)(a, worker);
	wn_item t = wn_item_of(a, a->order[item] & UINT32_MAX);
	int64_t size = WN(part_floats)(a), splits = 0;
	WN(prepare)(a, b, &t);
	for (int64_t i = 0; i < b->queries; i++) splits = wn_max(splits, WN(splits_of)(b, i));
	float *part = b->k; // the panels are done with by then
	for (int64_t s = 0; s < splits; s++) {
		WN(split)(a, b, s);
		for (int64_t i = 0; i < b->queries; i++) {
			if (s >= WN(splits_of)(b, i)) continue;
			WN(write)(a, &b->query[i], s ? part : b->whole + i * size);
			if (s) WN(merge)(a, b->whole + i * size, part);
		}
	}
	for (int64_t i = 0; i < b->queries; i++) WN(finish)(a, b->whole + i * size, b->query[i].row, b->query[i].head);
}

// attend_split does one split of an item. The last splits, which may be short, come last.
static void WN(attend_split)(void *arg, int64_t item, int worker) {
	const wn_attend *a = arg;
	WN(bench) *b = WN(bench_of)(a, worker);
	wn_item t = wn_item_of(a, item % a->items);
	int64_t split = item / a->items;
	WN(prepare)(a, b, &t);
	WN(split)(a, b, split);
	for (int64_t i = 0; i < b->queries; i++) {
		if (split >= WN(splits_of)(b, i)) continue;
		WN(query) *s = &b->query[i];
		WN(write)(a, s, a->parts + ((s->row * a->heads + s->head) * a->splits + split) * WN(part_floats)(a));
	}
}

// attend_merge merges the splits of one row.
static void WN(attend_merge)(void *arg, int64_t row, int worker) {
	const wn_attend *a = arg;
	int64_t size = WN(part_floats)(a);
	(void)worker;
	for (int64_t h = 0; h < a->heads; h++) {
		wn_list l = wn_list_of(a, row, h);
		float *whole = a->parts + (row * a->heads + h) * a->splits * size;
		for (int64_t s = 1; s < wn_splits_of(&l); s++) WN(merge)(a, whole, whole + s * size);
		WN(finish)(a, whole, row, h);
	}
}

void WN(wn_attend)(wn_ctx *ctx, const wn_op *op) {
	void *const *p = op->p;
	const int64_t *d = op->d;
	wn_attend a = {.q = p[0], .y = p[1], .k = p[2], .v = p[3], .pages = p[4], .seq = p[5], .pos = p[6], .tile = p[8], .sink = p[9],
		.local = p[10], .block_at = p[11], .block_n = p[12], .blocks = p[13], .key_at = p[14], .key_n = p[15], .keys = p[16], .lanes = p[17], .heads = d[1],
		.kv = d[2], .dim = d[3], .groups = d[4], .columns = d[5], .stride = d[7], .wide = d[8], .base = d[9], .kind = (int)d[6], .scale = op->f[0],
		.padded = wn_parts(d[3], WN(COLUMNS)) * WN(COLUMNS), .row = wn_row_bytes((int)d[6], d[3]), .rows = wn_live(ctx, p[7], d[0])};
	a.own = p[18], a.pruned_k = p[19], a.pruned_v = p[20], a.keep = d[10], a.pruned_stride = d[11];
	if (a.rows == 0) return;
	int apart = wn_arrange(&a, wn_threads(ctx));
	a.work_bytes = WN(bench_bytes)(&a);
	a.work = wn_scratch(ctx, wn_threads(ctx) * a.work_bytes);
	if (!a.work) return;
	if (!apart) {
		a.order = wn_scratch(ctx, a.items * sizeof *a.order);
		if (!a.order) return;
		wn_longest_first(&a);
		wn_parallel(ctx, a.items, WN(attend_whole), &a);
		return;
	}
	a.parts = wn_scratch(ctx, a.rows * a.heads * a.splits * WN(part_floats)(&a) * sizeof(float));
	if (!a.parts) return;
	wn_parallel(ctx, a.items * a.splits, WN(attend_split), &a);
	wn_parallel(ctx, a.rows, WN(attend_merge), &a);
}
