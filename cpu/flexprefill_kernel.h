// SelectFlexPrefill: what groups take; d = least. f = gamma, scale, tau. The means of keys are taken first, an item being a block of a
// key-value head; then an item is a group under a plan group of heads.

#include "flexprefill.h"
#include "sight.h"

typedef struct WN(flex) {
	wn_groups groups;
	int64_t least;
	float tau;
	int64_t blocks, padded; // of the longest group; dim, rounded up to 16
	float *keys; // groups x kv heads x blocks x padded: means
} WN(flex);

WN_INLINE float *WN(mean_of)(const WN(flex) *s, int64_t group, int64_t kv, int64_t block) {
	return s->keys + ((group * s->groups.s.kv + kv) * s->blocks + block) * s->padded;
}

static void WN(flex_mean)(void *arg, int64_t item, int worker) {
	const WN(flex) *s = arg;
	const wn_groups *o = &s->groups;
	int64_t block = item % s->blocks, kv = item / s->blocks % o->s.kv, group = item / s->blocks / o->s.kv;
	const wn_run_of_tiles *g = &o->list[group];
	float *mean = WN(mean_of)(s, group, kv, block);
	(void)worker;
	if (block >= wn_end(g) / WN_FLEX_BLOCK) return;
	const uint8_t *tile[2] = {wn_keys(&o->s, g->seq, 2 * block, kv), wn_keys(&o->s, g->seq, 2 * block + 1, kv)};
	memset(mean, 0, s->padded * sizeof *mean);
	for (int64_t d = 0; d < o->s.dim; d++) {
		v16f sum = v_zero();
		for (int t = 0; t < 2; t++)
			for (int64_t k = 0; k < WN_PAGE_KEYS; k += 16)
				sum = v_add(sum, WN(tile16)(tile[t], o->s.kind, o->s.dim, d, k));
		mean[d] = v_sum(sum) / WN_FLEX_BLOCK;
	}
}

// guess writes the shares of the first n blocks of keys for a block of queries of a group, both by their means. query has room for padded.
static void WN(guess)(const WN(flex) *s, int64_t group, int64_t head, int64_t block, int64_t n, float *query, float *shares) {
	const wn_groups *o = &s->groups;
	const float *q = o->s.q + ((o->list[group].row + block * WN_FLEX_BLOCK) * o->s.heads + head) * o->s.dim;
	for (int64_t d = 0; d < s->padded; d += 16) {
		v16f sum = v_zero();
		for (int64_t i = 0; i < WN_FLEX_BLOCK; i++) sum = v_add(sum, v_load_n(q + i * o->s.heads * o->s.dim + d, o->s.dim - d));
		v_store(query + d, v_div(sum, v_set(WN_FLEX_BLOCK)));
	}
	for (int64_t b = 0; b < n; b++) {
		const float *key = WN(mean_of)(s, group, head * o->s.kv / o->s.heads, b);
		v16f sum = v_zero();
		for (int64_t d = 0; d < s->padded; d += 16) sum = v_fma(v_load(query + d), v_load(key + d), sum);
		shares[b] = v_sum(sum) * o->s.scale;
	}
	float share = 1 / WN(soften)(shares, n);
	for (int64_t b = 0; b < n; b++) shares[b] *= share;
}

// by_means chooses among all pairs of blocks those that hold the share gamma.
static void WN(by_means)(const WN(flex) *s, int64_t group, int64_t head, const WN(sight) *e, const wn_blocks *b) {
	for (int64_t q = 0; q < b->own; q++) {
		int64_t n = b->first + q + 1;
		WN(guess)(s, group, head, q, n, e->q, b->row);
		memcpy(b->all + q * b->n, b->row, n * sizeof(float));
		memset(b->all + q * b->n + n, 0, (b->n - n) * sizeof(float));
	}
	int64_t n = wn_cover(b->all, b->own * b->n, s->groups.list[group].knob, b->picked, b->sorted);
	for (int64_t i = 0; i < n; i++) b->chosen[b->picked[i]] = 1;
}

// flex_mark marks the k largest of n.
static void WN(flex_mark)(const float *v, int64_t n, int64_t k, const WN(sight) *e, uint8_t *marks) {
	k = wn_top(v, n, k, e->picked, e->room);
	for (int64_t i = 0; i < k; i++) marks[e->picked[i]] = 1;
}

static void WN(flex_item)(void *arg, int64_t item, int worker) {
	const WN(flex) *s = arg;
	const wn_groups *o = &s->groups;
	int64_t group = item / o->tiles.groups, h = item % o->tiles.groups, head = h * o->s.heads / o->tiles.groups;
	const wn_run_of_tiles *g = &o->list[group];
	WN(sight) e = WN(sight_of)(o, worker);
	WN(look)(o, &e, g, head, (WN(looks)){WN_FLEX_QUERIES, WN_FLEX_BLOCK / WN_FLEX_QUERIES}, worker);
	wn_blocks b = wn_blocks_of(o, g, e.q + WN_STRIP * o->s.dim);
	wn_pool(e.columns, b.n, b.columns);
	wn_pool(e.diagonals, b.n, b.slashes);
	int64_t columns = s->least, slashes = s->least, end = wn_end(g);
	WN(guess)(s, group, head, b.own - 1, b.n, e.q, b.row);
	if (wn_divergence(b.row, b.columns, b.n) < s->tau * s->tau) {
		WN(by_means)(s, group, head, &e, &b);
	} else {
		columns = wn_max(columns, wn_cover_count(e.columns, end, g->knob, e.room) / WN_FLEX_BLOCK + 1);
		slashes = wn_max(slashes, wn_cover_count(e.diagonals, end, g->knob, e.room) / WN_FLEX_BLOCK + 1);
	}
	b.columns[0] = b.slashes[b.n - 1] = INFINITY;
	WN(flex_mark)(b.columns, b.n, columns, &e, b.column);
	WN(flex_mark)(b.slashes, b.n, slashes, &e, b.slash);
	wn_flex_rows(o, g, h, &b);
}

void WN(wn_select_flexprefill)(wn_ctx *ctx, const wn_op *op) {
	WN(flex) s = {.groups = wn_groups_of(ctx, op), .least = op->d[WN_SCORED_D], .tau = op->f[2]};
	wn_groups *o = &s.groups;
	if (!WN(sights)(ctx, o, wn_blocks_floats(o))) return;
	s.blocks = o->longest / WN_FLEX_BLOCK, s.padded = wn_parts(o->s.dim, 16) * 16;
	s.keys = wn_scratch(ctx, o->count * o->s.kv * s.blocks * s.padded * sizeof *s.keys);
	if (!s.keys) return;
	wn_parallel(ctx, o->count * o->s.kv * s.blocks, WN(flex_mean), &s);
	wn_parallel(ctx, o->count * o->tiles.groups, WN(flex_item), &s);
}
