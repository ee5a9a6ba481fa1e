// SelectPages: what tiles take; then p = queries, keys, tails, prompt, pages, seq; d = heads, key heads, width, columns of the page table, rule
// (0 = budget, 1 = share, 2 = ratio), relax, pages of the sink, dense pages at the end of a prompt; f = knob, fixed, scale. An item is a
// tile and head.

#include "pick.h"
#include "tiles.h"

typedef struct WN(pages) {
	wn_tiles tiles;
	const float *q, *tails;
	const uint8_t *keys;
	const int32_t *prompt, *table, *seq;
	int64_t heads, key_heads, width, columns, rule, relax, sink, dense;
	float fixed, scale;
	int32_t *list; // tiles to plan by score
	int64_t most; // pages of the tile with most
	float *work; // of each worker: scores, a heap, choices
} WN(pages);

// pages_dot multiplies a query with a key in F16, or in F32 where it is a tail.
WN_INLINE float WN(pages_dot)(const float *q, const void *key, int64_t width, int f16) {
	v16f sum = v_zero();
	int64_t d = 0;
	for (; d + 16 <= width; d += 16) {
		sum = v_fma(v_load(q + d), f16 ? v_load_f16((const uint8_t *)key + 2 * d) : v_load((const float *)key + d), sum);
	}
	if (d < width) {
		uint16_t t[16] = {0};
		if (f16) memcpy(t, (const uint8_t *)key + 2 * d, 2 * (width - d));
		sum = v_fma(v_load_n(q + d, width - d), f16 ? v_load_f16(t) : v_load_n((const float *)key + d, width - d), sum);
	}
	return v_sum(sum);
}

// pages_score scores the pages before a tile's own, and that where it has a key. Returns how many have scores.
static int64_t WN(pages_score)(const WN(pages) *w, int64_t tile, int64_t head, float *scores) {
	const wn_tiles *t = &w->tiles;
	int64_t last = t->first[tile + 1] - 1, pos = t->pos[last], n = pos / WN_PAGE_KEYS, k = head * w->key_heads / w->heads;
	const int32_t *table = w->table + w->seq[last] * w->columns;
	const float *q = w->q + (tile * w->heads + head) * w->width;
	int tail = w->tails && pos % WN_PAGE_KEYS != WN_PAGE_KEYS - 1;
	if (w->tails && !tail) n++;
	for (int64_t i = 0; i < n; i++) scores[i] = WN(pages_dot)(q, w->keys + (table[i] * w->key_heads + k) * w->width * 2, w->width, 1);
	if (tail) scores[n++] = WN(pages_dot)(q, w->tails + (tile * w->key_heads + k) * w->width, w->width, 0);
	return n;
}

// pages_likely is attention.likely; room is for n, rounded up to 16.
static int64_t WN(pages_likely)(const float *scores, int64_t n, float scale, float threshold, float *room, int32_t *out) {
	float most = -INFINITY;
	v16f sum = v_zero();
	for (int64_t i = 0; i < n; i++) most = scores[i] > most ? scores[i] : most;
	for (int64_t i = 0; i < n; i += 16) {
		float t[16];
		v_store(t, v_exp(v_mul(v_set(scale), v_sub(v_load_n(scores + i, n - i), v_set(most)))));
		for (int64_t j = n - i; j < 16; j++) t[j] = 0;
		v_store(room + i, v_load(t));
		sum = v_add(sum, v_load(t));
	}
	float cut = threshold * v_sum(sum);
	int64_t count = 0;
	for (int64_t i = 0; i < n; i++)
		if (room[i] > cut) out[count++] = (int32_t)i;
	return count;
}

static int64_t WN(pages_of)(const WN(pages) *w, int64_t tile) {
	int64_t prompt = w->prompt[w->seq[w->tiles.first[tile]]];
	return wn_parts(prompt, WN_PAGE_KEYS);
}

static int64_t WN(pages_pick)(const WN(pages) *w, int64_t tile, const float *scores, int64_t n, float *room, int32_t *out) {
	float knob = w->fixed > 0 ? w->fixed : wn_knob(&w->tiles, tile);
	if (w->rule == 0) return wn_top(scores, n, (int64_t)knob / WN_PAGE_KEYS, out, room);
	if (w->rule == 2) {
		int64_t k = (int64_t)((1 - sqrt(1 - (double)knob)) * (double)WN(pages_of)(w, tile));
		return wn_top(scores, n, wn_max(k, 1), out, room);
	}
	if (w->relax > 0 && n > w->relax) knob = knob * (float)w->relax / (float)n;
	return WN(pages_likely)(scores, n, w->scale, knob, room, out);
}

static void WN(pages_item)(void *arg, int64_t item, int worker) {
	const WN(pages) *w = arg;
	const wn_tiles *t = &w->tiles;
	int64_t tile = w->list[item / w->heads], h = item % w->heads, share = t->groups / w->heads, r = tile * t->groups + h * share;
	int64_t own = t->pos[t->first[tile]] / WN_PAGE_KEYS, count = 0;
	float *scores = w->work + worker * 3 * w->most, *room = scores + w->most;
	int32_t *chosen = (int32_t *)(room + w->most);
	int64_t n = WN(pages_score)(w, tile, h, scores);
	n = WN(pages_pick)(w, tile, scores, n, room, chosen);
	for (int64_t i = 0; i < n; i++)
		if (chosen[i] >= w->sink && chosen[i] < own) chosen[count++] = chosen[i];
	if (count > share * t->block_room) {
		wn_plan_rows(t, r, share, 0, 0);
		return;
	}
	wn_plan_rows(t, r, share, wn_min(w->sink, own) * WN_PAGE_KEYS, own * WN_PAGE_KEYS);
	if (!t->block_at) return;
	memcpy(t->blocks + t->block_at[r], chosen, count * sizeof *chosen);
	for (int64_t i = 0; i < share; i++) t->block_n[r + i] = (int32_t)count;
}

void WN(wn_select_pages)(wn_ctx *ctx, const wn_op *op) {
	void *const *p = op->p + WN_TILES_P;
	const int64_t *d = op->d + WN_TILES_D;
	WN(pages) w = {.tiles = wn_tiles_of(ctx, op), .q = p[0], .keys = p[1], .tails = p[2], .prompt = p[3], .table = p[4], .seq = p[5], .heads = d[0],
		.key_heads = d[1], .width = d[2], .columns = d[3], .rule = d[4], .relax = d[5], .sink = d[6], .dense = d[7], .fixed = op->f[1], .scale = op->f[2]};
	const wn_tiles *t = &w.tiles;
	int64_t n = 0;
	w.list = wn_scratch(ctx, t->n * sizeof *w.list);
	if (!w.list) return;
	for (int64_t i = 0; i < t->n; i++) {
		if (t->policy[i] != t->serves) continue;
		int64_t pos = t->pos[t->first[i]], share = t->groups / w.heads;
		if ((w.rule == 0 && pos < (int64_t)wn_knob(t, i)) || (w.dense > 0 && pos / WN_PAGE_KEYS >= WN(pages_of)(&w, i) - w.dense)) {
			for (int64_t h = 0; h < w.heads; h++) wn_plan_rows(t, i * t->groups + h * share, share, 0, 0);
			continue;
		}
		w.list[n++] = (int32_t)i;
		w.most = wn_max(w.most, pos / WN_PAGE_KEYS + 1);
	}
	w.most = (w.most + 15) / 16 * 16;
	w.work = wn_scratch(ctx, wn_threads(ctx) * 3 * w.most * sizeof(float));
	if (w.work) wn_parallel(ctx, n * w.heads, WN(pages_item), &w);
}
