// Attend: p = q, y, k, v, pages, seq, pos, n, tile, sink, local, block at, block n, blocks, key at, key n, keys; d = rows, heads, kv heads, dim,
// plan groups, columns of the page table, 1 where the cache is F16, its stride; f = scale. An item is a tile of rows in one unit, or when there are few
// rows, one split of that.
//
// What a row computes depends on its own list alone. Every 64 keys at most make a segment; segments are taken in order, 16 of them
// to a split with an online softmax of its own, and the splits are merged in order, on whatever threads they ran. A sum over values of a
// head runs over dimensions in order, one over keys over keys in order, however many queries share the pass.

#include "attend.h"

// The state of one query: a running softmax. The sum has 16 lanes, which are added at the end.
typedef struct WN(query) {
	float *q, *o; // padded floats each: the query, scaled; sum of p times v
	float sum[16];
	float top; // largest score so far
	float shrink; // factor for o and sum that the last segment asked for
	int64_t lo, hi; // its keys in the current segment
	float *p; // 64 scores of the current segment, then their exponentials
} WN(query);

// A partial result, as it lies in memory: o, then 16 lanes of sum, then top.
WN_INLINE int64_t WN(part_floats)(const wn_attend *a) { return a->padded + 32; }

WN_INLINE v16f WN(number16)(const uint8_t *p, int f16) { return f16 ? v_load_f16(p) : v_load((const float *)p); }

// number_n reads the first n of 16 numbers, and no memory beyond.
WN_INLINE v16f WN(number_n)(const uint8_t *p, int f16, int64_t n) {
	if (!f16) return v_load_n((const float *)p, n);
	uint16_t t[16] = {0};
	for (int64_t i = 0; i < n; i++) memcpy(t + i, p + 2 * i, 2);
	return v_load_f16(t);
}

// Columns of a tile that a pass takes at once: as many as keep the multipliers busy and the sums in registers.
#define WN_WIDE(n) ((n) == 1 ? 4 : (n) == 2 ? WN_SUMS / 2 : WN_SUMS / 4)

// fetch asks for the lines from at to at + bytes: the tile that comes next arrives while this one is worked on. Half lines ask twice.
WN_INLINE void WN(fetch)(const uint8_t *at, int bytes) {
	for (int b = 0; b < bytes; b += 64) __builtin_prefetch(at + b);
}

// score computes p[i] = q . key i for the 64 keys of a tile [dim][64], for n queries at once. next is the tile to fetch.
WN_INLINE void WN(score)(WN(query) *const *query, int n, int f16, const uint8_t *k, int64_t dim, const uint8_t *next) {
	enum { MOST = WN_TOGETHER };
	int wide = WN_WIDE(n), bytes = f16 ? 2 : 4;
	for (int at = 0; at < 4; at += wide) {
		v16f sum[MOST][4];
		for (int i = 0; i < n; i++)
			for (int w = 0; w < wide; w++) sum[i][w] = v_zero();
		for (int64_t d = 0; d < dim; d++, next += 16 * wide * bytes) {
			v16f key[4];
			WN(fetch)(next, 16 * wide * bytes);
			for (int w = 0; w < wide; w++) key[w] = WN(number16)(k + (d * WN_PAGE + 16 * (at + w)) * bytes, f16);
			for (int i = 0; i < n; i++) {
				v16f x = v_set(query[i]->q[d]);
				for (int w = 0; w < wide; w++) sum[i][w] = v_fma(x, key[w], sum[i][w]);
			}
		}
		for (int i = 0; i < n; i++)
			for (int w = 0; w < wide; w++) v_store(query[i]->p + 16 * (at + w), sum[i][w]);
	}
}

// A tile of values, and the tile of keys to fetch meanwhile.
typedef struct WN(values) {
	const uint8_t *v, *next;
	int64_t dim;
} WN(values);

// strip adds p[j] times value j to o for keys lo to hi, in wide*16 dimensions from d on, of which the last 16 have tail.
WN_INLINE void WN(strip)(WN(query) *const *query, int n, int f16, int wide, WN(values) t, int64_t d, int64_t tail) {
	enum { MOST = WN_TOGETHER };
	int bytes = f16 ? 2 : 4;
	v16f sum[MOST][4];
	for (int i = 0; i < n; i++)
		for (int w = 0; w < wide; w++) sum[i][w] = v_mul(v_load(query[i]->o + d + 16 * w), v_set(query[i]->shrink));
	for (int64_t j = query[0]->lo; j < query[0]->hi; j++) {
		const uint8_t *row = t.v + (j * t.dim + d) * bytes;
		v16f value[4];
		WN(fetch)(t.next + (64 * d + 16 * wide * j) * bytes, 16 * wide * bytes);
		for (int w = 0; w < wide; w++) value[w] = tail < 16 ? WN(number_n)(row, f16, tail) : WN(number16)(row + 16 * w * bytes, f16);
		for (int i = 0; i < n; i++) {
			v16f x = v_set(query[i]->p[j]);
			for (int w = 0; w < wide; w++) sum[i][w] = v_fma(x, value[w], sum[i][w]);
		}
	}
	for (int i = 0; i < n; i++)
		for (int w = 0; w < wide; w++) v_store(query[i]->o + d + 16 * w, sum[i][w]);
}

// average adds a segment's values to o, for n queries with the same keys lo to hi.
WN_INLINE void WN(average)(WN(query) *const *query, int n, int f16, WN(values) t) {
	int wide = WN_WIDE(n);
	int64_t d = 0;
	for (; d + 16 * wide <= t.dim; d += 16 * wide) WN(strip)(query, n, f16, wide, t, d, 16);
	for (; d + 16 <= t.dim; d += 16) WN(strip)(query, n, f16, 1, t, d, 16);
	if (d < t.dim) WN(strip)(query, n, f16, 1, t, d, t.dim - d);
}

typedef void WN(pass)(WN(query) *const *query, const uint8_t *tile, int64_t dim, const uint8_t *next);

#define WN_PASSES(n, f16) \
	static void WN(score_##n##_##f16)(WN(query) *const *query, const uint8_t *k, int64_t dim, const uint8_t *next) { \
		WN(score)(query, n, f16, k, dim, next); \
	} \
	static void WN(average_##n##_##f16)(WN(query) *const *query, const uint8_t *v, int64_t dim, const uint8_t *next) { \
		WN(average)(query, n, f16, (WN(values)){v, next, dim}); \
	}
WN_PASSES(1, 0)
WN_PASSES(2, 0)
WN_PASSES(3, 0)
WN_PASSES(4, 0)
WN_PASSES(1, 1)
WN_PASSES(2, 1)
WN_PASSES(3, 1)
WN_PASSES(4, 1)
#undef WN_PASSES

// The passes for floats and for F16, by number of queries less one.
static WN(pass) *const WN(scores)[2][WN_TOGETHER] = {
	{WN(score_1_0), WN(score_2_0), WN(score_3_0), WN(score_4_0)}, {WN(score_1_1), WN(score_2_1), WN(score_3_1), WN(score_4_1)}};
static WN(pass) *const WN(averages)[2][WN_TOGETHER] = {
	{WN(average_1_0), WN(average_2_0), WN(average_3_0), WN(average_4_0)}, {WN(average_1_1), WN(average_2_1), WN(average_3_1), WN(average_4_1)}};

// soften turns the scores of a segment's keys into exponentials and updates the running softmax. Scores outside lo to hi, which may
// be anything, become 0.
static void WN(soften)(WN(query) *s) {
	if (s->lo > 0 || s->hi < WN_PAGE) {
		for (int64_t j = 0; j < s->lo; j++) s->p[j] = -INFINITY;
		for (int64_t j = s->hi; j < WN_PAGE; j++) s->p[j] = -INFINITY;
	}
	v16f p[4], most = v_load(s->p), sum = v_load(s->sum);
	for (int w = 1; w < 4; w++) most = v_max(v_load(s->p + 16 * w), most);
	float top = v_most(most);
	s->shrink = 1;
	if (top > s->top) {
		float before[16];
		v_store(before, v_exp(v_set(s->top - top)));
		s->shrink = before[0], s->top = top;
		sum = v_mul(sum, v_set(s->shrink));
	}
	for (int w = 0; w < 4; w++) {
		p[w] = v_exp(v_sub(v_load(s->p + 16 * w), v_set(s->top)));
		v_store(s->p + 16 * w, p[w]);
	}
	if (s->lo > 0 || s->hi < WN_PAGE) {
		for (int64_t j = 0; j < s->lo; j++) s->p[j] = 0;
		for (int64_t j = s->hi; j < WN_PAGE; j++) s->p[j] = 0;
		for (int w = 0; w < 4; w++) p[w] = v_load(s->p + 16 * w);
	}
	v_store(s->sum, v_add(sum, v_add(v_add(p[0], p[1]), v_add(p[2], p[3]))));
}

// gather copies single keys into a tile of keys [dim][64] and one of values [64][dim], both as floats.
static void WN(gather_keys)(const wn_attend *a, const wn_list *l, const wn_segment *s, float *k, float *v) {
	for (int64_t i = 0; i < s->hi; i++) {
		int64_t at = wn_tile_of(a, l, s->key[i] / WN_PAGE), in = s->key[i] % WN_PAGE;
		const uint8_t *from = a->k + (at + in) * a->bytes, *row = a->v + (at + in * a->dim) * a->bytes;
		for (int64_t d = 0; d < a->dim; d++, from += WN_PAGE * a->bytes) {
			if (a->f16) {
				k[d * WN_PAGE + i] = v_one_f16(from);
			} else {
				memcpy(&k[d * WN_PAGE + i], from, 4);
			}
		}
		for (int64_t d = 0; d < a->dim; d += 16) v_store_n(v + i * a->dim + d, WN(number_n)(row + d * a->bytes, a->f16, wn_min(a->dim - d, 16)), a->dim - d);
	}
}

// What a thread keeps while it works on an item.
typedef struct WN(bench) {
	wn_list list[WN_QUERIES];
	WN(query) *query; // rows x heads of the unit
	float *whole; // the same number of merged results
	float *k, *v; // tiles of gathered keys and values
} WN(bench);

WN_INLINE int64_t WN(item_queries)(const wn_attend *a) { return a->span * a->widest; }

// bench_bytes is the memory that bench lays out.
WN_INLINE int64_t WN(bench_bytes)(const wn_attend *a) {
	int64_t n = WN(item_queries)(a);
	int64_t floats = n * (2 * a->padded + WN_PAGE + WN(part_floats)(a)) + 2 * WN_PAGE * a->padded;
	return (sizeof(WN(bench)) + n * sizeof(WN(query)) + 127) / 64 * 64 + (floats * 4 + 63) / 64 * 64;
}

static WN(bench) *WN(bench_of)(const wn_attend *a, int worker) {
	uint8_t *at = a->work + worker * a->work_bytes;
	WN(bench) *b = (WN(bench) *)at;
	int64_t n = WN(item_queries)(a);
	b->query = (WN(query) *)(at + sizeof *b);
	float *f = (float *)(at + (sizeof *b + n * sizeof(WN(query)) + 127) / 64 * 64);
	for (int64_t i = 0; i < n; i++, f += 2 * a->padded + WN_PAGE) {
		b->query[i].q = f, b->query[i].o = f + a->padded, b->query[i].p = f + 2 * a->padded;
	}
	b->whole = f;
	b->k = f + n * WN(part_floats)(a);
	b->v = b->k + WN_PAGE * a->padded;
	return b;
}

// A segment as the queries of several rows pass over it.
typedef struct WN(visit) {
	const uint8_t *k, *v, *next; // next: the tile of keys that comes after
	int f16;
} WN(visit);

// pass_over runs one segment for the queries of rows that share its tile of keys: count of them, each with its own lo and hi.
static void WN(pass_over)(const wn_attend *a, WN(query) **query, int64_t count, const WN(visit) *t) {
	for (int64_t i = 0; i < count; i += WN_TOGETHER) {
		int64_t n = wn_min(count - i, WN_TOGETHER);
		WN(query) **group = query + i;
		WN(scores)[t->f16][n - 1](group, t->k, a->dim, t->v);
		int same = 1;
		for (int64_t j = 0; j < n; j++) {
			WN(soften)(group[j]);
			same &= group[j]->lo == group[0]->lo && group[j]->hi == group[0]->hi;
		}
		if (same) {
			WN(averages)[t->f16][n - 1](group, t->v, a->dim, t->next);
		} else {
			for (int64_t j = 0; j < n; j++) WN(averages)[t->f16][0](group + j, t->v, a->dim, t->next);
		}
	}
}

// visit_of finds segment s of a row, which comes before segment i+1. Single keys are gathered first.
static WN(visit) WN(visit_of)(const wn_attend *a, WN(bench) *b, const wn_list *l, const wn_segment *s, int64_t i) {
	WN(visit) t = {s->k, s->v, s->k, a->f16};
	if (s->key) {
		WN(gather_keys)(a, l, s, b->k, b->v);
		t = (WN(visit)){(uint8_t *)b->k, (uint8_t *)b->v, (uint8_t *)b->k, 0};
	}
	if (i + 1 < l->total) {
		wn_segment next = wn_segment_of(a, l, i + 1);
		if (!next.key) t.next = next.k;
	}
	return t;
}

// step runs segment i of every row's list. Neighbouring rows whose segments lie in one tile go through it together.
static void WN(step)(const wn_attend *a, WN(bench) *b, int64_t rows, int64_t heads, int64_t i) {
	WN(query) *together[WN_QUERIES];
	for (int64_t r = 0; r < rows;) {
		const wn_list *l = &b->list[r];
		if (i >= l->total) {
			r++;
			continue;
		}
		wn_segment s = wn_segment_of(a, l, i), own = s;
		WN(visit) t = WN(visit_of)(a, b, l, &s, i);
		int64_t count = 0;
		do {
			for (int64_t h = 0; h < heads; h++) {
				WN(query) *q = &b->query[r * heads + h];
				q->lo = own.lo, q->hi = own.hi;
				together[count++] = q;
				if (count == WN_QUERIES) WN(pass_over)(a, together, count, &t), count = 0;
			}
			if (++r == rows || s.key || i >= b->list[r].total) break;
			own = wn_segment_of(a, &b->list[r], i);
		} while (!own.key && own.k == s.k);
		if (count) WN(pass_over)(a, together, count, &t);
	}
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

// prepare finds the lists of an item's rows and scales their queries.
static void WN(prepare)(const wn_attend *a, WN(bench) *b, int64_t first, int64_t rows, int64_t unit) {
	int64_t heads = a->unit[unit + 1] - a->unit[unit];
	for (int64_t r = 0; r < rows; r++) {
		b->list[r] = wn_list_of(a, first + r, unit);
		for (int64_t h = 0; h < heads; h++) {
			const float *q = a->q + ((first + r) * a->heads + a->unit[unit] + h) * a->dim;
			float *to = b->query[r * heads + h].q;
			for (int64_t d = 0; d < a->dim; d += 16) v_store(to + d, v_mul(v_load_n(q + d, a->dim - d), v_set(a->scale)));
		}
	}
}

// split runs one split of every row of an item that has it. part is where the partial result of query i goes, for whoever wants it.
static void WN(split)(const wn_attend *a, WN(bench) *b, int64_t rows, int64_t heads, int64_t split) {
	for (int64_t i = 0; i < rows * heads; i++) WN(begin)(a, &b->query[i]);
	for (int64_t i = split * WN_SPLIT; i < (split + 1) * WN_SPLIT; i++) WN(step)(a, b, rows, heads, i);
}

// attend_whole does all splits of a tile of rows. Later tiles read more, so they come first.
static void WN(attend_whole)(void *arg, int64_t item, int worker) {
	const wn_attend *a = arg;
	WN(bench) *b = WN(bench_of)(a, worker);
	int64_t unit = item % a->units, first = (a->tiles - 1 - item / a->units) * a->span, rows = wn_min(a->rows - first, a->span);
	int64_t heads = a->unit[unit + 1] - a->unit[unit], size = WN(part_floats)(a), splits = 0;
	WN(prepare)(a, b, first, rows, unit);
	for (int64_t r = 0; r < rows; r++) splits = wn_max(splits, wn_splits_of(&b->list[r]));
	float *part = b->k; // gathered keys are gone by then
	for (int64_t s = 0; s < splits; s++) {
		WN(split)(a, b, rows, heads, s);
		for (int64_t i = 0; i < rows * heads; i++) {
			if (s >= wn_splits_of(&b->list[i / heads])) continue;
			WN(write)(a, &b->query[i], s ? part : b->whole + i * size);
			if (s) WN(merge)(a, b->whole + i * size, part);
		}
	}
	for (int64_t i = 0; i < rows * heads; i++) WN(finish)(a, b->whole + i * size, first + i / heads, a->unit[unit] + i % heads);
}

// attend_split does one split of one row.
static void WN(attend_split)(void *arg, int64_t item, int worker) {
	const wn_attend *a = arg;
	int64_t split = item % a->splits, unit = item / a->splits % a->units, row = item / a->splits / a->units;
	wn_list l = wn_list_of(a, row, unit);
	if (split >= wn_splits_of(&l)) return;
	WN(bench) *b = WN(bench_of)(a, worker);
	int64_t heads = a->unit[unit + 1] - a->unit[unit];
	WN(prepare)(a, b, row, 1, unit);
	WN(split)(a, b, 1, heads, split);
	for (int64_t h = 0; h < heads; h++) {
		WN(write)(a, &b->query[h], a->parts + ((row * a->heads + a->unit[unit] + h) * a->splits + split) * WN(part_floats)(a));
	}
}

// attend_merge merges the splits of one row.
static void WN(attend_merge)(void *arg, int64_t row, int worker) {
	const wn_attend *a = arg;
	int64_t size = WN(part_floats)(a);
	(void)worker;
	for (int64_t u = 0; u < a->units; u++) {
		wn_list l = wn_list_of(a, row, u);
		for (int64_t h = a->unit[u]; h < a->unit[u + 1]; h++) {
			float *whole = a->parts + (row * a->heads + h) * a->splits * size;
			for (int64_t s = 1; s < wn_splits_of(&l); s++) WN(merge)(a, whole, whole + s * size);
			WN(finish)(a, whole, row, h);
		}
	}
}

// arrange decides on items: rows go in tiles while enough items are left for the threads. Says whether splits are items of their own.
static int WN(arrange)(wn_attend *a, int threads) {
	a->span = wn_max(WN_QUERIES / a->widest, 1);
	while (a->span > 1 && (a->rows + a->span - 1) / a->span * a->units < 4 * threads) a->span /= 2;
	a->tiles = (a->rows + a->span - 1) / a->span;
	a->work_bytes = WN(bench_bytes)(a);
	if (a->tiles * a->units >= 4 * threads) return 0;
	for (int64_t r = 0; r < a->rows; r++) {
		for (int64_t u = 0; u < a->units; u++) {
			wn_list l = wn_list_of(a, r, u);
			a->splits = wn_max(a->splits, wn_splits_of(&l));
		}
	}
	return a->splits > 1;
}

void WN(wn_attend)(wn_ctx *ctx, const wn_op *op) {
	void *const *p = op->p;
	const int64_t *d = op->d;
	wn_attend a = {.q = p[0], .y = p[1], .k = p[2], .v = p[3], .pages = p[4], .seq = p[5], .pos = p[6], .tile = p[8], .sink = p[9],
		.local = p[10], .block_at = p[11], .block_n = p[12], .blocks = p[13], .key_at = p[14], .key_n = p[15], .keys = p[16], .heads = d[1],
		.kv = d[2], .dim = d[3], .groups = d[4], .columns = d[5], .stride = d[7], .f16 = (int)d[6], .scale = op->f[0],
		.padded = (d[3] + 15) / 16 * 16, .bytes = d[6] ? 2 : 4, .rows = wn_live(ctx, p[7], d[0])};
	int32_t *unit = wn_scratch(ctx, (a.heads + 1) * sizeof *unit);
	if (!unit || a.rows == 0) return;
	a.units = wn_units(&a, unit);
	int apart = WN(arrange)(&a, wn_threads(ctx));
	a.work = wn_scratch(ctx, wn_threads(ctx) * a.work_bytes);
	if (!a.work) return;
	if (!apart) {
		wn_parallel(ctx, a.tiles * a.units, WN(attend_whole), &a);
		return;
	}
	a.parts = wn_scratch(ctx, a.rows * a.heads * a.splits * WN(part_floats)(&a) * sizeof(float));
	if (!a.parts) return;
	wn_parallel(ctx, a.rows * a.units * a.splits, WN(attend_split), &a);
	wn_parallel(ctx, a.rows, WN(attend_merge), &a);
}
