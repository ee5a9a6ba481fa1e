// Attend: p = q, y, k, v, pages, seq, pos, n, tile, sink, local, block at, block n, blocks, key at, key n, keys; d = rows, heads, kv heads, dim,
// plan groups, columns of the page table, how the cache stores numbers, its stride; f = scale. An item is a number of rows in the
// query heads of one key-value head or in some of them, or when there are few rows, one split of that. Rows and heads of an item that read the
// same keys share passes over them, which is found out as it runs.
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
	float *k, *v; // panels
	uint16_t *raw; // 64 gathered keys as a tile stores them
	float *key_scale, *value_scale; // of the packed tiles that a pass reads: dim/32 x 64, 64 x dim/32
} WN(bench);

WN_INLINE int64_t WN(panel_floats)(const wn_attend *a) {
	return WN_PAGE / WN(COLUMNS) * WN(key_strip)(a) + a->padded / WN(COLUMNS) * WN(value_strip)(a);
}

WN_INLINE int64_t WN(scale_floats)(const wn_attend *a) { return WN_PAGE * (a->dim / WN_SHARED); }

// bench_bytes is the memory that bench lays out.
WN_INLINE int64_t WN(bench_bytes)(const wn_attend *a) {
	int64_t n = a->most, floats = n * (2 * a->padded + WN_PAGE + WN(part_floats)(a)) + WN(panel_floats)(a) + WN_PAGE * a->padded;
	if (a->kind == WN_CACHE_Q8_0) floats += 2 * WN(scale_floats)(a);
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
	return b;
}

// place_key is where 16 columns from column on of a panel of keys have their row d; place_value likewise for 16 dimensions of a value.
WN_INLINE float *WN(place_key)(const wn_attend *a, float *k, int64_t d, int64_t column) {
	return k + column / WN(COLUMNS) * WN(key_strip)(a) + d * WN(COLUMNS) + column % WN(COLUMNS);
}
WN_INLINE float *WN(place_value)(const wn_attend *a, float *v, int64_t j, int64_t d) {
	return v + d / WN(COLUMNS) * WN(value_strip)(a) + j * WN(COLUMNS) + d % WN(COLUMNS);
}

// panel_keys makes a panel of a tile of keys; panel_value does so for value j of a tile of values, that in a slot.
static void WN(panel_keys)(const wn_attend *a, float *k, const uint8_t *tile) {
	for (int64_t d = 0; d < a->dim; d++) {
#pragma GCC unroll 4
		for (int c = 0; c < WN_PAGE; c += 16) v_store(WN(place_key)(a, k, d, c), WN(tile16)(tile, a->kind, a->dim, d, c));
	}
}

static void WN(panel_value)(const wn_attend *a, float *v, int64_t j, const uint8_t *tile, int64_t slot) {
	const uint8_t *row = tile + slot * a->dim * a->bytes, *scale = wn_scales(tile, a->dim) + 2 * slot * (a->dim / WN_SHARED);
	int64_t d = 0;
	if (a->kind == WN_CACHE_Q8_0) {
		for (; d < a->dim; d += 16) v_store(WN(place_value)(a, v, j, d), v_mul(v_load_i8(row + d), v_set(v_one_f16(scale + d / WN_SHARED * 2))));
		return;
	}
	int f16 = a->kind == WN_CACHE_F16;
	for (; d + 16 <= a->dim; d += 16) v_store(WN(place_value)(a, v, j, d), WN(number16)(row + d * a->bytes, f16));
	for (; d < a->padded; d += 16) v_store(WN(place_value)(a, v, j, d), WN(number_n)(row + d * a->bytes, f16, wn_max(a->dim - d, 0)));
}

// gather_packed copies the keys of one page to their columns of a packed tile.
static void WN(gather_packed)(const wn_attend *a, uint8_t *to, const uint8_t *tile, const int32_t *key, int64_t from, int64_t end) {
	uint8_t *scales = to + a->dim * WN_PAGE;
	for (int64_t d = 0; d < a->dim; d++)
		for (int64_t j = from; j < end; j++) to[d * WN_PAGE + j] = tile[d * WN_PAGE + key[j] % WN_PAGE];
	for (int64_t b = 0; b < a->dim / WN_SHARED; b++)
		for (int64_t j = from; j < end; j++) memcpy(scales + 2 * (b * WN_PAGE + j), wn_scales(tile, a->dim) + 2 * (b * WN_PAGE + key[j] % WN_PAGE), 2);
}

// copy_columns copies columns i to end of a tile of binary16 numbers, in bytes from a row's start on, to the same columns of raw: 16 that are
// neighbours at once. What is at next is asked for meanwhile.
static void WN(copy_columns)(uint16_t *raw, const uint8_t *tile, const int32_t *in, const int64_t span[3], const uint8_t *next) {
	int8_t step[WN_PAGE];
	for (int64_t j = span[0], n; j < span[1]; j += n) {
		for (n = 1; n < 16 && j + n < span[1] && in[j + n] == in[j] + 2 * n;) n++;
		step[j] = (int8_t)(n = n < 16 ? 1 : 16);
	}
	for (int64_t d = 0; d < span[2]; d++, raw += WN_PAGE, tile += 2 * WN_PAGE, next += 2 * WN_PAGE) {
		WN(fetch)(next, 2 * WN_PAGE, 1);
		for (int64_t j = span[0]; j < span[1]; j += step[j]) {
			if (step[j] == 16) {
				memcpy(raw + j, tile + in[j], 32);
			} else {
				memcpy(raw + j, tile + in[j], 2);
			}
		}
	}
}

// gather makes panels of single keys and of their values. Keys lie across their pages: the row of a page that all of them share is read for
// all at once, and that of the next page is asked for meanwhile, as are the page's values.
static void WN(gather)(const wn_attend *a, WN(bench) *b, const wn_list *l, const wn_segment *s) {
	int32_t in[WN_PAGE]; // bytes from a row's start to each key
	for (int64_t i = 0; i < s->hi; i++) in[i] = s->key[i] % WN_PAGE * (int32_t)a->bytes;
	for (int64_t i = 0, end; i < s->hi; i = end) {
		int64_t page = s->key[i] / WN_PAGE, at = wn_tile_of(a, l, page), after = at;
		for (end = i + 1; end < s->hi && s->key[end] / WN_PAGE == page;) end++;
		if (end < s->hi) after = wn_tile_of(a, l, s->key[end] / WN_PAGE);
		const uint8_t *tile = a->k + wn_stored(a->kind, at), *values = a->v + wn_stored(a->kind, at);
		for (int64_t j = i; j < end; j++) WN(fetch)(values + in[j] * a->dim, a->dim * a->bytes, 0);
		if (a->kind == WN_CACHE_Q8_0) {
			WN(gather_packed)(a, (uint8_t *)b->raw, tile, s->key, i, end);
		} else if (a->kind == WN_CACHE_F16) {
			WN(copy_columns)(b->raw, tile, in, (int64_t[]){i, end, a->dim}, a->k + wn_stored(a->kind, after));
		} else {
			for (int64_t d = 0; d < a->dim; d++)
				for (int64_t j = i; j < end; j++) memcpy(WN(place_key)(a, b->k, d, j), tile + d * WN_PAGE * 4 + in[j], 4);
		}
		for (int64_t j = i; j < end; j++) WN(panel_value)(a, b->v, j, values, s->key[j] % WN_PAGE);
	}
	if (a->kind != WN_CACHE_F32) WN(panel_keys)(a, b->k, (const uint8_t *)b->raw);
}

// A segment as the queries of several rows pass over it. Without k and v, it lies in the panels.
typedef struct WN(visit) {
	const uint8_t *k, *v;
	const uint8_t *next_k, *next_v; // tiles that come after
	const float *key_scale, *value_scale; // of a packed tile that is read as it lies
} WN(visit);

// pass_cache runs one segment for a group, straight from the cache.
static void WN(pass_cache)(const wn_attend *a, WN(group) g, int64_t n, const WN(visit) *t) {
	const int kind = a->kind;
	int64_t wide = 16 * WN_WIDE(n), blocks = a->dim / WN_SHARED;
	for (int64_t c = 0; c < WN_PAGE; c += wide) {
		WN(scores)[kind][n - 1](g, (WN(strip)){t->k + c * a->bytes, t->v + c * a->dim * a->bytes, WN_PAGE * a->bytes, a->dim, t->key_scale + c, 0}, c);
	}
	WN(soften)(g, n);
	int same = 1;
	for (int64_t i = 0; i < n; i++) same &= g[i]->lo == g[0]->lo && g[i]->hi == g[0]->hi;
	int64_t each = same ? n : 1; // queries that share a pass over values
	wide = 16 * WN_WIDE(each);
	for (int64_t i = 0; i < n; i += each) {
		for (int64_t d = 0; d < a->dim; d += wide) {
			WN(strip) s = {t->v + d * a->bytes, t->next_k + d * WN_PAGE * a->bytes, a->dim * a->bytes, WN_PAGE, t->value_scale + d / WN_SHARED, blocks};
			WN(averages)[kind][each - 1](g + i, s, (WN(span)){g[i]->lo, g[i]->hi, d, 1});
		}
	}
}

// pass_panel runs one segment for any number of queries, through panels. What is in the cache moves there first.
static void WN(pass_panel)(const wn_attend *a, WN(bench) *b, WN(group) g, int64_t count, const WN(visit) *t) {
	int64_t lo = WN_PAGE, hi = 0, apart = 0, bytes = WN_PAGE * a->dim * a->bytes;
	for (int64_t i = 0; i < count; i++) {
		lo = wn_min(lo, g[i]->lo), hi = wn_max(hi, g[i]->hi);
		apart |= (g[i]->lo ^ g[0]->lo) | (g[i]->hi ^ g[0]->hi);
	}
	if (t->k) WN(panel_keys)(a, b->k, t->k);
	int64_t groups = wn_parts(count, WN(TOGETHER)), share = wn_parts(bytes, groups * (WN_PAGE / WN(COLUMNS)) * 64) * 64, fetched = 0;
	for (int64_t c = lo / WN(COLUMNS) * WN(COLUMNS); c < hi; c += WN(COLUMNS)) {
		WN(strip) s = {(const uint8_t *)WN(place_key)(a, b->k, 0, c), NULL, WN(COLUMNS) * 4, a->dim, NULL, 0};
		for (int64_t i = 0; i < count; i += WN(TOGETHER), fetched += share) {
			if (t->next_k) WN(fetch)(t->next_k + fetched, wn_min(share, bytes - fetched), 0);
			WN(scores)[WN(PANEL)][wn_min(count - i, WN(TOGETHER)) - 1](g + i, s, c);
		}
	}
	for (int64_t i = 0; i < count; i += WN(TOGETHER)) WN(soften)(g + i, wn_min(count - i, WN(TOGETHER)));
	for (int64_t j = lo; t->v && j < hi; j++) WN(panel_value)(a, b->v, j, t->v, j);
	share = wn_parts(bytes, groups * (a->padded / WN(COLUMNS)) * 64) * 64, fetched = 0;
	for (int64_t d = 0; d < a->dim; d += WN(COLUMNS)) {
		WN(strip) s = {(const uint8_t *)WN(place_value)(a, b->v, 0, d), NULL, WN(COLUMNS) * 4, WN_PAGE, NULL, 0};
		for (int64_t i = 0; i < count; i += WN(TOGETHER), fetched += share) {
			int64_t n = wn_min(count - i, WN(TOGETHER));
			if (t->next_v) WN(fetch)(t->next_v + fetched, wn_min(share, bytes - fetched), 0);
			if (apart) {
				WN(average_apart)(g + i, n, WN(PANEL), s, d);
			} else {
				WN(averages)[WN(PANEL)][n - 1](g + i, s, (WN(span)){lo, hi, d, 1});
			}
		}
	}
}

// pass_over runs one segment for queries that share it, each with its own lo and hi. It is segment i of list l.
static void WN(pass_over)(const wn_attend *a, WN(bench) *b, WN(group) g, int64_t count, const wn_list *l, int64_t i) {
	wn_segment s = wn_segment_of(a, l, i), next = {0};
	if (i + 1 < l->total) next = wn_segment_of(a, l, i + 1);
	if (s.key) WN(gather)(a, b, l, &s);
	WN(visit) t = {s.k, s.v, next.k, next.v, b->key_scale, b->value_scale};
	if (s.key || count > WN(FEW) || a->dim % WN_PAGE) {
		WN(pass_panel)(a, b, g, count, &t);
		return;
	}
	if (!t.next_k) t.next_k = t.k;
	for (int64_t j = 0; a->kind == WN_CACHE_Q8_0 && j < WN(scale_floats)(a); j += 16) {
		v_store(b->key_scale + j, v_load_f16(wn_scales(s.k, a->dim) + 2 * j));
		v_store(b->value_scale + j, v_load_f16(wn_scales(s.v, a->dim) + 2 * j));
	}
	for (int64_t j = 0; j < count; j += WN(TOGETHER)) WN(pass_cache)(a, g + j, wn_min(count - j, WN(TOGETHER)), &t);
}

// step runs segment i of every bundle's list. Neighbours whose segments are the same single keys or lie in one tile go through it together.
static void WN(step)(const wn_attend *a, WN(bench) *b, int64_t i) {
	WN(query) *together[WN_QUERIES];
	const wn_list *shared = NULL;
	wn_segment s = {0};
	int64_t count = 0;
	for (int64_t q = 0; q < b->queries; q++) {
		const wn_list *l = &b->bundle[b->query[q].bundle].list;
		if (i >= l->total) continue;
		wn_segment own = wn_segment_of(a, l, i);
		if (count && (own.k != s.k || own.key != s.key || (own.key && (own.hi != s.hi || l->table != shared->table)))) {
			WN(pass_over)(a, b, together, count, shared, i);
			count = 0;
		}
		if (!count) shared = l, s = own;
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
	for (int64_t n = 0; n < b->bundles; n++) {
		for (int64_t h = 0; h < b->bundle[n].heads; h++) {
			WN(query) *s = &b->query[b->queries++];
			s->row = b->bundle[n].row, s->head = b->bundle[n].head + h, s->bundle = n;
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
		.local = p[10], .block_at = p[11], .block_n = p[12], .blocks = p[13], .key_at = p[14], .key_n = p[15], .keys = p[16], .heads = d[1],
		.kv = d[2], .dim = d[3], .groups = d[4], .columns = d[5], .stride = d[7], .kind = (int)d[6], .scale = op->f[0],
		.padded = wn_parts(d[3], WN(COLUMNS)) * WN(COLUMNS), .bytes = d[6] == WN_CACHE_F32 ? 4 : d[6] == WN_CACHE_F16 ? 2 : 1, .rows = wn_live(ctx, p[7], d[0])};
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
