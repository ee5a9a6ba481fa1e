// SelectAnchor: what groups take; d = block, unit, single, edge. f = theta, scale. First the anchors of all rows are found, an
// item being a tile in one key-value head, then the keys, an item being a group of rows in one key-value head.

#include "keys.h"
#include "scored.h"

enum { WN(AN_QUERIES) = WN_SUMS == 8 ? 8 : 4, WN(AN_WIDE) = WN_SUMS / 4 }; // queries in a pass, and vectors of keys that they meet at once

typedef struct WN(anchor) {
	wn_tiles t;
	wn_scored s;
	int64_t block, unit, single, edge;
	wn_run_of_tiles *runs, *whole; // of tiles; those of whole groups, tile by tile
	int64_t count, tiles, pages; // pages: of the longest group
	int64_t widest; // query heads of a key-value head
	float *most; // rows x heads: the anchors
	uint8_t *work; // of bytes for each thread
	int64_t bytes;
	float *plain; // of each thread: room for a tile of packed keys
} WN(anchor);

// products computes y[i] = q[i] . key for the 64 keys of a tile.
WN_INLINE void WN(an_products)(const float *const *q, int f16, const uint8_t *k, int64_t dim, float (*y)[WN_PAGE_KEYS]) {
	enum { N = WN(AN_QUERIES), WIDE = WN(AN_WIDE) };
	int bytes = f16 ? 2 : 4;
	for (int at = 0; at < 4; at += WIDE) {
		v16f sum[N][WIDE];
		for (int i = 0; i < N; i++)
			for (int w = 0; w < WIDE; w++) sum[i][w] = v_zero();
		for (int64_t d = 0; d < dim; d++) {
			v16f key[WIDE];
			for (int w = 0; w < WIDE; w++) {
				const uint8_t *from = k + 16 * ((at + w) * dim + d) * bytes;
				key[w] = f16 ? v_load_f16(from) : v_load((const float *)from);
			}
#pragma GCC unroll 8
			for (int i = 0; i < N; i++) {
				v16f x = v_set(q[i][d]);
				for (int w = 0; w < WIDE; w++) sum[i][w] = v_fma(x, key[w], sum[i][w]);
			}
		}
		for (int i = 0; i < N; i++)
			for (int w = 0; w < WIDE; w++) v_store(y[i] + 16 * (at + w), sum[i][w]);
	}
}

static void WN(an_products_f32)(const float *const *q, const uint8_t *k, int64_t dim, float (*y)[WN_PAGE_KEYS]) { WN(an_products)(q, 0, k, dim, y); }
static void WN(an_products_f16)(const float *const *q, const uint8_t *k, int64_t dim, float (*y)[WN_PAGE_KEYS]) { WN(an_products)(q, 1, k, dim, y); }

// raise raises the largest scores of a tile's rows in one head, 16 lanes a row, by those with the keys k of a page up to
// their own.
static void WN(an_raise)(const WN(anchor) *a, const wn_run_of_tiles *r, int64_t head, const uint8_t *k, int64_t page, float (*top)[16]) {
	enum { N = WN(AN_QUERIES) };
	for (int64_t i = 0; i < r->rows; i += N) {
		const float *q[N];
		float y[N][WN_PAGE_KEYS];
		for (int64_t n = 0; n < N; n++) q[n] = wn_query(&a->s, r->row + wn_min(i + n, r->rows - 1), head);
		(a->s.f16 ? WN(an_products_f16) : WN(an_products_f32))(q, k, a->s.dim, y);
		for (int64_t n = 0; n < wn_min(N, r->rows - i); n++) {
			for (int64_t j = wn_max(r->pos + i + n + 1 - page * WN_PAGE_KEYS, 0); j < WN_PAGE_KEYS; j++) y[n][j] = -INFINITY;
			v16f most = v_load(top[i + n]);
			for (int w = 0; w < 4; w++) most = v_max(v_load(y[n] + 16 * w), most);
			v_store(top[i + n], most);
		}
	}
}

// anchors finds the anchors of a tile's rows in the query heads of one key-value head.
static void WN(an_anchors)(void *arg, int64_t item, int worker) {
	const WN(anchor) *a = arg;
	const wn_run_of_tiles *r = &a->whole[item / a->s.kv];
	int64_t kv_head = item % a->s.kv, from = wn_heads_from(kv_head, a->s.heads, a->s.kv), to = wn_heads_from(kv_head + 1, a->s.heads, a->s.kv);
	int64_t local = (r->pos / a->s.size * a->s.size - a->edge) / WN_PAGE_KEYS, last = (r->pos + r->rows - 1) / WN_PAGE_KEYS;
	float (*top)[16] = (float (*)[16])(a->work + worker * a->bytes);
	for (int64_t i = 0; i < (to - from) * r->rows; i++) v_store(top[i], v_set(-INFINITY));
	for (int64_t page = 0; page <= last; page++) {
		if (page * WN_PAGE_KEYS == a->edge) page = local;
		const uint8_t *k = WN(plain_keys)(wn_keys(&a->s, r->seq, page, kv_head), a->s.kind, a->s.dim, a->plain, worker);
		for (int64_t h = from; h < to; h++) WN(an_raise)(a, r, h, k, page, top + (h - from) * r->rows);
	}
	for (int64_t h = from; h < to; h++) {
		for (int64_t i = 0; i < r->rows; i++) a->most[(r->row + i) * a->s.heads + h] = a->s.scale * v_most(v_load(top[(h - from) * r->rows + i]));
	}
}

// What a thread keeps while it works on a group.
typedef struct WN(an_bench) {
	float *mean; // queries x dim: means of a block's queries, scaled
	float *cut; // queries: what a score must reach
	float (*y)[WN_PAGE_KEYS]; // queries: scores with the keys of a page
	uint64_t *chosen; // keys of each page, head after head
} WN(an_bench);

// an_queries is the number of means of a group in one key-value head, a multiple of AN_QUERIES.
WN_INLINE int64_t WN(an_queries)(const WN(anchor) *a) {
	return wn_parts(a->widest * (a->s.size / a->block), WN(AN_QUERIES)) * WN(AN_QUERIES);
}

static WN(an_bench) WN(an_bench_of)(const WN(anchor) *a, int worker) {
	int64_t n = WN(an_queries)(a);
	WN(an_bench) b = {.chosen = (uint64_t *)(a->work + worker * a->bytes)};
	b.mean = (float *)(b.chosen + a->widest * a->pages);
	b.cut = b.mean + n * a->s.dim;
	b.y = (float (*)[WN_PAGE_KEYS])(b.cut + n);
	return b;
}

// average computes the mean of a block of queries and what its scores must reach.
static void WN(an_average)(const WN(anchor) *a, const wn_run_of_tiles *r, int64_t row, int64_t head, float *mean, float *cut) {
	float sum = 0, by = a->s.scale / a->block;
	memset(mean, 0, a->s.dim * sizeof *mean);
	for (int64_t i = row; i < row + a->block; i++) {
		const float *q = wn_query(&a->s, i, head);
		for (int64_t d = 0; d < a->s.dim; d++) mean[d] += q[d];
		sum += a->most[i * a->s.heads + head];
	}
	for (int64_t d = 0; d < a->s.dim; d++) mean[d] *= by;
	*cut = sum / a->block - r->knob;
}

// wanted has a bit for each key of a page that is read in a head, the in-th: those of units of which some block of queries wants a key.
static uint64_t WN(an_wanted)(const WN(anchor) *a, const WN(an_bench) *b, int64_t in) {
	int64_t n = a->s.size / a->block;
	float over[WN_PAGE_KEYS];
	uint64_t wanted = 0, all = ~0ull >> (WN_PAGE_KEYS - a->unit);
	v16f any = v_set(-INFINITY);
	for (int w = 0; w < 4; w++) {
		v16f most = v_set(-INFINITY);
		for (int64_t u = in * n; u < (in + 1) * n; u++) most = v_max(v_sub(v_load(b->y[u] + 16 * w), v_set(b->cut[u])), most);
		v_store(over + 16 * w, most);
		any = v_max(most, any);
	}
	if (!(v_most(any) >= 0)) return 0;
	for (int64_t j = 0; j < WN_PAGE_KEYS; j++) {
		if (over[j] >= 0) wanted |= all << j / a->unit * a->unit;
	}
	return wanted;
}

static int WN(an_asks)(const WN(anchor) *a, const wn_run_of_tiles *r) { return r->rows == a->s.size && r->pos > 2 * a->edge && r->knob < 1000; }

// item plans one group in the query heads of one key-value head. Later groups have more keys between, so they come first.
static void WN(an_item)(void *arg, int64_t item, int worker) {
	const WN(anchor) *a = arg;
	const wn_run_of_tiles *r = &a->runs[a->count - 1 - item / a->s.kv];
	int64_t kv_head = item % a->s.kv, from = wn_heads_from(kv_head, a->s.heads, a->s.kv), to = wn_heads_from(kv_head + 1, a->s.heads, a->s.kv);
	if (!WN(an_asks)(a, r)) {
		for (int64_t h = from; h < to; h++) wn_run_rows(&a->t, r, h, (int64_t[]){0, 0}, (int64_t[]){0, 0});
		return;
	}
	enum { N = WN(AN_QUERIES) };
	WN(an_bench) b = WN(an_bench_of)(a, worker);
	int64_t blocks = a->s.size / a->block, queries = (to - from) * blocks, dim = a->s.dim;
	for (int64_t i = 0; i < queries; i++) {
		WN(an_average)(a, r, r->row + i % blocks * a->block, from + i / blocks, b.mean + i * dim, b.cut + i);
	}
	memset(b.mean + queries * dim, 0, (WN(an_queries)(a) - queries) * dim * sizeof(float));
	wn_chosen c = {.from = a->edge / WN_PAGE_KEYS, .to = (r->pos - a->edge) / WN_PAGE_KEYS, .single = a->single};
	for (int64_t page = c.from; page < c.to; page++) {
		const uint8_t *k = WN(plain_keys)(wn_keys(&a->s, r->seq, page, kv_head), a->s.kind, dim, a->plain, worker);
		for (int64_t i = 0; i < queries; i += N) {
			const float *q[N];
			for (int n = 0; n < N; n++) q[n] = b.mean + (i + n) * dim;
			(a->s.f16 ? WN(an_products_f16) : WN(an_products_f32))(q, k, dim, b.y + i);
		}
		for (int64_t h = 0; h < to - from; h++) b.chosen[h * a->pages + page] = WN(an_wanted)(a, &b, h);
	}
	for (int64_t h = 0; h < to - from; h++) {
		int64_t counts[2];
		c.keys = b.chosen + h * a->pages;
		wn_split(&a->t, r, from + h, &c, counts);
		wn_run_rows(&a->t, r, from + h, (int64_t[]){a->edge, r->pos - a->edge}, counts);
	}
}

// arrange finds the groups, and the tiles of those that are whole. Says whether there was memory.
static int WN(an_arrange)(WN(anchor) *a, wn_ctx *ctx) {
	a->runs = wn_scratch(ctx, (a->t.n + 1) * sizeof *a->runs);
	a->whole = wn_scratch(ctx, (a->t.n + 1) * sizeof *a->whole);
	if (!a->runs || !a->whole) return 0;
	for (int64_t i = 0; (i = wn_next_run(&a->t, a->s.seq, i, a->s.size, &a->runs[a->count])); a->count++) {
		const wn_run_of_tiles *r = &a->runs[a->count];
		a->pages = wn_max(a->pages, r->pos / WN_PAGE_KEYS);
		for (int64_t t = r->tile; WN(an_asks)(a, r) && t < r->tile + r->tiles; t++) {
			int64_t row = a->t.first[t];
			a->whole[a->tiles++] = (wn_run_of_tiles){.row = row, .rows = a->t.first[t + 1] - row, .pos = a->t.pos[row], .seq = r->seq};
		}
	}
	for (int64_t u = 0; u < a->s.kv; u++) {
		a->widest = wn_max(a->widest, wn_heads_from(u + 1, a->s.heads, a->s.kv) - wn_heads_from(u, a->s.heads, a->s.kv));
	}
	int64_t n = WN(an_queries)(a), group = n * (a->s.dim + 1 + WN_PAGE_KEYS) * 4 + a->widest * a->pages * 8;
	a->bytes = wn_parts(wn_max(group, a->widest * WN_PAGE_KEYS * 64), 64) * 64;
	a->work = wn_scratch(ctx, wn_threads(ctx) * a->bytes);
	a->most = wn_scratch(ctx, (a->t.first[a->t.n] * a->s.heads + 1) * sizeof *a->most);
	return a->work && a->most && wn_widened(ctx, a->s.kind, a->s.dim, &a->plain);
}

void WN(wn_select_anchor)(wn_ctx *ctx, const wn_op *op) {
	const int64_t *d = op->d + WN_SCORED_D;
	WN(anchor) a = {.t = wn_tiles_of(ctx, op), .s = wn_scored_of(op), .block = d[0], .unit = d[1], .single = d[2], .edge = d[3]};
	if (!WN(an_arrange)(&a, ctx)) return;
	if (a.tiles) wn_parallel(ctx, a.tiles * a.s.kv, WN(an_anchors), &a);
	if (a.count) wn_parallel(ctx, a.count * a.s.kv, WN(an_item), &a);
}
