// SelectXAttention: what groups take, of blocks; d = stride, mean, unit, cut, lead. f = gamma, scale. An item is a run of tiles in one key-value
// head.
//
// A vector holds 16 keys of one dimension, one stride or several, and lies ready in the cache; the rows of a query stride, or of the mean of
// several, lie in the opposite order in a panel, one vector a dimension. Their products, summed over dimensions, are summed over the lanes of
// each key stride at the end.

#include "keys.h"
#include "led.h"
#include "pick.h"
#include "scored.h"

enum {
	WN(XA_ROWS) = WN_SUMS == 8 ? 4 : 2, // means of query strides in one pass
	WN(XA_KEYS) = WN_SUMS / 2, // vectors of keys that they meet at once
	WN(XA_PAGES) = 8, // pages that means meet one after the other, so that what they share stays in the nearest cache
};

typedef struct WN(xattention) {
	wn_tiles t;
	wn_scored s;
	wn_led led;
	int64_t stride, span, unit, cut; // span: queries of a mean
	int64_t most; // means of an item, a multiple of XA_ROWS
	int64_t keys; // key strides, a multiple of 16
	uint8_t *work; // of bytes for each thread
	int64_t bytes;
	float *plain; // of each thread: room for a tile of packed keys
} WN(xattention);

// What a thread keeps while it works on an item.
typedef struct WN(xa_bench) {
	float *panel; // means / XA_ROWS x dim x XA_ROWS x 16
	float *scores; // means x key strides
	float *mass, *room; // of a head's units
	int64_t *heads; // that are asked
	int32_t *units; // that are chosen
	uint64_t *chosen; // keys of each page
} WN(xa_bench);

static WN(xa_bench) WN(xa_bench_of)(const WN(xattention) *a, int worker) {
	int64_t units = a->keys * a->stride / a->unit + 1;
	WN(xa_bench) b = {.chosen = (uint64_t *)(a->work + worker * a->bytes)};
	b.heads = (int64_t *)(b.chosen + a->keys * a->stride / WN_PAGE_KEYS);
	b.panel = (float *)(b.heads + a->s.heads);
	b.scores = b.panel + a->most * a->s.dim * 16;
	b.mass = b.scores + a->most * a->keys;
	b.room = b.mass + units;
	b.units = (int32_t *)(b.room + units);
	return b;
}

// reverse writes a mean of query strides of a head into a panel, of which it is one of XA_ROWS.
static void WN(xa_reverse)(const WN(xattention) *a, float *panel, int64_t row, int64_t head) {
	float by = a->s.scale / a->span;
	for (int64_t l = 0; l < a->stride; l++) {
		for (int64_t from = a->stride - 1 - l; from < a->span; from += a->stride) {
			const float *q = wn_query(&a->s, row + from, head);
			for (int64_t d = 0; d < a->s.dim; d++) panel[d * WN(XA_ROWS) * 16 + l] += q[d];
		}
	}
	for (int64_t d = 0; d < a->s.dim; d++) {
		float *at = panel + d * WN(XA_ROWS) * 16;
		for (int64_t l = 0; l < a->stride; l++) at[l] *= by;
		for (int64_t l = a->stride; l < 16; l++) at[l] = at[l - a->stride];
	}
}

// lanes adds up the lanes of each key stride in a vector. Inlined, it would be taken apart lane by lane.
static __attribute__((noinline)) void WN(xa_lanes)(float *t, int64_t stride, float *to) {
	if (stride == 4) {
		for (int i = 0; i < 4; i++) to[i] = (t[4 * i] + t[4 * i + 2]) + (t[4 * i + 1] + t[4 * i + 3]);
		return;
	}
	if (stride == 16) {
		for (int i = 0; i < 8; i++) t[i] += t[i + 8];
	} else {
		to[1] = ((t[8] + t[12]) + (t[10] + t[14])) + ((t[9] + t[13]) + (t[11] + t[15]));
	}
	to[0] = ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}

// meet scores XA_ROWS means with the keys of a page; to are their scores with the page's first key stride. The vectors of a dimension lie
// side by side in the panel.
WN_INLINE void WN(xa_meet)(const WN(xattention) *a, int f16, const float *panel, const uint8_t *k, float *to) {
	enum { N = WN(XA_ROWS), WIDE = WN(XA_KEYS) };
	int64_t dim = a->s.dim, each = 16 / a->stride;
	int bytes = f16 ? 2 : 4;
	for (int at = 0; at < 4; at += WIDE) {
		v16f sum[N][WIDE];
		float lanes[16];
		for (int i = 0; i < N; i++)
			for (int w = 0; w < WIDE; w++) sum[i][w] = v_zero();
		for (int64_t d = 0; d < dim; d++) {
			v16f key[WIDE];
			for (int w = 0; w < WIDE; w++) {
				const uint8_t *from = k + 16 * ((at + w) * dim + d) * bytes;
				key[w] = f16 ? v_load_f16(from) : v_load((const float *)from);
			}
#pragma GCC unroll 4
			for (int i = 0; i < N; i++) {
				v16f x = v_load(panel + (d * N + i) * 16);
				for (int w = 0; w < WIDE; w++) sum[i][w] = v_fma(x, key[w], sum[i][w]);
			}
		}
		for (int i = 0; i < N; i++) {
			for (int w = 0; w < WIDE; w++) {
				v_store(lanes, sum[i][w]);
				WN(xa_lanes)(lanes, a->stride, to + i * a->keys + (at + w) * each);
			}
		}
	}
}

static void WN(xa_meet_f32)(const WN(xattention) *a, const float *panel, const uint8_t *k, float *to) { WN(xa_meet)(a, 0, panel, k, to); }
static void WN(xa_meet_f16)(const WN(xattention) *a, const float *panel, const uint8_t *k, float *to) { WN(xa_meet)(a, 1, panel, k, to); }

// soften adds the masses of n scores to the masses of their units, one mean having weight by.
static void WN(xa_soften)(const WN(xattention) *a, float *scores, int64_t n, float by, float *mass) {
	int64_t padded = wn_parts(n, 16) * 16, each = a->unit / a->stride;
	for (int64_t j = n; j < padded; j++) scores[j] = -INFINITY;
	v16f most = v_load(scores);
	for (int64_t j = 16; j < padded; j += 16) most = v_max(v_load(scores + j), most);
	v16f top = v_set(v_most(most));
	v16f total = v_zero();
	for (int64_t j = 0; j < padded; j += 16) v_store(scores + j, v_exp(v_sub(v_load(scores + j), top)));
	for (int64_t j = n; j < padded; j++) scores[j] = 0;
	for (int64_t j = 0; j < padded; j += 16) total = v_add(total, v_load(scores + j));
	v16f share = v_set(by / v_sum(total));
	for (int64_t j = 0; j < padded; j += 16) v_store(scores + j, v_mul(v_load(scores + j), share));
	for (int64_t j = 0; each == 1 && j < padded; j += 16) v_store(mass + j, v_add(v_load(mass + j), v_load(scores + j)));
	for (int64_t j = 0; each > 1 && j < n; j += each) {
		float sum = 0;
		for (int64_t i = j; i < wn_min(j + each, n); i++) sum += scores[i];
		mass[j / each] += sum;
	}
}

// choose writes the lists of a head by the masses of units.
static void WN(xa_choose)(const WN(xattention) *a, int64_t run, WN(xa_bench) *b, int64_t head, int64_t own) {
	const wn_run_of_tiles *r = &a->led.runs[run];
	wn_chosen c = {b->chosen, a->s.size / WN_PAGE_KEYS, own * a->s.size / WN_PAGE_KEYS, WN_PAGE_KEYS - 1};
	int64_t n = 0, counts[2], from = a->s.size / a->unit, to = own * from, all = wn_parts(r->pos + r->rows / a->span * a->span, a->unit);
	if (a->cut) {
		for (int64_t u = from; u < to; u++) {
			b->units[n] = (int32_t)u;
			n += b->mass[u] >= (1 - r->knob) / a->cut;
		}
	} else {
		n = wn_cover(b->mass, all, r->knob, b->units, b->room);
	}
	memset(c.keys, 0, c.to * sizeof *c.keys);
	for (int64_t i = 0; i < n; i++) {
		if (b->units[i] < from || b->units[i] >= to) continue;
		for (int64_t k = b->units[i] * a->unit; k < (b->units[i] + 1) * a->unit; k++) c.keys[k / WN_PAGE_KEYS] |= 1ull << k % WN_PAGE_KEYS;
	}
	wn_split(&a->t, r, head, &c, counts);
	wn_led_reads(&a->led, run, head, a->s.size + r->pos - own * a->s.size + counts[0] * WN_PAGE_KEYS + counts[1]);
	wn_run_rows(&a->t, r, head, (int64_t[]){a->s.size, own * a->s.size}, counts);
}

// asks says whether a run has rows to ask and blocks to choose.
static int WN(xa_asks)(const WN(xattention) *a, const wn_run_of_tiles *r) {
	return r->knob < 1 && r->pos >= a->s.size && r->pos % a->stride == 0 && r->rows >= a->span;
}

// item plans one run in the query heads of one key-value head.
static void WN(xa_item)(const WN(xattention) *a, int64_t run, int64_t kv_head, int worker) {
	const wn_run_of_tiles *r = &a->led.runs[run];
	WN(xa_bench) b = WN(xa_bench_of)(a, worker);
	int64_t heads = 0, from = wn_heads_from(kv_head, a->s.heads, a->s.kv), to = wn_heads_from(kv_head + 1, a->s.heads, a->s.kv);
	for (int64_t h = from; h < to; h++) {
		if (WN(xa_asks)(a, r) && !wn_led_whole(&a->led, run, h)) {
			b.heads[heads++] = h;
		} else {
			wn_run_rows(&a->t, r, h, (int64_t[]){0, 0}, (int64_t[]){0, 0});
			wn_led_reads(&a->led, run, h, r->pos);
		}
	}
	if (!heads) return;
	int64_t means = r->rows / a->span, queries = heads * means, mean = a->span / a->stride, first = r->pos / a->stride, keys = first + means * mean;
	int64_t dim = a->s.dim, each = WN_PAGE_KEYS / a->stride, pages = wn_parts(keys, each), together = wn_packed(a->s.kind) ? 1 : WN(XA_PAGES);
	enum { N = WN(XA_ROWS) };
	memset(b.panel, 0, wn_parts(queries, N) * N * dim * 16 * sizeof(float));
	for (int64_t i = 0; i < queries; i++) {
		WN(xa_reverse)(a, b.panel + (i / N * N * dim + i % N) * 16, r->row + i % means * a->span, b.heads[i / means]);
	}
	for (int64_t page = 0; page < pages; page += together) {
		const uint8_t *k[WN(XA_PAGES)];
		int64_t n = wn_min(together, pages - page);
		for (int64_t p = 0; p < n; p++) k[p] = WN(plain_keys)(wn_keys(&a->s, r->seq, page + p, kv_head), a->s.kind, dim, a->plain, worker);
		for (int64_t i = 0; i < queries; i += N) {
			float *to = b.scores + i * a->keys + page * each;
			for (int64_t p = 0; p < n; p++) (a->s.f16 ? WN(xa_meet_f16) : WN(xa_meet_f32))(a, b.panel + i * dim * 16, k[p], to + p * each);
		}
	}
	int64_t own = r->pos / a->s.size;
	for (int64_t h = 0; h < heads; h++) {
		memset(b.mass, 0, (a->keys * a->stride / a->unit + 1) * sizeof(float));
		for (int64_t i = 0; i < means; i++) {
			WN(xa_soften)(a, b.scores + (h * means + i) * a->keys, first + (i + 1) * mean, 1.0f / means, b.mass);
		}
		WN(xa_choose)(a, run, &b, b.heads[h], own);
	}
}

static void WN(xa_each)(void *arg, int64_t item, int worker) {
	const wn_led_turn *t = arg;
	const WN(xattention) *a = t->of;
	WN(xa_item)(a, a->led.order[t->first + item / a->s.kv], item % a->s.kv, worker);
}

void WN(wn_select_xattention)(wn_ctx *ctx, const wn_op *op) {
	const int64_t *d = op->d + WN_SCORED_D;
	WN(xattention) a = {.t = wn_tiles_of(ctx, op), .s = wn_scored_of(op), .stride = d[0], .span = d[0] * d[1], .unit = d[2], .cut = d[3]};
	if (!wn_led_of(ctx, &a.led, &a.t, &a.s, d[4])) return;
	int64_t widest = 0, rows = a.s.size, last = 0;
	for (const wn_run_of_tiles *r = a.led.runs; r < a.led.runs + a.led.count; r++) last = wn_max(last, r->pos + r->rows);
	for (int64_t u = 0; u < a.s.kv; u++) {
		widest = wn_max(widest, wn_heads_from(u + 1, a.s.heads, a.s.kv) - wn_heads_from(u, a.s.heads, a.s.kv));
	}
	a.most = wn_parts(widest * rows / a.span, WN(XA_ROWS)) * WN(XA_ROWS);
	a.keys = wn_parts(last, WN_PAGE_KEYS * 4) * WN_PAGE_KEYS * 4 / a.stride;
	int64_t units = a.keys * a.stride / a.unit + 1, pages = a.keys * a.stride / WN_PAGE_KEYS;
	a.bytes = wn_parts((a.most * (a.s.dim * 16 + a.keys) + 3 * units + 2 * (pages + a.s.heads)) * (int64_t)sizeof(float), 64) * 64;
	a.work = wn_scratch(ctx, wn_threads(ctx) * a.bytes);
	if (!a.led.count || !a.work || !wn_widened(ctx, a.s.kind, a.s.dim, &a.plain)) return;
	for (int64_t first = 0, n = a.led.leads; first < a.led.count; first += n, n = a.led.count - first) {
		wn_parallel(ctx, n * a.s.kv, WN(xa_each), &(wn_led_turn){&a, first});
	}
}
