// What the last queries of a group look at: sums of their attention by key and by distance. Included by the kernels of selectors, once for
// each variant. What is computed of a group depends on its own queries and keys alone.

#include "groups.h"
#include "keys.h"

// A thread's room, for the longest group.
typedef struct WN(sight) {
	float *columns, *diagonals; // of a group's keys: by key; by distance, the largest first
	float *scores; // WN_STRIP x longest
	float *q; // dim x WN_STRIP
	float *room; // longest, for sorting
	int32_t *picked; // longest
} WN(sight);

WN_INLINE int64_t WN(sight_floats)(const wn_groups *s) { return (WN_STRIP + 4) * (s->longest + 16) + WN_STRIP * s->s.dim; }

static WN(sight) WN(sight_of)(const wn_groups *s, int worker) {
	float *f = s->work + worker * s->work_floats;
	int64_t n = s->longest + 16;
	return (WN(sight)){.columns = f, .diagonals = f + n, .room = f + 2 * n, .picked = (int32_t *)(f + 3 * n), .scores = f + 4 * n,
		.q = f + 4 * n + WN_STRIP * n};
}

WN_INLINE v16f WN(key16)(const uint8_t *p, int f16) { return f16 ? v_load_f16(p) : v_load((const float *)p); }

// score_tile writes the scores of a strip's queries with the 64 keys of a tile, four queries at a time. Meanwhile the next tile arrives.
WN_INLINE void WN(score_tile)(const wn_groups *s, const WN(sight) *e, const uint8_t *k, const uint8_t *next, float *to, int f16) {
	enum { WIDE = WN_SUMS / 4 };
	int bytes = f16 ? 2 : 4;
	for (int i = 0; i < WN_STRIP; i += 4) {
		for (int at = 0; at < WN_PAGE_KEYS; at += 16 * WIDE) {
			v16f sum[4][WIDE];
			for (int j = 0; j < 4; j++)
				for (int w = 0; w < WIDE; w++) sum[j][w] = v_zero();
			for (int64_t d = 0; d < s->s.dim; d++) {
				v16f key[WIDE];
				if (i == 0) __builtin_prefetch(next + (at * s->s.dim + d * 16 * WIDE) * bytes);
				for (int w = 0; w < WIDE; w++) key[w] = WN(key16)(k + ((at + 16 * w) * s->s.dim + d * 16) * bytes, f16);
				for (int j = 0; j < 4; j++) {
					v16f x = v_set(e->q[d * WN_STRIP + i + j]);
					for (int w = 0; w < WIDE; w++) sum[j][w] = v_fma(x, key[w], sum[j][w]);
				}
			}
			for (int j = 0; j < 4; j++)
				for (int w = 0; w < WIDE; w++)
					v_store(to + (i + j) * (s->longest + 16) + at + 16 * w, v_mul(sum[j][w], v_set(s->s.scale)));
		}
	}
}

// soften turns n scores into exponentials, of which it returns the sum. What follows up to a multiple of 16 becomes 0.
static float WN(soften)(float *score, int64_t n) {
	for (int64_t k = n; k % 16; k++) score[k] = -INFINITY;
	v16f most = v_set(-INFINITY), sum = v_zero();
	for (int64_t k = 0; k < n; k += 16) most = v_max(v_load(score + k), most);
	v16f top = v_set(v_most(most));
	for (int64_t k = 0; k < n; k += 16) {
		v_store(score + k, v_exp(v_sub(v_load(score + k), top)));
		for (int64_t j = n; j % 16 && k + 16 > n; j++) score[j] = 0;
		sum = v_add(sum, v_load(score + k));
	}
	return v_sum(sum);
}

// looks says which queries of a group are looked at: n of them, a multiple of WN_STRIP, which lie apart by step and end with the last one.
typedef struct WN(looks) {
	int64_t n, step;
} WN(looks);

// look sums the attention of some queries of a group under a head.
static void WN(look)(const wn_groups *s, const WN(sight) *e, const wn_run_of_tiles *g, int64_t head, WN(looks) at, int worker) {
	int64_t end = wn_end(g), row = s->s.size - 1 - (at.n - 1) * at.step;
	memset(e->columns, 0, (end + 16) * sizeof(float));
	memset(e->diagonals, 0, (end + 16) * sizeof(float));
	for (; row < s->s.size; row += WN_STRIP * at.step) {
		for (int64_t i = 0; i < WN_STRIP; i++)
			for (int64_t d = 0; d < s->s.dim; d++) e->q[d * WN_STRIP + i] = s->s.q[((g->row + row + i * at.step) * s->s.heads + head) * s->s.dim + d];
		for (int64_t page = 0; page * WN_PAGE_KEYS <= g->pos + row + (WN_STRIP - 1) * at.step; page++) {
			int64_t kv = head * s->s.kv / s->s.heads;
			const uint8_t *k = wn_keys(&s->s, g->seq, page, kv), *next = wn_keys(&s->s, g->seq, wn_min(page + 1, end / WN_PAGE_KEYS - 1), kv);
			k = WN(plain_keys)(k, s->s.kind, s->s.dim, s->plain, worker);
			if (s->s.f16) {
				WN(score_tile)(s, e, k, next, e->scores + page * WN_PAGE_KEYS, 1);
			} else {
				WN(score_tile)(s, e, k, next, e->scores + page * WN_PAGE_KEYS, 0);
			}
		}
		for (int64_t i = 0; i < WN_STRIP; i++) {
			float *score = e->scores + i * (s->longest + 16);
			int64_t seen = g->pos + row + i * at.step + 1;
			float *diagonal = e->diagonals + end - seen;
			v16f share = v_set(1 / WN(soften)(score, seen));
			for (int64_t k = 0; k < seen; k += 16) {
				v16f p = v_load(score + k);
				v_store(e->columns + k, v_fma(p, share, v_load(e->columns + k)));
				v_store(diagonal + k, v_fma(p, share, v_load(diagonal + k)));
			}
		}
	}
}

// sights gives every thread its room. Says whether there are groups to plan.
static int WN(sights)(wn_ctx *ctx, wn_groups *s, int64_t more) {
	if (!s->count) return 0;
	s->work_floats = (WN(sight_floats)(s) + more + 15) / 16 * 16;
	s->work = wn_scratch(ctx, wn_threads(ctx) * s->work_floats * sizeof(float));
	return s->work && wn_widened(ctx, s->s.kind, s->s.dim, &s->plain);
}
