// GateKeys: p = cache k, w, norm, keys, tails, frequencies of the model, of the gate, first, tiles in use, policy, pos, seq, pages, pages of the cache that rows are in; d = tiles,
// kv heads, dim, stride of the cache, how it stores numbers, columns of the page table, gate heads, width, 1 where w is BF16, pairs of the model, 1
// where they are halves, pairs of the gate, 1 where they are halves, policy served, late; f = scales of the model, of the gate. First the
// angles are computed: an item is 16 tokens of a page. Then an item is a page and key-value head.
//
// GateQueries: p = q, w, norm, y, frequencies, first, tiles in use, policy, pos; d = tiles, gate heads, values a head, width, 1 where w is
// BF16, pairs, 1 where they are halves, policy served, whole; f = scale. An item is a tile and gate head.

#include "keys.h"

// The gate: a projection, norm and rotation.
typedef struct WN(gate) {
	const uint8_t *w;
	const float *norm, *freq;
	int64_t width, pairs, halves;
	int bf16;
	float scale;
} WN(gate);

// gate_angles writes cosines, then sines, step numbers apart.
WN_INLINE void WN(gate_angles)(const float *freq, int64_t pairs, int64_t pos, float *to, int64_t step) {
	for (int64_t j = 0; j < pairs; j++) {
		double angle = (double)((float)pos * freq[j]);
		to[j * step] = (float)cos(angle), to[(pairs + j) * step] = (float)sin(angle);
	}
}

// gate_columns multiplies x with up to 64 columns of a projection. Sums run over x in order.
WN_INLINE void WN(gate_columns)(const float *x, int64_t n, const WN(gate) *g, const uint8_t *w, int64_t cols, float *y) {
	v16f sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
	if (!g->bf16) {
		for (int64_t i = 0; i < n; i++, w += g->width * 4) {
			for (int k = 0; k < 4; k++)
				if (16 * k < cols) sum[k] = v_fma(v_set(x[i]), v_load_n((const float *)w + 16 * k, cols - 16 * k), sum[k]);
		}
		for (int k = 0; k < 4; k++)
			if (16 * k < cols) v_store_n(y + 16 * k, sum[k], cols - 16 * k);
		return;
	}
	for (int64_t i = 0; i < n; i++, w += g->width * 2) {
		v16f v = v_set(x[i]);
		uint16_t rest[64] = {0};
		const uint8_t *from = w;
		if (cols < 64) memcpy(rest, w, cols * 2), from = (const uint8_t *)rest;
		for (int k = 0; k < 4; k += 2) {
			v16i two = v_int_load(from + 32 * k);
			sum[k] = v_fma(v, v_even_bf16(two), sum[k]), sum[k + 1] = v_fma(v, v_odd_bf16(two), sum[k + 1]);
		}
	}
	float t[64];
	for (int k = 0; k < 4; k++) v_store(t + 16 * k, sum[k]);
	for (int64_t j = 0; j < cols; j++) y[j] = t[j / 32 * 32 + j % 2 * 16 + j % 32 / 2];
}

// gate_project multiplies n values with a projection from a row on.
static void WN(gate_project)(const WN(gate) *g, const float *x, int64_t n, int64_t row, float *y) {
	int64_t bytes = g->bf16 ? 2 : 4;
	for (int64_t c = 0; c < g->width; c += 64)
		WN(gate_columns)(x, n, g, g->w + (row * g->width + c) * bytes, wn_min(g->width - c, 64), y + c);
}

// gate_finish norms and turns by angles: cosines, then sines.
static void WN(gate_finish)(const WN(gate) *g, float *y, const float *angles) {
	if (g->norm) {
		v16f sum = v_zero();
		for (int64_t d = 0; d < g->width; d += 16) {
			v16f x = v_load_n(y + d, g->width - d);
			sum = v_fma(x, x, sum);
		}
		v16f scale = v_set((float)(1 / sqrt((double)v_sum(sum) / (double)g->width + (double)1e-6f)));
		for (int64_t d = 0; d < g->width; d += 16)
			v_store_n(y + d, v_mul(v_mul(v_load_n(y + d, g->width - d), scale), v_load_n(g->norm + d, g->width - d)), g->width - d);
	}
	for (int64_t j = 0; j < g->pairs; j++) {
		int64_t a = g->halves ? j : 2 * j, b = g->halves ? j + g->pairs : 2 * j + 1;
		float u = y[a] * g->scale, v = y[b] * g->scale, c = angles[j], s = angles[g->pairs + j];
		y[a] = u * c - v * s, y[b] = u * s + v * c;
	}
}

// A page whose gate keys are made.
typedef struct WN(gate_page) {
	int64_t tile, page, own, first, count; // own: that of the cache; position of its first token; tokens
} WN(gate_page);

typedef struct WN(gate_keys) {
	WN(gate) gate;
	const uint8_t *k;
	const float *freq;
	uint8_t *keys;
	float *tails, scale;
	int64_t kv, dim, stride, heads, pairs, halves, late;
	int kind; // of the cache
	WN(gate_page) *list;
	float *angles; // of each page: the model's [2*pairs][64], then the gate's
	int64_t angle_floats;
	float *work; // of each worker: keys [dim][64], pools, a result
	int64_t work_floats;
} WN(gate_keys);

static void WN(gate_angle)(void *arg, int64_t item, int worker) {
	const WN(gate_keys) *w = arg;
	const WN(gate_page) *p = &w->list[item / 4];
	float *to = w->angles + item / 4 * w->angle_floats;
	(void)worker;
	for (int64_t i = item % 4 * 16; i < wn_min(item % 4 * 16 + 16, p->count); i++) WN(gate_angles)(w->freq, w->pairs, p->first + i, to + i, 64);
	if (item % 4 == 0) WN(gate_angles)(w->gate.freq, w->gate.pairs, p->first + w->late, to + w->pairs * 128, 1);
}

// gate_unturn copies a tile of keys, each turned back by its position.
static void WN(gate_unturn)(const WN(gate_keys) *w, const WN(gate_page) *p, int64_t kv, const float *angles, float *to) {
	const uint8_t *tile = w->k + wn_stored(w->kind, p->own * w->stride + kv * w->dim * 64);
	for (int64_t i = 0; i < w->dim * 64; i += 16) v_store(to + i, WN(tile16)(tile, w->kind, w->dim, i / 64, i % 64)); // [dim][64]
	v16f scale = v_set(w->scale);
	for (int64_t j = 0; j < w->pairs; j++) {
		float *a = to + 64 * (w->halves ? j : 2 * j), *b = to + 64 * (w->halves ? j + w->pairs : 2 * j + 1);
		const float *cosines = angles + 64 * j, *sines = angles + 64 * (w->pairs + j);
		for (int64_t i = 0; i < p->count; i += 16) {
			v16f u = v_div(v_load(a + i), scale), v = v_div(v_load(b + i), scale), c = v_load(cosines + i), s = v_load(sines + i);
			v_store(a + i, v_add(v_mul(u, c), v_mul(v, s)));
			v_store(b + i, v_sub(v_mul(v, c), v_mul(u, s)));
		}
	}
}

// gate_pool finds the largest, least and mean of count numbers, of which there is room for 64.
WN_INLINE void WN(gate_pool)(float *x, int64_t count, float *most, float *least, float *mean) {
	for (int64_t i = count; i < 64; i++) x[i] = x[0];
	v16f high = v_load(x), low = high, sum = v_zero();
	for (int64_t i = 16; i < 64; i += 16) high = v_max(high, v_load(x + i)), low = v_min(low, v_load(x + i));
	for (int64_t i = count; i < 64; i++) x[i] = 0;
	for (int64_t i = 0; i < 64; i += 16) sum = v_add(sum, v_load(x + i));
	*most = v_most(high), *least = -v_most(v_sub(v_zero(), low)), *mean = v_sum(sum) / (float)count;
}

static void WN(gate_key)(void *arg, int64_t item, int worker) {
	const WN(gate_keys) *w = arg;
	const WN(gate_page) *p = &w->list[item / w->kv];
	int64_t kv = item % w->kv, group = w->heads / w->kv, width = w->gate.width;
	const float *angles = w->angles + item / w->kv * w->angle_floats;
	float *keys = w->work + worker * w->work_floats, *pool = keys + 64 * w->dim, *y = pool + 3 * w->dim;
	WN(gate_unturn)(w, p, kv, angles, keys);
	for (int64_t d = 0; d < w->dim; d++) WN(gate_pool)(keys + 64 * d, p->count, pool + d, pool + w->dim + d, pool + 2 * w->dim + d);
	for (int64_t h = kv * group; h < (kv + 1) * group; h++) {
		WN(gate_project)(&w->gate, pool, 3 * w->dim, h * 3 * w->dim, y);
		WN(gate_finish)(&w->gate, y, angles + w->pairs * 128);
		if (p->count < 64) {
			memcpy(w->tails + (p->tile * w->heads + h) * width, y, width * sizeof *y);
			continue;
		}
		for (int64_t d = 0; d < width; d += 16) {
			uint16_t t[16];
			v_store_f16(t, v_load_n(y + d, width - d));
			memcpy(w->keys + ((p->page * w->heads + h) * width + d) * 2, t, wn_min(width - d, 16) * 2);
		}
	}
}

void WN(wn_gate_keys)(wn_ctx *ctx, const wn_op *op) {
	void *const *p = op->p;
	const int64_t *d = op->d;
	const int32_t *first = p[7], *policy = p[9], *pos = p[10], *seq = p[11], *pages = p[12], *own = p[13];
	WN(gate_keys) w = {.gate = {p[1], p[2], p[6], d[7], d[11], d[12], (int)d[8], op->f[1]}, .k = p[0], .keys = p[3], .tails = p[4], .freq = p[5],
		.kv = d[1], .dim = d[2], .stride = d[3], .kind = (int)d[4], .heads = d[6], .pairs = d[9], .halves = d[10], .late = d[14],
		.scale = op->f[0]};
	int64_t tiles = wn_live(ctx, p[8], d[0]), n = 0;
	w.list = wn_scratch(ctx, tiles * sizeof *w.list);
	if (!w.list) return;
	for (int64_t i = 0; i < tiles; i++) {
		int64_t last = first[i + 1] - 1, at = pos[last];
		if (at % 64 != 63 && (!w.tails || policy[i] != d[13])) continue;
		w.list[n++] = (WN(gate_page)){i, pages[seq[last] * d[5] + at / 64], own[seq[last] * d[5] + at / 64], at / 64 * 64, at % 64 + 1};
	}
	if (n == 0) return;
	w.angle_floats = w.pairs * 128 + (2 * w.gate.pairs + 15) / 16 * 16;
	w.work_floats = 67 * w.dim + w.gate.width + 16;
	w.angles = wn_scratch(ctx, n * w.angle_floats * sizeof(float));
	w.work = wn_scratch(ctx, wn_threads(ctx) * w.work_floats * sizeof(float));
	if (!w.angles || !w.work) return;
	wn_parallel(ctx, 4 * n, WN(gate_angle), &w);
	wn_parallel(ctx, n * w.kv, WN(gate_key), &w);
}

typedef struct WN(gate_queries) {
	WN(gate) gate;
	const float *q;
	float *y;
	const int32_t *first, *pos;
	int64_t heads, each, whole;
	int32_t *list; // tiles served
	float *work; // of each worker: a mean, angles
	int64_t work_floats;
} WN(gate_queries);

static void WN(gate_query)(void *arg, int64_t item, int worker) {
	const WN(gate_queries) *w = arg;
	int64_t tile = w->list[item / w->heads], h = item % w->heads, first = w->first[tile], rows = w->first[tile + 1] - first;
	float *x = w->work + worker * w->work_floats, *angles = x + w->each, *y = w->y + (tile * w->heads + h) * w->gate.width;
	for (int64_t d = 0; d < w->each; d += 16) {
		int64_t n = w->each - d;
		v16f sum = v_zero();
		for (int64_t r = first; r < first + rows; r++) sum = v_add(sum, v_load_n(w->q + (r * w->heads + h) * w->each + d, n));
		v_store_n(x + d, v_div(sum, v_set((float)rows)), n);
	}
	if (w->gate.w) {
		WN(gate_project)(&w->gate, x, w->each, h * w->each, y);
	} else {
		memcpy(y, x, w->each * sizeof *y);
	}
	WN(gate_angles)(w->gate.freq, w->gate.pairs, w->pos[first] / w->whole * w->whole, angles, 1);
	WN(gate_finish)(&w->gate, y, angles);
}

void WN(wn_gate_queries)(wn_ctx *ctx, const wn_op *op) {
	void *const *p = op->p;
	const int64_t *d = op->d;
	const int32_t *policy = p[7];
	WN(gate_queries) w = {.gate = {p[1], p[2], p[4], d[3], d[5], d[6], (int)d[4], op->f[0]}, .q = p[0], .y = p[3], .first = p[5], .pos = p[8],
		.heads = d[1], .each = d[2], .whole = d[8], .work_floats = d[2] + 2 * d[5] + 16};
	int64_t tiles = wn_live(ctx, p[6], d[0]), n = 0;
	w.list = wn_scratch(ctx, tiles * sizeof *w.list);
	w.work = wn_scratch(ctx, wn_threads(ctx) * w.work_floats * sizeof(float));
	if (!w.list || !w.work) return;
	for (int64_t i = 0; i < tiles; i++)
		if (policy[i] == d[7]) w.list[n++] = (int32_t)i;
	wn_parallel(ctx, n * w.heads, WN(gate_query), &w);
}
