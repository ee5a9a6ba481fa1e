// SelectAnchor: what groups take; d = block, unit, single, edge, lead, every, soft. f = theta, scale. Of some groups first the anchors of rows are
// found, of one in every, an item being a tile in one key-value head, then the keys, an item being a group of rows in one key-value head.

#include "keys.h"
#include "led.h"
#include "scored.h"

enum { WN(AN_QUERIES) = WN_SUMS == 8 ? 8 : 4, WN(AN_WIDE) = WN_SUMS / 4 }; // queries in a pass, and vectors of keys that they meet at once

typedef struct WN(anchor) {
	wn_tiles t;
	wn_scored s;
	wn_led led;
	int64_t block, unit, single, edge, every;
	int soft;
	int64_t tiles, pages; // of the longest group
	int64_t widest; // query heads of a key-value head
	float *found; // rows x heads: the anchors
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

// The scores of a row so far, in 16 lanes: the largest, and the sum of exponentials below it where anchors are soft.
typedef struct WN(an_sight) {
	float most[16], sum[16];
} WN(an_sight);

// an_see adds a row's scores with the keys of a page, minus infinity where it does not see them.
WN_INLINE void WN(an_see)(const WN(anchor) *a, WN(an_sight) *s, const float *y) {
	v16f before = v_load(s->most), most = before, scale = v_set(a->s.scale);
	for (int w = 0; w < 4; w++) most = v_max(v_load(y + 16 * w), most);
	v_store(s->most, most);
	if (!a->soft) return;
	v16f sum = v_mul(v_load(s->sum), v_exp(v_mul(v_sub(before, most), scale)));
	for (int w = 0; w < 4; w++) sum = v_add(sum, v_exp(v_mul(v_sub(v_load(y + 16 * w), most), scale)));
	v_store(s->sum, sum);
}

// an_found is the anchor of a row that saw all it is to see.
static float WN(an_found)(const WN(anchor) *a, const WN(an_sight) *s) {
	v16f lanes = v_load(s->most);
	float most = v_most(lanes);
	if (!a->soft) return a->s.scale * most;
	return a->s.scale * most + logf(v_sum(v_mul(v_load(s->sum), v_exp(v_mul(v_sub(lanes, v_set(most)), v_set(a->s.scale))))));
}

// an_look shows rows in one head, every apart, the keys k of a page up to their own.
static void WN(an_look)(const WN(anchor) *a, const wn_run_of_tiles *r, int64_t head, const uint8_t *k, int64_t page, WN(an_sight) *of) {
	enum { N = WN(AN_QUERIES) };
	for (int64_t i = 0; i < r->rows; i += N) {
		const float *q[N];
		float y[N][WN_PAGE_KEYS];
		for (int64_t n = 0; n < N; n++) q[n] = wn_query(&a->s, r->row + wn_min(i + n, r->rows - 1) * a->every, head);
		(a->s.f16 ? WN(an_products_f16) : WN(an_products_f32))(q, k, a->s.dim, y);
		for (int64_t n = 0; n < wn_min(N, r->rows - i); n++) {
			for (int64_t j = wn_max(r->pos + (i + n) * a->every + 1 - page * WN_PAGE_KEYS, 0); j < WN_PAGE_KEYS; j++) y[n][j] = -INFINITY;
			WN(an_see)(a, &of[i + n], y[n]);
		}
	}
}

// an_those are the rows of a tile of a run, from row on, that have anchors: every apart.
static wn_run_of_tiles WN(an_those)(const WN(anchor) *a, const wn_run_of_tiles *r, int64_t row, int64_t end) {
	int64_t first = row + (a->every / 2 + a->every - (row - r->row) % a->every) % a->every;
	return (wn_run_of_tiles){.row = first, .rows = wn_parts(wn_max(end - first, 0), a->every), .pos = r->pos + first - r->row, .seq = r->seq};
}

static int WN(an_asks)(const WN(anchor) *a, const wn_run_of_tiles *r) { return r->rows == a->s.size && r->pos > 2 * a->edge && r->knob < 1000; }

// asked lists the query heads of a key-value head in which a group's keys must be scored. Returns how many there are.
static int64_t WN(an_asked)(const WN(anchor) *a, int64_t run, int64_t kv_head, int64_t *heads) {
	int64_t n = 0, to = wn_heads_from(kv_head + 1, a->s.heads, a->s.kv);
	for (int64_t h = wn_heads_from(kv_head, a->s.heads, a->s.kv); h < to; h++) {
		heads[n] = h;
		n += WN(an_asks)(a, &a->led.runs[run]) && !wn_led_whole(&a->led, run, h);
	}
	return n;
}

// anchors finds the anchors of a tile's rows in the query heads of one key-value head.
static void WN(an_anchors)(void *arg, int64_t item, int worker) {
	const wn_led_turn *turn = arg;
	const WN(anchor) *a = turn->of;
	int64_t kv_head = item % a->s.kv, tile = item / a->s.kv % a->tiles, run = a->led.order[turn->first + item / a->s.kv / a->tiles];
	const wn_run_of_tiles *r = &a->led.runs[run];
	uint8_t *work = a->work + worker * a->bytes;
	int64_t *head = (int64_t *)work, heads = tile < r->tiles ? WN(an_asked)(a, run, kv_head, head) : 0;
	if (!heads) return;
	WN(an_sight) *of = (WN(an_sight) *)(head + a->widest);
	wn_run_of_tiles t = WN(an_those)(a, r, a->t.first[r->tile + tile], a->t.first[r->tile + tile + 1]);
	int64_t local = (r->pos - a->edge) / WN_PAGE_KEYS, last = (t.pos + (t.rows - 1) * a->every) / WN_PAGE_KEYS;
	for (int64_t i = 0; i < heads * t.rows; i++) v_store(of[i].most, v_set(-INFINITY)), v_store(of[i].sum, v_zero());
	for (int64_t page = 0; t.rows && page <= last; page++) {
		if (page * WN_PAGE_KEYS == a->edge) page = local;
		const uint8_t *k = WN(plain_keys)(wn_keys(&a->s, t.seq, page, kv_head), a->s.kind, a->s.dim, a->plain, worker);
		for (int64_t h = 0; h < heads; h++) WN(an_look)(a, &t, head[h], k, page, of + h * t.rows);
	}
	for (int64_t h = 0; h < heads; h++) {
		for (int64_t i = 0; i < t.rows; i++) a->found[(t.row + i * a->every) * a->s.heads + head[h]] = WN(an_found)(a, &of[h * t.rows + i]);
	}
}

// What a thread keeps while it works on a group.
typedef struct WN(an_bench) {
	float *mean; // queries x dim: means of a block's queries, scaled
	float *cut; // queries: what a score must reach
	float (*y)[WN_PAGE_KEYS]; // queries: scores with the keys of a page
	uint64_t *chosen; // keys of each page, head after head
	int64_t *heads; // that are asked
} WN(an_bench);

// an_queries is the number of means of a group in one key-value head, a multiple of AN_QUERIES.
WN_INLINE int64_t WN(an_queries)(const WN(anchor) *a) {
	return wn_parts(a->widest * (a->s.size / a->block), WN(AN_QUERIES)) * WN(AN_QUERIES);
}

static WN(an_bench) WN(an_bench_of)(const WN(anchor) *a, int worker) {
	int64_t n = WN(an_queries)(a);
	WN(an_bench) b = {.heads = (int64_t *)(a->work + worker * a->bytes)};
	b.chosen = (uint64_t *)(b.heads + a->widest);
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
	}
	for (int64_t i = row + a->every / 2; i < row + a->block; i += a->every) sum += a->found[i * a->s.heads + head];
	for (int64_t d = 0; d < a->s.dim; d++) mean[d] *= by;
	*cut = sum * a->every / a->block - r->knob;
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

// item plans one group in the query heads of one key-value head.
static void WN(an_item)(void *arg, int64_t item, int worker) {
	const wn_led_turn *turn = arg;
	const WN(anchor) *a = turn->of;
	int64_t kv_head = item % a->s.kv, run = a->led.order[turn->first + item / a->s.kv], last = wn_heads_from(kv_head + 1, a->s.heads, a->s.kv);
	const wn_run_of_tiles *r = &a->led.runs[run];
	enum { N = WN(AN_QUERIES) };
	WN(an_bench) b = WN(an_bench_of)(a, worker);
	int64_t heads = WN(an_asked)(a, run, kv_head, b.heads), blocks = a->s.size / a->block, queries = heads * blocks, dim = a->s.dim;
	for (int64_t h = wn_heads_from(kv_head, a->s.heads, a->s.kv), i = 0; h < last; h++) {
		if (i < heads && b.heads[i] == h) {
			i++;
			continue;
		}
		wn_run_rows(&a->t, r, h, (int64_t[]){0, 0}, (int64_t[]){0, 0});
		wn_led_reads(&a->led, run, h, r->pos);
	}
	if (!heads) return;
	for (int64_t i = 0; i < queries; i++) {
		WN(an_average)(a, r, r->row + i % blocks * a->block, b.heads[i / blocks], b.mean + i * dim, b.cut + i);
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
		for (int64_t h = 0; h < heads; h++) b.chosen[h * a->pages + page] = WN(an_wanted)(a, &b, h);
	}
	for (int64_t h = 0; h < heads; h++) {
		int64_t counts[2];
		c.keys = b.chosen + h * a->pages;
		wn_split(&a->t, r, b.heads[h], &c, counts);
		wn_led_reads(&a->led, run, b.heads[h], 2 * a->edge + counts[0] * WN_PAGE_KEYS + counts[1]);
		wn_run_rows(&a->t, r, b.heads[h], (int64_t[]){a->edge, r->pos - a->edge}, counts);
	}
}

// arrange makes room for the longest group. Says whether there was memory.
static int WN(an_arrange)(WN(anchor) *a, wn_ctx *ctx) {
	for (const wn_run_of_tiles *r = a->led.runs; r < a->led.runs + a->led.count; r++) {
		a->pages = wn_max(a->pages, r->pos / WN_PAGE_KEYS), a->tiles = wn_max(a->tiles, r->tiles);
	}
	for (int64_t u = 0; u < a->s.kv; u++) {
		a->widest = wn_max(a->widest, wn_heads_from(u + 1, a->s.heads, a->s.kv) - wn_heads_from(u, a->s.heads, a->s.kv));
	}
	int64_t n = WN(an_queries)(a), group = n * (a->s.dim + 1 + WN_PAGE_KEYS) * 4 + a->widest * a->pages * 8;
	a->bytes = wn_parts(a->widest * 8 + wn_max(group, a->widest * WN_PAGE_KEYS * (int64_t)sizeof(WN(an_sight))), 64) * 64;
	a->work = wn_scratch(ctx, wn_threads(ctx) * a->bytes);
	a->found = wn_scratch(ctx, (a->t.first[a->t.n] * a->s.heads + 1) * sizeof *a->found);
	return a->work && a->found && wn_widened(ctx, a->s.kind, a->s.dim, &a->plain);
}

void WN(wn_select_anchor)(wn_ctx *ctx, const wn_op *op) {
	const int64_t *d = op->d + WN_SCORED_D;
	WN(anchor) a = {.t = wn_tiles_of(ctx, op), .s = wn_scored_of(op), .block = d[0], .unit = d[1], .single = d[2], .edge = d[3], .every = d[5], .soft = (int)d[6]};
	if (!wn_led_of(ctx, &a.led, &a.t, &a.s, d[4]) || !WN(an_arrange)(&a, ctx)) return;
	for (int64_t first = 0, n = a.led.leads; first < a.led.count; first += n, n = a.led.count - first) {
		wn_led_turn turn = {&a, first};
		wn_parallel(ctx, n * a.tiles * a.s.kv, WN(an_anchors), &turn);
		wn_parallel(ctx, n * a.s.kv, WN(an_item), &turn);
	}
}
