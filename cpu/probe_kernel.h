// Probe: the plan; then p = q, rows, n, y, k, pages, seq, pos; d = probes, rows of the batch, kv heads, dim, columns of the page table, how the
// cache stores numbers, its stride; where full pages are pruned p goes on with pruned k, pages of the cache that rows are in, and d with numbers
// kept, stride of pruned pages in bytes; f = scale. An item is a probe in one query head, which runs over all visible pages with two sums beside each
// other, of everything and of what is listed, under one running maximum: where everything is listed, they are the same to the bit.

#include "keys.h"
#include "plan.h"

typedef struct WN(probe_job) {
	wn_plan plan;
	const float *q;
	const int32_t *rows, *pages, *seq, *pos, *own; // own: NULL where no pages are pruned
	const uint8_t *k, *pruned;
	float *y, *scaled; // scaled: padded floats for each thread
	int64_t kv, dim, padded, columns, stride, keep, pruned_stride;
	int kind; // of the cache
	float scale, *room; // room: for a tile as floats
} WN(probe_job);

// How far a probe has come in its plan row's lists.
typedef struct WN(listed) {
	const int32_t *block, *last_block, *key, *last_key;
	int64_t sink, local;
} WN(listed);

static WN(listed) WN(listed_of)(const wn_plan *p, int64_t r) {
	WN(listed) l = {.sink = p->sink[r], .local = p->local[r]};
	if (p->block_at) l.block = p->blocks + p->block_at[r], l.last_block = l.block + p->block_n[r];
	if (p->key_at) l.key = p->keys + p->key_at[r], l.last_key = l.key + p->key_n[r];
	return l;
}

// in_page is 1 for each of a page's 64 keys that is listed, 0 for the others. Pages are asked for in order.
static void WN(in_page)(WN(listed) *l, int64_t page, float *in) {
	int64_t first = 64 * page;
	int all = first < l->sink;
	if (l->block < l->last_block && *l->block == page) all = 1, l->block++;
	for (int64_t j = 0; j < 64; j++) in[j] = all || first + j >= l->local ? 1.0f : 0.0f;
	for (; l->key < l->last_key && *l->key < first + 64; l->key++) in[*l->key - first] = 1;
}

// scores are those of a page's 64 keys.
WN_INLINE void WN(probe_scores)(v16f *s, const float *q, const uint8_t *tile, int64_t dim, int f16) {
	for (int w = 0; w < 4; w++) s[w] = v_zero();
	for (int64_t d = 0; d < dim; d++) {
		v16f x = v_set(q[d]);
		for (int w = 0; w < 4; w++) {
			v16f key = f16 ? v_load_f16(tile + 2 * 16 * (w * dim + d)) : v_load((const float *)tile + 16 * (w * dim + d));
			s[w] = v_fma(x, key, s[w]);
		}
	}
}

// probe_tile is the tile of keys that a row reads of a page in a key-value head, as floats unless f16 stays 1.
static const uint8_t *WN(probe_tile)(const WN(probe_job) *j, int64_t row, int64_t page, int64_t kv, int worker, int *f16) {
	int64_t in = j->seq[row] * j->columns + page;
	if (j->own && page != j->pos[row] / 64) {
		float *room = j->room + worker * j->dim * 64;
		WN(spread_keys)(j->pruned + j->pages[in] * j->pruned_stride + kv * 64 * (2 * j->keep + j->dim / 8), j->dim, j->keep, room);
		*f16 = 0;
		return (const uint8_t *)room;
	}
	int64_t at = (j->own ? j->own : j->pages)[in] * j->stride + kv * j->dim * 64;
	return WN(plain_keys)(j->k + wn_stored(j->kind, at), j->kind, j->dim, j->room, worker);
}

static void WN(probe_item)(void *arg, int64_t item, int worker) {
	const WN(probe_job) *j = arg;
	int64_t heads = j->plan.heads, head = item % heads, probe = item / heads, row = j->rows[probe], pos = j->pos[row];
	float *q = j->scaled + worker * j->padded, top = -INFINITY;
	const float *from = j->q + (row * heads + head) * j->dim;
	for (int64_t d = 0; d < j->dim; d += 16) v_store(q + d, v_mul(v_load_n(from + d, j->dim - d), v_set(j->scale)));
	WN(listed) l = WN(listed_of)(&j->plan, wn_row_of(&j->plan, row, head));
	v16f all = v_zero(), listed = v_zero();
	for (int64_t page = 0; page <= pos / 64; page++) {
		float score[64], in[64];
		v16f s[4], most;
		WN(in_page)(&l, page, in);
		int f16 = j->kind == WN_CACHE_F16;
		const uint8_t *tile = WN(probe_tile)(j, row, page, head * j->kv / heads, worker, &f16);
		if (f16) {
			WN(probe_scores)(s, q, tile, j->dim, 1);
		} else {
			WN(probe_scores)(s, q, tile, j->dim, 0);
		}
		for (int w = 0; w < 4; w++) v_store(score + 16 * w, s[w]);
		for (int64_t i = pos + 1 - 64 * page; i < 64; i++) score[i] = -INFINITY, in[i] = 0; // may be anything in the cache
		most = v_load(score);
		for (int w = 1; w < 4; w++) most = v_max(v_load(score + 16 * w), most);
		float best = v_most(most);
		if (best > top) {
			v16f shrink = v_exp(v_set(top - best));
			all = v_mul(all, shrink), listed = v_mul(listed, shrink), top = best;
		}
		for (int64_t w = 0; w < 4; w++) {
			v16f e = v_exp(v_sub(v_load(score + 16 * w), v_set(top)));
			if (64 * page + 16 * w + 15 > pos) { // v_exp of the least is not 0
				float part[16];
				v_store(part, e);
				for (int64_t i = wn_max(pos + 1 - 64 * page - 16 * w, 0); i < 16; i++) part[i] = 0;
				e = v_load(part);
			}
			all = v_add(all, e), listed = v_add(listed, v_mul(e, v_load(in + 16 * w)));
		}
	}
	j->y[probe * heads + head] = v_sum(listed) / v_sum(all);
}

void WN(wn_probe)(wn_ctx *ctx, const wn_op *op) {
	void *const *p = op->p + 9;
	const int64_t *d = op->d + 2;
	WN(probe_job) j = {.plan = wn_plan_of(op->p, op->d), .q = p[0], .rows = p[1], .y = p[3], .k = p[4], .pages = p[5], .seq = p[6], .pos = p[7],
		.kv = d[2], .dim = d[3], .padded = (d[3] + 15) / 16 * 16, .columns = d[4], .kind = (int)d[5], .stride = d[6], .pruned = p[8],
		.own = p[9], .keep = d[7], .pruned_stride = d[8], .scale = op->f[0]};
	int64_t probes = wn_live(ctx, p[2], d[0]);
	j.scaled = wn_scratch(ctx, wn_threads(ctx) * j.padded * sizeof(float));
	if (!j.scaled || !(j.own ? wn_floats(ctx, j.dim, &j.room) : wn_widened(ctx, j.kind, j.dim, &j.room)) || !wn_check_rows(ctx, j.rows, probes, d[1])) return;
	wn_parallel(ctx, probes * j.plan.heads, WN(probe_item), &j);
}
