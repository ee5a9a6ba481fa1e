// Linear: p = x, weights, bias, y, n; d = rows, in, out, kind. Neighbours in the list that read the same x become one parallel
// phase, for which x is rounded once.

// What a pass over many rows may read of x before it moves on to the next tile, so that it stays in the cache.
enum { WN(PASS_BYTES) = 128 << 10 };

// How far ahead weights are fetched that are read once: into the first cache, and FAR bytes before that into the second, which can wait for
// more lines at a time. The hardware's own prefetch leaves a single row waiting.
enum { WN(AHEAD) = 1024, WN(FAR) = 3072 };

#include "linear_codes.h"

// take_off takes the format's offset off sums over 32 columns.
WN_INLINE v16i WN(take_off)(const int kind, v16i sum, const wn_rounded *x) {
	const int offset = wn_offset(kind);
	if (offset == 8) sum = v_int_sub(sum, v_int_set(-x->less8));
	if (offset == 16) sum = v_int_sub(sum, v_int_set(x->by16));
	if (offset == 128) sum = v_int_sub(sum, v_int_set(x->by128));
	return sum;
}

// take_group_off does so for group g of 32 columns.
WN_INLINE v16i WN(take_group_off)(const int kind, v16i sum, const wn_rounded *x, const int g) {
	return kind == WN_Q6_K ? v_int_sub(sum, v_int_set(-16 * x->less2[g])) : WN(take_off)(kind, sum, x);
}

#include WN_INPUTS
#include "linear_floats.h"

// fetch_ahead asks for bytes that come later.
WN_INLINE void WN(fetch_ahead)(const uint8_t *p, int64_t bytes) {
	for (int64_t line = 0; line < bytes; line += 64) {
		__builtin_prefetch(p + line, 0, 3);
		__builtin_prefetch(p + WN(FAR) + line, 0, 2);
	}
}

// block32 adds one block of a format with blocks of 32 columns.
WN_INLINE void WN(block32)(const int kind, const int R, const uint8_t *w, const wn_rounded *const *x, int64_t b, v16f *acc) {
	v16i sum[8];
	WN(sums32)(kind, R, w + wn_head_bytes(kind), x, b, sum);
	v16f scale = kind == WN_MXFP4 ? v_load_bf16(w) : v_load_f16(w);
#pragma GCC unroll 8
	for (int r = 0; r < R; r++) {
		acc[r] = v_fma(v_floats(WN(take_off)(kind, sum[r], x[r] + b)), v_mul(scale, v_set(x[r][b].d)), acc[r]);
		if (wn_has_least(kind)) acc[r] = v_fma(v_load_f16(w + 32), v_set(x[r][b].ds), acc[r]);
	}
}

// block256 adds one block of a format with blocks of 256 columns, of which b is the first 32. The sum of all its codes, times the scales of their
// groups, is a whole number below 2^31, for 256 * 2039 * 32 * 128 is.
WN_INLINE void WN(block256)(const int kind, const int R, const uint8_t *w, const wn_rounded *const *x, int64_t b, int64_t ahead, v16f *acc) {
	const int groups = 32 / wn_group_cols(kind);
	v16f d = v_load_f16(w), dmin = wn_has_least(kind) ? v_load_f16(w + 32) : v_zero();
	v16i whole[8];
	for (int r = 0; r < R; r++) whole[r] = v_int_zero();
	for (int j = 0; j < 8; j++) {
		WN(fetch_ahead)(w + ahead + wn_block_bytes(kind) / 8 * j, wn_block_bytes(kind) / 8);
#pragma GCC unroll 2
		for (int g = 0; g < groups; g++) {
			v16i sum[8], times = WN(times)(kind, w, j * groups + g);
			WN(sum_group)(kind, R, w + wn_head_bytes(kind) + 64 * wn_code_bits(kind) * j, x, b + j, g, sum);
#pragma GCC unroll 8
			for (int r = 0; r < R; r++) whole[r] = v_int_add(whole[r], v_int_mul(WN(take_group_off)(kind, sum[r], x[r] + b + j, g), times));
		}
		if (!wn_has_least(kind)) continue;
		v16f least = WN(least)(w, dmin, j);
#pragma GCC unroll 8
		for (int r = 0; r < R; r++) acc[r] = v_fnma(least, v_set(x[r][b + j].ds), acc[r]);
	}
#pragma GCC unroll 8
	for (int r = 0; r < R; r++) acc[r] = v_fma(v_floats(whole[r]), v_mul(d, v_set(x[r][b].d)), acc[r]);
}

// tile_codes multiplies a tile of an integer format with R rows of x, and fetches what lies ahead bytes behind: where more rows go over the tile
// in turns that is the next tile, for memory would have nothing to do meanwhile.
WN_INLINE void WN(tile_codes)(const int kind, const int R, const wn_product *p, const uint8_t *w, int64_t ahead, int64_t row, v16f *acc) {
	const wn_rounded *x[8];
	for (int r = 0; r < R; r++) x[r] = p->x[row + r], acc[r] = v_zero();
	int64_t cols = wn_block_cols(kind), bytes = wn_block_bytes(kind), blocks = p->w->cols / cols;
	for (int64_t b = 0; b < blocks; b++, w += bytes) {
		if (cols == 256) {
			WN(block256)(kind, R, w, x, 8 * b, ahead, acc);
		} else {
			WN(fetch_ahead)(w + ahead, bytes);
			WN(block32)(kind, R, w, x, b, acc);
		}
	}
}

// put stores the 16 sums of tile t for one row: those from lo to hi.
WN_INLINE void WN(put)(const wn_product *p, float *y, int64_t t, int64_t lo, int64_t hi, v16f sum) {
	int64_t from = wn_max(lo, 16 * t), to = wn_min(hi, 16 * t + 16);
	if (to - from == 16) {
		if (p->bias) sum = v_add(sum, v_load(p->bias + from));
		v_store(y + from - p->base, sum);
		return;
	}
	float lane[16];
	v_store(lane, sum);
	for (int64_t j = from; j < to; j++) y[j - p->base] = lane[j - 16 * t] + (p->bias ? p->bias[j] : 0);
}

// fetch_outputs asks for what put will write in tiles from t on of rows from to to: each row's are far from the others'.
WN_INLINE void WN(fetch_outputs)(const wn_product *p, int64_t t, const int tiles, int64_t from, int64_t to) {
	for (int64_t i = from; i < to; i++)
		for (int j = 0; j < tiles; j++) __builtin_prefetch(p->y[i] + 16 * (t + j) - p->base, 1);
}

// span is what a pass computes: T tiles from t, of the outputs lo to hi.
typedef struct WN(span) {
	int64_t t, lo, hi;
	int64_t ahead; // bytes to the tile to fetch meanwhile; 0 = none
} WN(span);

#define WN_PASS(R, T) \
	static void WN(pass##R##x##T)(const wn_product *p, WN(span) s, int64_t row) { \
		v16f acc[8]; \
		const uint8_t *w = p->w->tiles + s.t * wn_tile_bytes(p->w); \
		switch (p->w->kind) { \
		case WN_F32: WN(tile_float)(WN_F32, R, T, p, w, row, acc); break; \
		case WN_F16: WN(tile_float)(WN_F16, R, T, p, w, row, acc); break; \
		case WN_BF16: WN(tile_float)(WN_BF16, R, T, p, w, row, acc); break; \
		WN_ROUNDED(R, T) \
		default: return; \
		} \
		for (int t = 0; t < T; t++) \
			for (int r = 0; r < R; r++) WN(put)(p, p->y[row + r], s.t + t, s.lo, s.hi, acc[t * R + r]); \
	}
#define WN_CODES(KIND, R) \
	case KIND: WN(tile_codes)(KIND, R, p, w, s.ahead, row, acc); break;
#define WN_ROUNDED(R, T) \
	WN_CODES(WN_Q4_0, R) WN_CODES(WN_Q4_1, R) WN_CODES(WN_Q5_0, R) WN_CODES(WN_Q5_1, R) WN_CODES(WN_Q8_0, R) WN_CODES(WN_IQ4_NL, R) \
	WN_CODES(WN_MXFP4, R) WN_CODES(WN_Q4_K, R) WN_CODES(WN_Q5_K, R) WN_CODES(WN_Q6_K, R) WN_CODES(WN_IQ4_XS, R)
WN_PASS(1, 1)
WN_PASS(2, 1)
#if WN_ROWS < 4
#undef WN_ROUNDED
#define WN_ROUNDED(R, T)
#endif
WN_PASS(4, 1)
#undef WN_ROUNDED
#define WN_ROUNDED(R, T)
#if WN_ROWS >= 8
WN_PASS(8, 1)
#endif
WN_PASS(1, 4)
#undef WN_ROUNDED
#undef WN_CODES
#undef WN_PASS

// single multiplies with a matrix of one row, which is not in tiles.
static void WN(single)(const wn_product *p) {
	const float *w = (const float *)p->w->tiles;
	for (int64_t i = 0; i < p->rows; i++) {
		const float *x = p->x[i];
		v16f sum = v_zero();
		for (int64_t k = 0; k < p->w->cols; k += 16) {
			int64_t n = p->w->cols - k;
			sum = v_fma(v_load_n(w + k, n), v_load_n(x + k, n), sum);
		}
		*p->y[i] = v_sum(sum) + (p->bias ? *p->bias : 0);
	}
}

// round_block rounds 32 floats of a span whose largest size is given.
WN_INLINE void WN(round_block)(const float *x, int64_t span, float most, wn_rounded *out) {
	float inverse = most > 1e-30f ? WN_MOST / most : 0;
	int32_t sum[2];
	WN(take)(out, span, v_ints(v_mul(v_load(x), v_set(inverse))), v_ints(v_mul(v_load(x + 16), v_set(inverse))), sum);
	out->d = inverse > 0 ? most / WN_MOST : 0;
	out->ds = out->d * (float)(sum[0] + sum[1]);
	out->less8 = -8 * (sum[0] + sum[1]), out->by16 = -2 * out->less8, out->by128 = 8 * out->by16;
	out->less2[0] = -2 * sum[0], out->less2[1] = -2 * sum[1];
}

void WN(wn_round)(const float *x, int64_t count, int64_t span, wn_rounded *out) {
	for (int64_t at = 0; at < count; at += span) {
		v16f most = v_zero();
		for (int64_t i = at; i < at + span; i += 16) most = v_max(most, v_abs(v_load(x + i)));
		for (int64_t i = at; i < at + span; i += 32) WN(round_block)(x + i, span, v_most(most), out + i / 32);
	}
}

int64_t WN(wn_rate)(int64_t kind, int64_t rows) {
	if (!wn_rounds(kind)) return 25;
	return WN_TILES && rows >= 16 ? 200 : 100;
}

#ifdef WN_MANY
#include "linear_many.h"
#endif

#if WN_TILES
#include "linear_amx.h"
#else
int64_t WN(wn_room)(int64_t cols) { return 0 * cols; }
#endif

void WN(wn_multiply)(const wn_product *p, int64_t lo, int64_t hi) {
	if (p->w->kind == WN_ROW) {
		WN(single)(p);
		return;
	}
#if WN_TILES
	if (p->panels || WN(by_tiles)(p->w->kind, p->rows)) {
		WN(multiply_tiles)(p, lo, hi);
		return;
	}
#endif
	int64_t end = (hi + 15) / 16, rounds = wn_rounds(p->w->kind);
#ifdef WN_MANY
	if (rounds && p->rows >= WN_MANY) {
		WN(multiply_many)(p, lo, hi);
		return;
	}
#endif
	int64_t row_bytes = rounds ? p->w->cols * 2 : p->w->cols * 4;
	int64_t pass = wn_max(WN(PASS_BYTES) / row_bytes / 8 * 8, 8);
	for (int64_t first = 0; first < p->rows; first += pass) {
		int64_t last = wn_min(first + pass, p->rows);
		for (int64_t t = lo / 16; t < end;) {
			WN(span) s = {t, lo, hi, 0};
			if (!rounds && last - first == 1 && t + 4 <= end) {
				WN(pass1x4)(p, s, first);
				t += 4;
				continue;
			}
			const int64_t most = rounds ? wn_min(WN_ROWS, 4) : wn_max(WN_ROWS, 4); // rows of a pass
			for (int64_t i = first; i < last;) {
				int64_t n = wn_min(most, last - i);
				n = n >= 8 ? 8 : n >= 4 ? 4 : n >= 2 ? 2 : 1;
				if (i + n == last) s.ahead = i == first ? WN(AHEAD) : wn_tile_bytes(p->w);
				switch (n) {
#if WN_ROWS >= 8
				case 8: WN(pass8x1)(p, s, i); break;
#endif
				case 4: WN(pass4x1)(p, s, i); break;
				case 2: WN(pass2x1)(p, s, i); break;
				default: WN(pass1x1)(p, s, i);
				}
				i += n;
			}
			t++;
		}
	}
}

void WN(wn_multiply_gated)(const wn_gated *g, int64_t lo, int64_t hi) {
	wn_product p = g->gate;
#ifdef WN_MANY
	int tiles = 0;
#if WN_TILES
	tiles = WN(by_tiles)(p.w->kind, p.rows);
#endif
	if (!tiles && wn_rounds(p.w->kind) && p.w->kind == g->up->kind && p.rows >= WN_MANY && lo % 16 == 0 && hi % 16 == 0) {
		WN(gate_many)(g, lo, hi);
		return;
	}
#endif
	WN(wn_multiply)(&p, lo, hi);
	p.again = wn_span(p.w->kind) == wn_span(g->up->kind);
	p.w = g->up, p.x = g->x, p.y = g->through;
	WN(wn_multiply)(&p, lo, hi);
	for (int64_t r = 0; r < p.rows; r++) {
		float *y = g->gate.y[r] - p.base;
		const float *through = p.y[r] - p.base;
		for (int64_t i = lo; i < hi; i += 16) v_store_n(y + i, v_swiglu(v_load_n(y + i, hi - i), v_load_n(through + i, hi - i)), hi - i);
		if (g->rounded) WN(wn_round)(y + lo, hi - lo, g->span, g->rounded[r] + (lo - p.base) / 32);
	}
}

enum { WN(PARTS) = 8, WN(ROUND_BLOCKS) = 256 };

// group is a run of Linear ops over one x, as one work list: part after part, in each the tiles in grains, in each the rows in splits.
typedef struct WN(group) {
	int64_t rows, splits, count; // count of parts
	struct {
		wn_product product;
		wn_weights w;
		int64_t grain, first; // tiles an item; the first item
	} part[WN(PARTS)];
	const float *x; // rows x cols
	int64_t cols;
	wn_rounded *rounded;
	int64_t span, blocks; // of all rows
#if WN_TILES
	WN(panel) *panels; // instead of rounded
#endif
	char *room; // each of room_bytes, a worker
	int64_t room_bytes;
} WN(group);

static void WN(linear_round)(void *arg, int64_t item, int worker) {
	const WN(group) *g = arg;
	(void)worker;
	int64_t lo = item * WN(ROUND_BLOCKS), n = wn_min(g->blocks - lo, WN(ROUND_BLOCKS));
	WN(wn_round)(g->x + 32 * lo, 32 * n, g->span, g->rounded + lo);
}

#if WN_TILES
enum { WN(PANEL_BLOCKS) = 16 };

static void WN(linear_panel)(void *arg, int64_t item, int worker) {
	const WN(group) *g = arg;
	(void)worker;
	const int64_t blocks = g->cols / 32, parts = wn_parts(blocks, WN(PANEL_BLOCKS));
	int64_t row = item / parts * 16, b = item % parts * WN(PANEL_BLOCKS), n = wn_min(WN(PANEL_BLOCKS), blocks - b);
	for (int64_t r = row; r < wn_min(row + 16, g->rows); r++) {
		wn_rounded one[WN(PANEL_BLOCKS)];
		WN(wn_round)(g->x + r * g->cols + 32 * b, 32 * n, g->span, one);
		for (int64_t i = 0; i < n; i++) WN(place)(one + i, g->span, r - row, g->panels + row / 16 * blocks + b + i);
	}
}

// line_up rounds the rows into panels.
static int WN(line_up)(wn_ctx *ctx, WN(group) *g) {
	int64_t high = wn_parts(g->rows, 16);
	g->panels = wn_scratch(ctx, high * (g->cols / 32) * sizeof *g->panels);
	if (g->panels) wn_parallel(ctx, high * wn_parts(g->cols / 32, WN(PANEL_BLOCKS)), WN(linear_panel), g);
	return g->panels != NULL;
}
#endif

// rounds prepares what a product with an integer format reads. 0 when there is no memory.
static int WN(rounds)(wn_ctx *ctx, WN(group) *g, int64_t kind) {
	g->room_bytes = (WN(wn_room)(g->cols) + 63) / 64 * 64, g->room = wn_scratch(ctx, wn_threads(ctx) * g->room_bytes);
	if (!g->room) return 0;
	g->span = wn_span(kind);
#if WN_TILES
	if (WN(by_tiles)(kind, g->rows)) return WN(line_up)(ctx, g);
#endif
	g->blocks = g->rows * (g->cols / 32);
	g->rounded = wn_scratch(ctx, g->blocks * sizeof *g->rounded);
	if (g->rounded) wn_parallel(ctx, wn_parts(g->blocks, WN(ROUND_BLOCKS)), WN(linear_round), g);
	return g->rounded != NULL;
}

static void WN(linear_item)(void *arg, int64_t item, int worker) {
	const WN(group) *g = arg;
	int64_t i = g->count - 1;
	while (item < g->part[i].first) i--;
	item -= g->part[i].first;
	wn_product p = g->part[i].product;
	const int64_t lo = item / g->splits * g->part[i].grain * 16, split = item % g->splits, high = wn_parts(g->rows, 16);
	const int64_t from = split * high / g->splits * 16, to = wn_min((split + 1) * high / g->splits * 16, g->rows);
	p.x += from, p.y += from, p.rows = to - from, p.room = g->room + worker * g->room_bytes;
#if WN_TILES
	if (g->panels) p.panels = g->panels + from / 16 * (g->cols / 32);
#endif
	WN(wn_multiply)(&p, lo, wn_min(lo + 16 * g->part[i].grain, p.w->rows));
}

// joins says whether op next can share a phase with op: the same rows of x, rounded or not.
static int WN(joins)(const wn_op *op, const wn_op *next) {
	return next->run == op->run && next->p[0] == op->p[0] && next->p[4] == op->p[4] && next->d[0] == op->d[0] && next->d[1] == op->d[1] &&
		wn_span(next->d[3]) == wn_span(op->d[3]);
}

void WN(wn_linear)(wn_ctx *ctx, const wn_op *op) {
	WN(group) g = {.rows = wn_live(ctx, op->p[4], op->d[0]), .splits = 1, .count = 1, .x = op->p[0], .cols = op->d[1]};
	int64_t most = wn_min(wn_following(ctx, op) + 1, WN(PARTS)), in = op->d[1], tiles = 0;
	while (g.count < most && WN(joins)(op, op + g.count)) g.count++;
	wn_skip(ctx, g.count - 1);
	if (g.rows == 0) return;
	const void **x = wn_scratch(ctx, g.rows * sizeof *x);
	float **y = wn_scratch(ctx, g.count * g.rows * sizeof *y);
	if (!x || !y) return;
	if (wn_rounds(op->d[3]) && !WN(rounds)(ctx, &g, op->d[3])) return;
	for (int64_t r = 0; r < g.rows; r++) x[r] = g.rounded ? (void *)(g.rounded + r * (in / 32)) : (void *)(g.x + r * in);
	for (int64_t i = 0; i < g.count; i++) tiles += (op[i].d[2] + 15) / 16;
	if (tiles < 4 * wn_threads(ctx) && g.rows >= 32) g.splits = wn_min(g.rows / 16, 4 * wn_threads(ctx) / tiles + 1);
	int64_t items = 0;
	for (int64_t i = 0; i < g.count; i++) {
		const wn_op *o = op + i;
		float **rows = y + i * g.rows;
		for (int64_t r = 0; r < g.rows; r++) rows[r] = (float *)o->p[3] + r * o->d[2];
		g.part[i].w = (wn_weights){o->d[3], o->d[2], in, o->p[1]};
		g.part[i].product = (wn_product){&g.part[i].w, x, rows, g.rows, 0, o->p[2], NULL, NULL, 0};
		g.part[i].grain = wn_grain(&g.part[i].w, WN(wn_rate)(o->d[3], g.rows), g.rows / g.splits, tiles * g.splits, wn_threads(ctx));
		g.part[i].first = items;
		items += ((o->d[2] + 15) / 16 + g.part[i].grain - 1) / g.part[i].grain * g.splits;
	}
	wn_parallel(ctx, items, WN(linear_item), &g);
}
