// Products of an integer format with many rows, by the tile unit of AMX. It multiplies 16 rows of inputs as bytes with 16 rows
// of codes, for each group of columns that has one scale: sums of whole numbers, which come out as those of the vectors do. What follows
// is in floats and in the order of the vectors, so a row gets the same bits either way.
//
// Formats with blocks of 256 columns have a scale for the block and whole numbers by which its groups count, so their sums go on for the block.
//
// Codes of 4 bits fit a byte when they are 16 times as large, so one product of 64 columns, the first half for high bytes and the second
// for low ones, gives a sum as it should be. Codes of 8 bits take two sums, one of which is then shifted.

#include "amx.h"

enum {
	WN(CHUNK) = 32, // blocks of 32 columns whose codes are taken apart at a time: what the first cache holds
	WN(PANEL_BYTES) = 384 << 10, // of rows of inputs in a pass: what the second cache holds beside the weights
};

// panel is a block of 32 columns of 16 rows. Those of 16 rows follow each other, then come those of the next 16 rows.
typedef struct WN(panel) {
	_Alignas(64) int8_t codes[16][2][32]; // high, low
	float d[16], ds[16];
} WN(panel);

// room is what a worker needs: a chunk of a tile of weights, taken apart, and what the rows of a pass have come to.
typedef struct WN(room) {
	_Alignas(64) int8_t codes[WN(CHUNK)][16][64]; // for each 32 columns 8 lines of 16 times the codes of 4 columns, and 8 of the codes
	float scale[WN(CHUNK)][16], least[WN(CHUNK)][16]; // of blocks, and of 32 columns; minimums have the sign with which they are added
	int32_t times[2 * WN(CHUNK)][16]; // of groups of blocks of 256
	int32_t sum[4][16][16]; // of the group at hand and the next
	int32_t whole[16][16]; // of the block of 256 at hand
	float acc[512][16];
	WN(panel) panels[]; // of a pass
} WN(room);

static inline int64_t WN(pass_rows)(int64_t cols) { return wn_min(wn_max(WN(PANEL_BYTES) / (2 * cols) / 16 * 16, 16), 512); }

int64_t WN(wn_room)(int64_t cols) { return (int64_t)(sizeof(WN(room)) + WN(pass_rows)(cols) / 16 * (cols / 32) * sizeof(WN(panel))); }

// bytes_of makes the high and low bytes of 32 words.
WN_INLINE void WN(bytes_of)(const int16_t *q, int8_t (*to)[32]) {
	const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
	__m256i high[2], low[2];
	for (int h = 0; h < 2; h++) {
		__m256i words = _mm256_loadu_si256((const __m256i *)(q + 16 * h));
		high[h] = _mm256_srai_epi16(_mm256_add_epi16(words, _mm256_set1_epi16(8)), 4);
		low[h] = _mm256_sub_epi16(words, _mm256_slli_epi16(high[h], 4));
	}
	__m256i highs = _mm256_permute4x64_epi64(_mm256_packs_epi16(high[0], high[1]), 0xd8);
	__m256i lows = _mm256_permute4x64_epi64(_mm256_packs_epi16(low[0], low[1]), 0xd8);
	_mm256_storeu_si256((__m256i *)to[0], _mm256_shuffle_epi8(highs, order));
	_mm256_storeu_si256((__m256i *)to[1], _mm256_shuffle_epi8(lows, order));
}

// place puts a block of row r of 16, rounded for a span, in its panel.
WN_INLINE void WN(place)(const wn_rounded *x, int64_t span, int64_t r, WN(panel) *to) {
	if (span == 256) {
		WN(bytes_of)(x->q, to->codes[r]);
	} else {
		_mm512_storeu_si512(to->codes[r], v_int_load(x->high));
	}
	to->d[r] = x->d, to->ds[r] = x->ds;
}

// place_rows puts up to 16 rows in panels.
static void WN(place_rows)(const wn_product *p, int64_t first, int64_t rows, WN(panel) *to) {
	for (int64_t b = 0; b < p->w->cols / 32; b++, to++)
		for (int64_t r = 0; r < rows; r++) WN(place)((const wn_rounded *)p->x[first + r] + b, wn_span(p->w->kind), r, to);
}

// by_tiles says whether a product of so many rows is worth the preparations.
static inline int WN(by_tiles)(int64_t kind, int64_t rows) { return wn_rounds(kind) && rows >= 12; }

// tile_lines takes the codes of 32 columns apart, less their offset. Codes that do not fit a byte when they are 16 times as large stand in
// the first lines alone.
WN_INLINE void WN(tile_lines)(const int kind, const uint8_t *from, int8_t lines[16][64]) {
	const v16i offset = v_int_set(wn_offset(kind) * 0x01010101);
#pragma GCC unroll 8
	for (int m = 0; m < 8; m++) {
		v16i codes = WN(line)(kind, from, m);
		if (wn_offset(kind)) codes = _mm512_sub_epi8(codes, offset);
		if (WN(plain)(kind)) {
			_mm512_store_si512(lines[m], wn_offset(kind) ? v_bits(codes, 4, 0xf0) : _mm512_slli_epi16(codes, 4));
			_mm512_store_si512(lines[8 + m], codes);
		} else {
			_mm512_store_si512(lines[m], codes);
		}
	}
}

// take_room fills the room from a chunk of a tile.
WN_INLINE void WN(take_room)(const int kind, const uint8_t *w, int64_t blocks, WN(room) *m) {
	const int64_t cols = wn_block_cols(kind), bytes = 64 * wn_code_bits(kind); // of 32 columns
	const int groups = 32 / wn_group_cols(kind);
	WN(take_scales)(kind, w, blocks, m->scale, m->least);
	for (int64_t b = 0; b < blocks; b += cols / 32, w += wn_block_bytes(kind)) {
		for (int64_t j = 0; j < cols / 32; j++) WN(tile_lines)(kind, w + wn_head_bytes(kind) + bytes * j, m->codes[b + j]);
		for (int64_t g = 0; cols == 256 && g < 8 * groups; g++) _mm512_storeu_si512(m->times[b * groups + g], WN(times)(kind, w, g));
	}
}

// part is a chunk of a tile for up to 16 rows.
typedef struct WN(part) {
	WN(room) *m;
	const WN(panel) *x;
	int64_t blocks;
	const uint8_t *fetch; // what to fetch meanwhile, a share for each 32 columns; NULL = nothing
	int64_t share;
	float (*acc)[16];
	int first; // whether the sums begin here
} WN(part);

// add_group adds group u of columns to the sums of N rows, N being the number of rows or a little more: what is more means nothing.
WN_INLINE void WN(add_group)(const int N, const int kind, const WN(part) *p, int64_t u, const int32_t (*high)[16], const int32_t (*low)[16],
	v16f *acc) {
	const int whole = wn_span(kind) == 256, groups = 256 / wn_group_cols(kind);
	const WN(panel) *x = p->x + u * wn_group_cols(kind) / 32;
	v16f scale = v_load(p->m->scale[whole ? u / groups : u]), least = wn_has_least(kind) ? v_load(p->m->least[u]) : v_zero();
	v16i times = whole ? v_int_load(p->m->times[u]) : v_int_zero();
#pragma GCC unroll 16
	for (int r = 0; r < N; r++) {
		v16i sum = v_int_load(high[r]);
		if (!WN(plain)(kind)) sum = v_int_add(_mm512_slli_epi32(sum, 4), v_int_load(low[r]));
		if (wn_has_least(kind) && whole) acc[r] = v_fma(least, v_set(x->ds[r]), acc[r]);
		if (whole) {
			sum = v_int_mul(sum, times);
			if (u % groups) sum = v_int_add(sum, v_int_load(p->m->whole[r]));
			_mm512_storeu_si512(p->m->whole[r], sum);
		}
		if (!whole || u % groups == groups - 1) acc[r] = v_fma(v_floats(sum), v_mul(scale, v_set(x->d[r])), acc[r]);
		if (wn_has_least(kind) && !whole) acc[r] = v_fma(least, v_set(x->ds[r]), acc[r]);
	}
}

// one begins group u of a format of 4 bits: its sum goes to slot SUM through the registers SUM, ROWS and CODES.
#define WN_ONE(SUM, ROWS, CODES, u) \
	do { \
		wn_tile_zero(SUM); \
		wn_tile_load(ROWS, p->x[u].codes); \
		wn_tile_load(CODES, m->codes[u]); \
		if (kind == WN_Q4_0) wn_tile_dot_ss(SUM, ROWS, CODES); \
		if (kind != WN_Q4_0) wn_tile_dot_su(SUM, ROWS, CODES); \
		wn_tile_store(SUM, m->sum[SUM]); \
	} while (0)

// nibble_chunk adds a chunk of a format of 4 bits. The tile unit is two groups ahead of the vectors.
WN_INLINE void WN(nibble_chunk)(const int N, const int kind, const WN(part) *p, v16f *acc) {
	WN(room) *m = p->m;
	WN_ONE(0, 4, 6, 0);
	if (p->blocks > 1) WN_ONE(1, 5, 7, 1);
	for (int64_t u = 0; u < p->blocks; u += 4) {
		const int64_t left = p->blocks - u;
		if (p->fetch)
			for (int64_t line = 0; line < 4 * p->share; line += 64) __builtin_prefetch(p->fetch + u * p->share + line);
		if (left > 2) WN_ONE(2, 4, 6, u + 2);
		WN(add_group)(N, kind, p, u, m->sum[0], NULL, acc);
		if (left > 3) WN_ONE(3, 5, 7, u + 3);
		if (left > 1) WN(add_group)(N, kind, p, u + 1, m->sum[1], NULL, acc);
		if (left > 4) WN_ONE(0, 4, 6, u + 4);
		if (left > 2) WN(add_group)(N, kind, p, u + 2, m->sum[2], NULL, acc);
		if (left > 5) WN_ONE(1, 5, 7, u + 5);
		if (left > 3) WN(add_group)(N, kind, p, u + 3, m->sum[3], NULL, acc);
	}
}

// two begins group u of a format of 8 bits: the sums with high and with low bytes.
#define WN_TWO(HIGH, LOW, u) \
	do { \
		const int64_t col = (u) * size, b = col / 32, at = col % 32; \
		wn_tile_zero(HIGH); \
		wn_tile_zero(LOW); \
		wn_tile_load(6, m->codes[b][at / 4]); \
		wn_tile_load(4, p->x[b].codes[0][0] + at); \
		wn_tile_dot_ss(HIGH, 4, 6); \
		wn_tile_load(5, p->x[b].codes[0][1] + at); \
		wn_tile_dot_ss(LOW, 5, 6); \
		wn_tile_store(HIGH, m->sum[HIGH]); \
		wn_tile_store(LOW, m->sum[LOW]); \
	} while (0)

// byte_chunk adds a chunk of a format of 8 bits. The tile unit is a group ahead.
WN_INLINE void WN(byte_chunk)(const int N, const int kind, const WN(part) *p, v16f *acc) {
	WN(room) *m = p->m;
	const int64_t size = wn_group_cols(kind), groups = p->blocks * 32 / size;
	WN_TWO(0, 1, (int64_t)0);
	for (int64_t u = 0; u < groups; u += 2) {
		if (p->fetch)
			for (int64_t line = 0; line < 2 * p->share; line += 64) __builtin_prefetch(p->fetch + u * p->share + line);
		if (u + 1 < groups) WN_TWO(2, 3, u + 1);
		WN(add_group)(N, kind, p, u, m->sum[0], m->sum[1], acc);
		if (u + 2 < groups) WN_TWO(0, 1, u + 2);
		if (u + 1 < groups) WN(add_group)(N, kind, p, u + 1, m->sum[2], m->sum[3], acc);
	}
}

WN_INLINE void WN(chunk)(const int N, const int kind, const WN(part) *p) {
	v16f acc[16];
#pragma GCC unroll 16
	for (int r = 0; r < N; r++) acc[r] = p->first ? v_zero() : v_load(p->acc[r]);
	if (WN(plain)(kind)) {
		WN(nibble_chunk)(N, kind, p, acc);
	} else {
		WN(byte_chunk)(N, kind, p, acc);
	}
#pragma GCC unroll 16
	for (int r = 0; r < N; r++) v_store(p->acc[r], acc[r]);
}

// way is how tiles of a kind are multiplied: how they are taken apart, and the chunks for up to 4, 8, 12 and 16 rows.
typedef struct WN(way) {
	void (*apart)(const uint8_t *w, int64_t blocks, WN(room) *m);
	void (*chunk[4])(const WN(part) *p);
} WN(way);

#define WN_CHUNK(KIND, N) \
	static void WN(KIND##x##N)(const WN(part) *p) { WN(chunk)(N, KIND, p); }
#define WN_WAY(KIND) \
	static void WN(KIND##_apart)(const uint8_t *w, int64_t blocks, WN(room) *m) { WN(take_room)(KIND, w, blocks, m); } \
	WN_CHUNK(KIND, 4) WN_CHUNK(KIND, 8) WN_CHUNK(KIND, 12) WN_CHUNK(KIND, 16)
WN_WAY(WN_Q4_0)
WN_WAY(WN_Q4_1)
WN_WAY(WN_Q5_0)
WN_WAY(WN_Q5_1)
WN_WAY(WN_Q8_0)
WN_WAY(WN_IQ4_NL)
WN_WAY(WN_MXFP4)
WN_WAY(WN_Q4_K)
WN_WAY(WN_Q5_K)
WN_WAY(WN_Q6_K)
WN_WAY(WN_IQ4_XS)
#undef WN_CHUNK
#undef WN_WAY

#define WN_WAY(KIND) [KIND] = {WN(KIND##_apart), {WN(KIND##x4), WN(KIND##x8), WN(KIND##x12), WN(KIND##x16)}}
static const WN(way) WN(ways)[WN_KINDS] = {
	WN_WAY(WN_Q4_0), WN_WAY(WN_Q4_1), WN_WAY(WN_Q5_0), WN_WAY(WN_Q5_1), WN_WAY(WN_Q8_0), WN_WAY(WN_IQ4_NL), WN_WAY(WN_MXFP4), WN_WAY(WN_Q4_K),
	WN_WAY(WN_Q5_K), WN_WAY(WN_Q6_K), WN_WAY(WN_IQ4_XS),
};
#undef WN_WAY

// tile multiplies tile t with rows first to last, of which x are the panels.
static void WN(tile)(const wn_product *p, int64_t t, int64_t lo, int64_t hi, int64_t first, int64_t last, const WN(panel) *x, int *shape) {
	const int64_t kind = p->w->kind, blocks = p->w->cols / 32, all = wn_tile_bytes(p->w);
	const int64_t share = all / blocks; // of 32 columns
	const int bytes = WN(plain)((int)kind) ? 64 : wn_group_cols(kind); // of a row of inputs that meet one scale
	const uint8_t *w = p->w->tiles + t * all;
	WN(room) *m = p->room;
	for (int64_t b = 0; b < blocks; b += WN(CHUNK)) {
		WN(part) part = {.m = m, .blocks = wn_min(WN(CHUNK), blocks - b), .first = b == 0, .share = share * wn_group_cols(kind) / 32};
		WN(ways)[kind].apart(w + b * share, part.blocks, m);
		for (int64_t i = first; i < last; i += 16) {
			int rows = (int)wn_min(16, last - i);
			part.x = x + (i - first) / 16 * blocks + b, part.acc = m->acc + (i - first);
			part.fetch = last - i <= 16 && 16 * (t + 1) < hi ? w + all + b * share : NULL;
			if (b + part.blocks == blocks) WN(fetch_outputs)(p, t, 1, i, i + rows);
			if (*shape != rows) wn_tile_configure(rows, bytes), *shape = rows;
			WN(ways)[kind].chunk[(rows - 1) / 4](&part);
		}
	}
	for (int64_t i = first; i < last; i++) WN(put)(p, p->y[i], t, lo, hi, v_load(m->acc[i - first]));
}

// multiply_tiles is wn_multiply for many rows of an integer format.
static void WN(multiply_tiles)(const wn_product *p, int64_t lo, int64_t hi) {
	WN(room) *m = p->room;
	const int64_t blocks = p->w->cols / 32, pass = WN(pass_rows)(p->w->cols);
	int shape = 0;
	for (int64_t first = 0; first < p->rows; first += pass) {
		int64_t last = wn_min(first + pass, p->rows);
		const WN(panel) *x = (const WN(panel) *)p->panels + first / 16 * blocks;
		if (!p->panels) {
			x = m->panels;
			for (int64_t i = first; i < last && !(p->again && p->rows <= pass); i += 16)
				WN(place_rows)(p, i, wn_min(16, last - i), m->panels + (i - first) / 16 * blocks);
		}
		for (int64_t t = lo / 16; t < (hi + 15) / 16; t++) WN(tile)(p, t, lo, hi, first, last, x, &shape);
	}
	wn_tile_release();
}
