// SelectXAttention: what groups take, of blocks; d = stride, unit, cut. f = gamma, scale. An item is a run of tiles in one key-value head.
//
// A vector holds 16 keys of one dimension, one stride or two, and lies ready in the cache; the rows of a query stride lie in the opposite
// order in a panel, one vector a dimension. Their products, summed over dimensions, are summed over the lanes of each key stride at the end.

#include "keys.h"
#include "pick.h"
#include "scored.h"

enum { WN(XA_KEYS) = WN_SUMS / 2 }; // vectors of keys that meet two query strides in one pass

typedef struct WN(xattention) {
	wn_tiles t;
	wn_scored s;
	int64_t stride, unit, cut;
	wn_run_of_tiles *runs;
	int64_t count;
	int64_t most; // query strides of an item, even
	int64_t keys; // key strides, a multiple of 16
	uint8_t *work; // of bytes for each thread
	int64_t bytes;
	float *plain; // of each thread: room for a tile of packed keys
} WN(xattention);

// What a thread keeps while it works on an item.
typedef struct WN(xa_bench) {
	float *panel; // query strides x dim x 16
	float *scores; // query strides x key strides
	float *mass, *room; // of a head's units
	int32_t *units; // that are chosen
	uint64_t *chosen; // keys of each page
} WN(xa_bench);

static WN(xa_bench) WN(xa_bench_of)(const WN(xattention) *a, int worker) {
	int64_t units = a->keys * a->stride / a->unit + 1;
	WN(xa_bench) b = {.chosen = (uint64_t *)(a->work + worker * a->bytes)};
	b.panel = (float *)(b.chosen + a->keys * a->stride / WN_PAGE_KEYS);
	b.scores = b.panel + a->most * a->s.dim * 16;
	b.mass = b.scores + a->most * a->keys;
	b.room = b.mass + units;
	b.units = (int32_t *)(b.room + units);
	return b;
}

// reverse writes a query stride of a head into its panel, or zeros.
static void WN(xa_reverse)(const WN(xattention) *a, float *panel, int64_t row, int64_t head) {
	float by = a->s.scale / a->stride;
	for (int64_t l = 0; l < 16; l++) {
		const float *q = wn_query(&a->s, row + a->stride - 1 - l % a->stride, head);
		for (int64_t d = 0; d < a->s.dim; d++) panel[d * 16 + l] = q[d] * by;
	}
}

// lanes adds up the lanes of each key stride in a vector. Inlined, it would be taken apart lane by lane.
static __attribute__((noinline)) void WN(xa_lanes)(float *t, int64_t stride, float *to) {
	if (stride == 16) {
		for (int i = 0; i < 8; i++) t[i] += t[i + 8];
	} else {
		to[1] = ((t[8] + t[12]) + (t[10] + t[14])) + ((t[9] + t[13]) + (t[11] + t[15]));
	}
	to[0] = ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}

// pair scores two query strides with the keys of a page; to are their scores with the page's first key stride.
WN_INLINE void WN(xa_pair)(const WN(xattention) *a, int f16, const float *panel, const uint8_t *k, float *to) {
	int64_t dim = a->s.dim, each = 16 / a->stride;
	int bytes = f16 ? 2 : 4;
	for (int at = 0; at < 4; at += WN(XA_KEYS)) {
		v16f sum[2][WN(XA_KEYS)];
		for (int w = 0; w < WN(XA_KEYS); w++) sum[0][w] = v_zero(), sum[1][w] = v_zero();
		for (int64_t d = 0; d < dim; d++) {
			v16f x = v_load(panel + d * 16), y = v_load(panel + (dim + d) * 16);
			for (int w = 0; w < WN(XA_KEYS); w++) {
				const uint8_t *from = k + 16 * ((at + w) * dim + d) * bytes;
				v16f key = f16 ? v_load_f16(from) : v_load((const float *)from);
				sum[0][w] = v_fma(x, key, sum[0][w]);
				sum[1][w] = v_fma(y, key, sum[1][w]);
			}
		}
		for (int w = 0; w < WN(XA_KEYS); w++) {
			float x[16], y[16];
			v_store(x, sum[0][w]), v_store(y, sum[1][w]);
			WN(xa_lanes)(x, a->stride, to + (at + w) * each);
			WN(xa_lanes)(y, a->stride, to + a->keys + (at + w) * each);
		}
	}
}

static void WN(xa_pair_f32)(const WN(xattention) *a, const float *panel, const uint8_t *k, float *to) { WN(xa_pair)(a, 0, panel, k, to); }
static void WN(xa_pair_f16)(const WN(xattention) *a, const float *panel, const uint8_t *k, float *to) { WN(xa_pair)(a, 1, panel, k, to); }

// soften adds the masses of n scores to the masses of their units, one query stride having weight by.
static void WN(xa_soften)(const WN(xattention) *a, float *scores, int64_t n, float by, float *mass) {
	int64_t padded = wn_parts(n, 16) * 16, each = a->unit / a->stride;
	for (int64_t j = n; j < padded; j++) scores[j] = -INFINITY;
	v16f most = v_load(scores);
	for (int64_t j = 16; j < padded; j += 16) most = v_max(v_load(scores + j), most);
	v16f top = v_set(v_most(most));
	float total = 0;
	for (int64_t j = 0; j < padded; j += 16) v_store(scores + j, v_exp(v_sub(v_load(scores + j), top)));
	for (int64_t j = 0; j < n; j += each) {
		float sum = 0;
		for (int64_t i = j; i < wn_min(j + each, n); i++) sum += scores[i];
		scores[j / each] = sum; // an earlier place than any that is still to be read
		total += sum;
	}
	for (int64_t u = 0; u * each < n; u++) mass[u] += scores[u] / total * by;
}

// choose writes the lists of a head by the masses of units.
static void WN(xa_choose)(const WN(xattention) *a, const wn_run_of_tiles *r, WN(xa_bench) *b, int64_t head, int64_t own) {
	wn_chosen c = {b->chosen, a->s.size / WN_PAGE_KEYS, own * a->s.size / WN_PAGE_KEYS, WN_PAGE_KEYS - 1};
	int64_t n = 0, counts[2], from = a->s.size / a->unit, to = own * from, all = wn_parts(r->pos + r->rows / a->stride * a->stride, a->unit);
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
	wn_run_rows(&a->t, r, head, (int64_t[]){a->s.size, own * a->s.size}, counts);
}

// asks says whether a run has rows to ask and blocks to choose.
static int WN(xa_asks)(const WN(xattention) *a, const wn_run_of_tiles *r) {
	return r->knob < 1 && r->pos >= a->s.size && r->pos % a->stride == 0 && r->rows >= a->stride;
}

// item plans one run in the query heads of one key-value head. Later runs score more keys, so they come first.
static void WN(xa_item)(void *arg, int64_t item, int worker) {
	const WN(xattention) *a = arg;
	const wn_run_of_tiles *r = &a->runs[a->count - 1 - item / a->s.kv];
	int64_t kv_head = item % a->s.kv, from = wn_heads_from(kv_head, a->s.heads, a->s.kv), to = wn_heads_from(kv_head + 1, a->s.heads, a->s.kv);
	if (!WN(xa_asks)(a, r)) {
		for (int64_t h = from; h < to; h++) wn_run_rows(&a->t, r, h, (int64_t[]){0, 0}, (int64_t[]){0, 0});
		return;
	}
	WN(xa_bench) b = WN(xa_bench_of)(a, worker);
	int64_t strides = r->rows / a->stride, queries = (to - from) * strides, size = a->s.dim * 16, first = r->pos / a->stride;
	for (int64_t i = 0; i < queries; i++) WN(xa_reverse)(a, b.panel + i * size, r->row + i % strides * a->stride, from + i / strides);
	if (queries % 2) memset(b.panel + queries * size, 0, size * sizeof(float));
	int64_t keys = first + strides, each = WN_PAGE_KEYS / a->stride;
	for (int64_t page = 0; page * each < keys; page++) {
		const uint8_t *k = WN(plain_keys)(wn_keys(&a->s, r->seq, page, kv_head), a->s.kind, a->s.dim, a->plain, worker);
		for (int64_t i = 0; i < queries; i += 2) {
			(a->s.f16 ? WN(xa_pair_f16) : WN(xa_pair_f32))(a, b.panel + i * size, k, b.scores + i * a->keys + page * each);
		}
	}
	int64_t own = r->pos / a->s.size;
	for (int64_t h = from; h < to; h++) {
		memset(b.mass, 0, wn_parts((first + strides) * a->stride, a->unit) * sizeof(float));
		for (int64_t i = 0; i < strides; i++) {
			WN(xa_soften)(a, b.scores + ((h - from) * strides + i) * a->keys, first + i + 1, 1.0f / strides, b.mass);
		}
		WN(xa_choose)(a, r, &b, h, own);
	}
}

void WN(wn_select_xattention)(wn_ctx *ctx, const wn_op *op) {
	const int64_t *d = op->d + WN_SCORED_D;
	WN(xattention) a = {.t = wn_tiles_of(ctx, op), .s = wn_scored_of(op), .stride = d[0], .unit = d[1], .cut = d[2]};
	a.runs = wn_scratch(ctx, (a.t.n + 1) * sizeof *a.runs);
	if (!a.runs) return;
	int64_t widest = 0, rows = a.s.size, last = 0;
	for (int64_t i = 0; (i = wn_next_run(&a.t, a.s.seq, i, a.s.size, &a.runs[a.count]));) {
		last = wn_max(last, a.runs[a.count].pos + a.runs[a.count].rows);
		a.count++;
	}
	for (int64_t u = 0; u < a.s.kv; u++) {
		widest = wn_max(widest, wn_heads_from(u + 1, a.s.heads, a.s.kv) - wn_heads_from(u, a.s.heads, a.s.kv));
	}
	a.most = wn_parts(widest * rows / a.stride, 2) * 2;
	a.keys = wn_parts(last, WN_PAGE_KEYS * 4) * WN_PAGE_KEYS * 4 / a.stride;
	int64_t units = a.keys * a.stride / a.unit + 1, pages = a.keys * a.stride / WN_PAGE_KEYS;
	a.bytes = wn_parts((a.most * (a.s.dim * 16 + a.keys) + 3 * units + 2 * pages) * (int64_t)sizeof(float), 64) * 64;
	a.work = wn_scratch(ctx, wn_threads(ctx) * a.bytes);
	if (a.count && a.work && wn_widened(ctx, a.s.kind, a.s.dim, &a.plain)) wn_parallel(ctx, a.count * a.s.kv, WN(xa_item), &a);
}
