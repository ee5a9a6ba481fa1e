// Passes of queries over 64 keys or values, and the softmax between them: see attend_kernel.h. A pass reads the cache as it lies, or a
// panel: the same numbers as floats, in strips that stay in the nearest cache while one group of queries after the other goes over them.

enum {
	WN(TOGETHER) = WN_SUMS == 8 ? 8 : 6, // queries that share a pass
	WN(FEW) = 4 * WN(TOGETHER), // queries that are done sooner without a panel
	WN(STRIP) = WN_SUMS == 8 ? 2 : 1, // vectors side by side in a strip of a panel
	WN(COLUMNS) = 16 * WN(STRIP), // floats
};

// The state of one query: a running softmax. The sum has 16 lanes, which are added at the end.
typedef struct WN(query) {
	float *q, *o; // padded floats each: the query, scaled; sum of p times v
	float sum[16];
	float top; // largest score so far
	float shrink; // factor for o and sum that the last segment asked for
	int64_t lo, hi; // its keys in the current segment
	float *p; // 64 scores of the current segment, then their exponentials
	int64_t row, head, bundle;
	int64_t same; // the first of the bundles before whose lists are the same as its own, see wn_same
} WN(query);

// A group is queries that share a pass, TOGETHER of them at most.
typedef WN(query) *const *WN(group);

WN_INLINE v16f WN(number16)(const uint8_t *p, int f16) { return f16 ? v_load_f16(p) : v_load((const float *)p); }

// number_n reads the first n of 16 numbers, and no memory beyond.
WN_INLINE v16f WN(number_n)(const uint8_t *p, int f16, int64_t n) {
	if (n >= 16) return WN(number16)(p, f16);
	if (!f16) return v_load_n((const float *)p, n);
	uint16_t t[16] = {0};
	for (int64_t i = 0; i < n; i++) memcpy(t + i, p + 2 * i, 2);
	return v_load_f16(t);
}

// Columns of a tile in the cache that a pass takes at once, in vectors: as many as keep the multipliers busy and the sums in registers.
#define WN_WIDE(n) ((n) == 1 ? 4 : (n) <= WN_SUMS / 2 ? (WN_SUMS == 8 ? 4 : 2) : WN(STRIP))

// fetch asks for the lines from at to at + bytes, half lines twice. Into the nearest cache if near: what groups go over should stay there.
WN_INLINE void WN(fetch)(const uint8_t *at, int64_t bytes, const int near) {
	for (int64_t b = 0; b < bytes; b += 64) near ? __builtin_prefetch(at + b) : __builtin_prefetch(at + b, 0, 2);
}

// Rows of numbers, step bytes apart, in vectors side by side. Of what lies in the cache, as much as is read is fetched meanwhile: of next[0] what
// part rows read, then of next[1], in each from skip bytes on.
typedef struct WN(strip) {
	const uint8_t *at[4];
	const uint8_t *const *next;
	int64_t step, rows, part, skip;
	const float *scale; // of a packed tile, of the first column: from 32 rows of keys to the next it is a page of columns, from a value to the next
	int64_t blocks; // scales
	int shift; // of values whose codes have 4 bits: the lowest bit of those in the first vector
	float *panel; // where rows that are moved go
} WN(strip);

// What a pass reads: numbers of the cache, packed or not, or a panel, or binary16 numbers of the cache that it moves to a panel. Kinds of the cache come
// first, as they are numbered.
enum { WN(F32), WN(F16), WN(Q8), WN(Q4), WN(PANEL), WN(MOVED), WN(Q8_VALUES), WN(Q4_VALUES) };

// How a pass reads: how many queries, from where, how many vectors side by side.
typedef struct WN(shape) {
	int n, kind, wide;
} WN(shape);

// column16 reads 16 columns of row r of a strip, number w from its first on.
WN_INLINE v16f WN(column16)(const WN(shape) c, const WN(strip) *s, int64_t r, int w) {
	const uint8_t *at = s->at[w] + (c.kind == WN(Q4) ? wn_byte_of(WN_CACHE_Q4_0, r) : r) * s->step;
	if (c.kind == WN(Q8)) return v_mul(v_load_i8(at), v_load(s->scale + r / WN_SHARED * WN_PAGE + 16 * w));
	if (c.kind == WN(Q4)) return v_mul(v_load_i4(at, wn_shift_of(r)), v_load(s->scale + r / WN_SHARED * WN_PAGE + 16 * w));
	if (c.kind == WN(Q8_VALUES)) return v_mul(v_load_i8(at), v_set(s->scale[r * s->blocks + w / 2]));
	if (c.kind == WN(Q4_VALUES)) return v_mul(v_load_i4(at, s->shift + w % 2 * 4), v_set(s->scale[r * s->blocks + w / 2]));
	return WN(number16)(at, c.kind == WN(F16) || c.kind == WN(MOVED));
}

// halves is how many half bytes a number takes, without its scale.
WN_INLINE int WN(halves)(const int kind) {
	switch (kind) {
	case WN(F16): return 4;
	case WN(Q8): case WN(Q8_VALUES): return 2;
	case WN(Q4): case WN(Q4_VALUES): return 1;
	}
	return 8;
}

// product adds, to the sums of n queries, x[i][r] times row r of a strip wide vectors across, row after row.
WN_INLINE void WN(product)(const WN(shape) c, WN(strip) s, const float *const *x, v16f (*sum)[4]) {
	const int bytes = 8 * c.wide * WN(halves)(c.kind), panel = c.kind == WN(PANEL) || c.kind == WN(MOVED);
	for (int64_t r = 0, end; r < s.rows; r = end, s.next += !panel) {
		const uint8_t *next = panel ? s.at[0] : *s.next + s.skip;
		end = wn_min(r + s.part, s.rows);
		for (int64_t j = r; j < end; j++, next += bytes) {
			v16f column[4];
			if (!panel) WN(fetch)(next, bytes, 1);
#pragma GCC unroll 4
			for (int w = 0; w < c.wide; w++) {
				column[w] = WN(column16)(c, &s, j, w);
				if (c.kind == WN(MOVED)) v_store(s.panel + j * WN(COLUMNS) + 16 * w, column[w]);
			}
#pragma GCC unroll 8
			for (int i = 0; i < c.n; i++) {
				v16f factor = v_set(x[i][j]);
#pragma GCC unroll 4
				for (int w = 0; w < c.wide; w++) sum[i][w] = v_fma(factor, column[w], sum[i][w]);
			}
		}
	}
}

// score computes p[i] = q . key i for the keys of a strip, the first of which is number first.
WN_INLINE void WN(score)(const WN(shape) c, WN(group) g, WN(strip) s, int64_t first) {
	v16f sum[8][4];
	const float *x[8];
#pragma GCC unroll 8
	for (int i = 0; i < c.n; i++) {
		x[i] = g[i]->q;
#pragma GCC unroll 4
		for (int w = 0; w < c.wide; w++) sum[i][w] = v_zero();
	}
	WN(product)(c, s, x, sum);
#pragma GCC unroll 8
	for (int i = 0; i < c.n; i++) {
#pragma GCC unroll 4
		for (int w = 0; w < c.wide; w++) v_store(g[i]->p + first + 16 * w, sum[i][w]);
	}
}

// The values that a group takes together: keys from to to, the key of the strip's first row, and the dimension of its first column. Sums shrink
// before their first keys are added: begins says that these are the first of all queries but those whose lo comes before.
typedef struct WN(span) {
	int64_t from, to, base, dim;
	int begins;
} WN(span);

// average adds p[j] times value j to o for the keys of a span, in the dimensions of a strip.
WN_INLINE void WN(average)(const WN(shape) c, WN(group) g, WN(strip) s, WN(span) t) {
	v16f sum[8][4];
	const float *x[8];
#pragma GCC unroll 8
	for (int i = 0; i < c.n; i++) {
		v16f keep = v_set(t.begins && g[i]->lo >= t.from ? g[i]->shrink : 1);
		x[i] = g[i]->p + t.from;
#pragma GCC unroll 4
		for (int w = 0; w < c.wide; w++) sum[i][w] = v_mul(v_load(g[i]->o + t.dim + 16 * w), keep);
	}
	int64_t before = t.from - t.base;
#pragma GCC unroll 4
	for (int w = 0; w < c.wide; w++) s.at[w] += before * s.step;
	s.rows = t.to - t.from;
	if (c.kind == WN(MOVED)) s.panel += before * WN(COLUMNS);
	if (c.kind != WN(PANEL) && c.kind != WN(MOVED)) s.next += before / s.part;
	if (c.kind == WN(Q8_VALUES) || c.kind == WN(Q4_VALUES)) s.scale += before * s.blocks;
	WN(product)(c, s, x, sum);
#pragma GCC unroll 8
	for (int i = 0; i < c.n; i++) {
#pragma GCC unroll 4
		for (int w = 0; w < c.wide; w++) v_store(g[i]->o + t.dim + 16 * w, sum[i][w]);
	}
}

typedef void WN(scorer)(WN(group) g, const WN(strip) *s, int64_t first);
typedef void WN(averager)(WN(group) g, const WN(strip) *s, const WN(span) *t);

// A pass of n queries over what keys and values are.
#define WN_PASS(n, kind, keys, values, wide) \
	static void WN(score_##n##_##kind)(WN(group) g, const WN(strip) *s, int64_t first) { WN(score)((WN(shape)){n, WN(keys), wide}, g, *s, first); } \
	static void WN(average_##n##_##kind)(WN(group) g, const WN(strip) *s, const WN(span) *t) { WN(average)((WN(shape)){n, WN(values), wide}, g, *s, *t); }
#define WN_PASSES(n) \
	WN_PASS(n, f32, F32, F32, WN_WIDE(n)) \
	WN_PASS(n, f16, F16, F16, WN_WIDE(n)) \
	WN_PASS(n, q8, Q8, Q8_VALUES, WN_WIDE(n)) \
	WN_PASS(n, q4, Q4, Q4_VALUES, WN_WIDE(n)) \
	WN_PASS(n, panel, PANEL, PANEL, WN(STRIP))
#if WN_SUMS == 8
#define WN_LAST(name, kind) , WN(name##_7_##kind), WN(name##_8_##kind)
#else
#define WN_LAST(name, kind)
#endif
#define WN_EVERY(name, kind) \
	{WN(name##_1_##kind), WN(name##_2_##kind), WN(name##_3_##kind), WN(name##_4_##kind), WN(name##_5_##kind), \
		WN(name##_6_##kind) WN_LAST(name, kind)}
WN_PASSES(1)
WN_PASSES(2)
WN_PASSES(3)
WN_PASSES(4)
WN_PASSES(5)
WN_PASSES(6)
#if WN_SUMS == 8
WN_PASSES(7)
WN_PASSES(8)
#endif


// Passes of as many queries as go together over what they move to a panel.
static void WN(score_moved)(WN(group) g, const WN(strip) *s, int64_t first) { WN(score)((WN(shape)){WN(TOGETHER), WN(MOVED), WN(STRIP)}, g, *s, first); }
static void WN(average_moved)(WN(group) g, const WN(strip) *s, const WN(span) *t) {
	WN(average)((WN(shape)){WN(TOGETHER), WN(MOVED), WN(STRIP)}, g, *s, *t);
}

// Passes by what they read and the number of queries less one.
static WN(scorer) *const WN(scores)[][WN(TOGETHER)] = {
	WN_EVERY(score, f32), WN_EVERY(score, f16), WN_EVERY(score, q8), WN_EVERY(score, q4), WN_EVERY(score, panel)};
static WN(averager) *const WN(averages)[][WN(TOGETHER)] = {
	WN_EVERY(average, f32), WN_EVERY(average, f16), WN_EVERY(average, q8), WN_EVERY(average, q4), WN_EVERY(average, panel)};
#undef WN_PASS
#undef WN_PASSES
#undef WN_EVERY
#undef WN_LAST

// average_apart is for a group whose queries have different keys: those before the keys of all begin, those after them end.
static void WN(average_apart)(WN(group) g, int64_t n, int kind, const WN(strip) *s, int64_t dim) {
	int64_t from = 0, to = WN_PAGE;
	for (int64_t i = 0; i < n; i++) from = wn_max(from, g[i]->lo), to = wn_min(to, g[i]->hi);
	to = wn_max(from, to);
	for (int64_t i = 0; i < n; i++) {
		WN(span) own = {g[i]->lo, wn_min(from, g[i]->hi), 0, dim, 1};
		if (own.from < from) WN(averages)[kind][0](g + i, s, &own);
	}
	WN(averages)[kind][n - 1](g, s, &(WN(span)){from, to, 0, dim, 1});
	for (int64_t i = 0; i < n; i++) {
		if (to < g[i]->hi) WN(averages)[kind][0](g + i, s, &(WN(span)){to, g[i]->hi, 0, dim, 0});
	}
}

// cut_off sets scores outside of a query's keys, which may be anything.
WN_INLINE void WN(cut_off)(const WN(query) *s, float to) {
	for (int64_t j = 0; j < s->lo; j++) s->p[j] = to;
	for (int64_t j = s->hi; j < WN_PAGE; j++) s->p[j] = to;
}

// highest is the largest of 64 scores.
WN_INLINE float WN(highest)(const float *p) {
	return v_most(v_max(v_max(v_load(p), v_load(p + 16)), v_max(v_load(p + 32), v_load(p + 48))));
}

// soften turns the scores of a segment's keys into exponentials and updates the running softmax of a group. Scores outside lo to hi
// become 0.
static void WN(soften)(WN(group) g, int64_t n) {
	float below[16] = {0}, shrink[16];
	for (int64_t i = 0; i < n; i++) {
		WN(query) *s = g[i];
		if (s->lo > 0 || s->hi < WN_PAGE) WN(cut_off)(s, -INFINITY);
		float top = WN(highest)(s->p);
		if (top > s->top) below[i] = s->top - top, s->top = top;
	}
	v_store(shrink, v_exp(v_load(below))); // 1 where the top stays
	for (int64_t i = 0; i < n; i++) {
		WN(query) *s = g[i];
		v16f p[4], top = v_set(s->top), sum = v_mul(v_load(s->sum), v_set(shrink[i]));
		for (int w = 0; w < 4; w++) {
			p[w] = v_exp(v_sub(v_load(s->p + 16 * w), top));
			v_store(s->p + 16 * w, p[w]);
		}
		if (s->lo > 0 || s->hi < WN_PAGE) {
			WN(cut_off)(s, 0);
			for (int w = 0; w < 4; w++) p[w] = v_load(s->p + 16 * w);
		}
		s->shrink = shrink[i];
		v_store(s->sum, v_add(sum, v_add(v_add(p[0], p[1]), v_add(p[2], p[3]))));
	}
}
