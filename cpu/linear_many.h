// Products of an integer format with many rows: a chunk of some tiles is taken apart once, into lines as the multiplications read them, and then
// meets all rows, of which a few at a time have their sums in registers. In floats the order is that of fewer rows, so a row gets the same
// bits either way.

enum {
	WN(MANY_BLOCKS) = 8, // blocks of 32 columns whose codes are taken apart at a time, or one of 256: with what the rows have there they fill the first cache
	WN(MANY_ROWS) = 128, // rows of a pass
	WN(MANY_BYTES) = 512 << 10, // of rows of inputs in a pass, which stay in the second cache
};

// apart is a chunk of a tile.
typedef struct WN(apart) {
	_Alignas(64) uint8_t lines[WN(MANY_BLOCKS)][16][64]; // see lines_of and word_lines
	float scale[WN(MANY_BLOCKS)][16], least[WN(MANY_BLOCKS)][16]; // of blocks, and of 32 columns
} WN(apart);

// sums are those of a row with some tiles.
typedef float WN(sums)[WN_MANY_TILES][16];

// take_apart fills a chunk from blocks of a tile.
WN_INLINE void WN(take_apart)(const int kind, const uint8_t *w, int64_t blocks, WN(apart) *to) {
	const int64_t cols = wn_block_cols(kind), bytes = 64 * wn_code_bits(kind); // of 32 columns
	WN(take_scales)(kind, w, blocks, to->scale, to->least);
	if (cols == 32) {
		for (int64_t b = 0; b < blocks; b++, w += wn_block_bytes(kind)) WN(lines_of)(kind, w + wn_head_bytes(kind), to->lines[b]);
		return;
	}
	const int groups = 32 / wn_group_cols(kind);
	for (int64_t j = 0; j < 8; j++) {
		v16i times[2];
#pragma GCC unroll 2
		for (int g = 0; g < groups; g++) times[g] = v_words_of(WN(times)(kind, w, j * groups + g));
		WN(word_lines)(kind, w + wn_head_bytes(kind) + bytes * j, times, to->lines[j]);
	}
}

// add_chunk adds what R rows make of a chunk of WN_MANY_TILES tiles. Block b of x is the chunk's first; sums begin with block 0.
WN_INLINE void WN(add_chunk)(const int R, const int kind, const WN(apart) *m, const wn_rounded *const *rows, int64_t b, int64_t blocks,
	WN(sums) *sums) {
	enum { T = WN_MANY_TILES };
	const wn_rounded *x[WN_MANY];
	v16f acc[T * WN_MANY];
#pragma GCC unroll 8
	for (int r = 0; r < R; r++) {
		x[r] = rows[r];
#pragma GCC unroll 2
		for (int t = 0; t < T; t++) acc[t * R + r] = b > 0 ? v_load(sums[r][t]) : v_zero();
	}
	for (int64_t i = 0; i < blocks; i++) {
		v16i sum[T * WN_MANY];
		WN(sum_lines)(R, kind, m->lines[i], sizeof *m, x, b + i, sum);
#pragma GCC unroll 2
		for (int t = 0; t < T; t++) {
			v16f scale = v_load(m[t].scale[i]), least = wn_has_least(kind) ? v_load(m[t].least[i]) : v_zero();
#pragma GCC unroll 8
			for (int r = 0; r < R; r++) {
				v16f *a = acc + t * R + r;
				*a = v_fma(v_floats(sum[t * R + r]), v_mul(scale, v_set(x[r][b + i].d)), *a);
				if (wn_has_least(kind)) *a = v_fma(least, v_set(x[r][b + i].ds), *a);
			}
		}
	}
#pragma GCC unroll 8
	for (int r = 0; r < R; r++)
#pragma GCC unroll 2
		for (int t = 0; t < T; t++) v_store(sums[r][t], acc[t * R + r]);
}

// add_whole is add_chunk for formats with blocks of 256 columns: a chunk is one of them, over which sums are whole numbers.
WN_INLINE void WN(add_whole)(const int R, const int kind, const WN(apart) *m, const wn_rounded *const *rows, int64_t b, WN(sums) *sums) {
	enum { T = WN_MANY_TILES };
	const int leasts = wn_has_least(kind) ? WN(MANY_BLOCKS) : 0;
	const wn_rounded *x[WN_MANY];
	v16i sum[T * WN_MANY];
#pragma GCC unroll 8
	for (int r = 0; r < R; r++) x[r] = rows[r];
#pragma GCC unroll 16
	for (int i = 0; i < T * R; i++) sum[i] = v_int_zero();
	for (int64_t i = 0; i < WN(MANY_BLOCKS); i++) {
#pragma GCC unroll 16
		for (int l = 0; l < 16; l++) WN(dot_words)(R, m->lines[i][l], sizeof *m, x, b + i, l, sum);
	}
#pragma GCC unroll 2
	for (int t = 0; t < T; t++) {
		v16f acc[WN_MANY], scale = v_load(m[t].scale[0]);
#pragma GCC unroll 8
		for (int r = 0; r < R; r++) acc[r] = b > 0 ? v_load(sums[r][t]) : v_zero();
#pragma GCC unroll 8
		for (int i = 0; i < leasts; i++) {
			v16f least = v_load(m[t].least[i]);
#pragma GCC unroll 8
			for (int r = 0; r < R; r++) acc[r] = v_fma(least, v_set(x[r][b + i].ds), acc[r]);
		}
#pragma GCC unroll 8
		for (int r = 0; r < R; r++) v_store(sums[r][t], v_fma(v_floats(sum[t * R + r]), v_mul(scale, v_set(x[r][b].d)), acc[r]));
	}
}

// manner is how a kind is multiplied: how it is taken apart, and a chunk of it for WN_MANY rows and for half as many.
typedef struct WN(manner) {
	void (*apart)(const uint8_t *w, int64_t blocks, WN(apart) *to);
	void (*chunk[2])(const WN(apart) *m, const wn_rounded *const *rows, int64_t b, int64_t blocks, WN(sums) *sums);
} WN(manner);

#define WN_CHUNK(KIND, N) \
	static void WN(KIND##_by##N)(const WN(apart) *m, const wn_rounded *const *rows, int64_t b, int64_t blocks, WN(sums) *sums) { \
		if (wn_span(KIND) == 256) { \
			WN(add_whole)(WN_MANY / N, KIND, m, rows, b, sums); \
		} else { \
			WN(add_chunk)(WN_MANY / N, KIND, m, rows, b, blocks, sums); \
		} \
	}
#define WN_MANNER(KIND) \
	static void WN(KIND##_lines)(const uint8_t *w, int64_t blocks, WN(apart) *to) { \
		WN(take_apart)(KIND, w, blocks, to); \
	} \
	WN_CHUNK(KIND, 1) WN_CHUNK(KIND, 2)
WN_MANNER(WN_Q4_0)
WN_MANNER(WN_Q4_1)
WN_MANNER(WN_Q5_0)
WN_MANNER(WN_Q5_1)
WN_MANNER(WN_Q8_0)
WN_MANNER(WN_IQ4_NL)
WN_MANNER(WN_MXFP4)
WN_MANNER(WN_Q4_K)
WN_MANNER(WN_Q5_K)
WN_MANNER(WN_Q6_K)
WN_MANNER(WN_IQ4_XS)
#undef WN_CHUNK
#undef WN_MANNER

#define WN_MANNER(KIND) [KIND] = {WN(KIND##_lines), {WN(KIND##_by1), WN(KIND##_by2)}}
static const WN(manner) WN(manners)[WN_KINDS] = {
	WN_MANNER(WN_Q4_0), WN_MANNER(WN_Q4_1), WN_MANNER(WN_Q5_0), WN_MANNER(WN_Q5_1), WN_MANNER(WN_Q8_0), WN_MANNER(WN_IQ4_NL),
	WN_MANNER(WN_MXFP4), WN_MANNER(WN_Q4_K), WN_MANNER(WN_Q5_K), WN_MANNER(WN_Q6_K), WN_MANNER(WN_IQ4_XS),
};
#undef WN_MANNER

// ask_ahead asks for a share of the bytes that are taken apart next, as the rows from i on of those from first to last begin: all at once would wait
// for each other.
WN_INLINE void WN(ask_ahead)(const uint8_t *const *next, int64_t bytes, int64_t i, int64_t first, int64_t last) {
	const int64_t groups = wn_parts(last - first, WN_MANY), share = wn_parts(bytes, 64 * groups) * 64, from = (i - first) / WN_MANY * share;
	for (int64_t t = 0; t < WN_MANY_TILES; t++)
		for (int64_t line = from; line < wn_min(from + share, bytes); line += 64) __builtin_prefetch(next[t] + line, 0, 2);
}

// sum_tiles sums up what rows first to last make of WN_MANY_TILES tiles, which begin at w; what is taken apart next begins after bytes behind. Meanwhile
// it asks for that, and for the outputs of tiles from t on, which are to be written then.
static void WN(sum_tiles)(const wn_product *p, const uint8_t *const *w, int64_t after, int64_t t, int64_t first, int64_t last, WN(sums) *sums) {
	enum { T = WN_MANY_TILES };
	const int64_t blocks = p->w->cols / 32, share = wn_tile_bytes(p->w) / blocks; // of 32 columns
	const WN(manner) *way = &WN(manners)[p->w->kind];
	WN(apart) apart[T];
	for (int64_t b = 0; b < blocks; b += WN(MANY_BLOCKS)) {
		const int64_t n = wn_min(WN(MANY_BLOCKS), blocks - b);
		const uint8_t *next[T];
		for (int64_t j = 0; j < T; j++) {
			way->apart(w[j] + b * share, n, apart + j);
			next[j] = w[j] + (b + n < blocks ? (b + n) * share : after);
		}
		for (int64_t i = first; i < last; i += WN_MANY) {
			const wn_rounded *x[WN_MANY]; // rows past the last one are the last one again
			for (int64_t r = 0; r < WN_MANY; r++) x[r] = p->x[wn_min(i + r, last - 1)];
			WN(ask_ahead)(next, n * share, i, first, last);
			if (b + n == blocks) WN(fetch_outputs)(p, t, T, i, wn_min(i + WN_MANY, last));
			way->chunk[last - i <= WN_MANY / 2](apart, x, b, n, sums + (i - first));
		}
	}
}

// many_tiles multiplies tiles t and next, up to end, with rows first to last.
static void WN(many_tiles)(const wn_product *p, int64_t t, int64_t end, int64_t lo, int64_t hi, int64_t first, int64_t last) {
	enum { T = WN_MANY_TILES };
	const int64_t all = wn_tile_bytes(p->w);
	_Alignas(64) WN(sums) sums[WN(MANY_ROWS)];
	const uint8_t *w[T];
	for (int64_t i = 0; i < T; i++) w[i] = p->w->tiles + wn_min(t + i, end - 1) * all; // a second tile past the end is the last one again
	WN(sum_tiles)(p, w, T * all, t, first, last, sums);
	for (int64_t i = first; i < last; i++)
		for (int64_t j = 0; j < wn_min(T, end - t); j++) WN(put)(p, p->y[i], t + j, lo, hi, v_load(sums[i - first][j]));
}

// many_rows is how many rows go over all tiles before the next ones do.
WN_INLINE int64_t WN(many_rows)(const wn_product *p) {
	const int64_t row_bytes = p->w->cols / 32 * (int64_t)sizeof(wn_rounded);
	return wn_min(wn_max(WN(MANY_BYTES) / row_bytes / WN_MANY * WN_MANY, WN_MANY), WN(MANY_ROWS));
}

// multiply_many is wn_multiply for many rows.
static void WN(multiply_many)(const wn_product *p, int64_t lo, int64_t hi) {
	const int64_t pass = WN(many_rows)(p), end = (hi + 15) / 16;
	for (int64_t first = 0; first < p->rows; first += pass)
		for (int64_t t = lo / 16; t < end; t += WN_MANY_TILES) WN(many_tiles)(p, t, end, lo, hi, first, wn_min(first + pass, p->rows));
}

// gate_tile is multiply_many for tile t of a gate and of what it lets through, from the sums of both to the outputs.
static void WN(gate_tile)(const wn_gated *g, int64_t t, int64_t first, int64_t last) {
	const wn_product *p = &g->gate;
	const int64_t all = wn_tile_bytes(p->w), at = 16 * t - p->base;
	const uint8_t *const w[2] = {p->w->tiles + t * all, g->up->tiles + t * all};
#if WN_MANY_TILES == 2
	_Alignas(64) WN(sums) sums[WN(MANY_ROWS)];
	WN(sum_tiles)(p, w, all, t, first, last, sums);
	for (int64_t i = first; i < last; i++) v_store(p->y[i] + at, v_swiglu(v_load(sums[i - first][0]), v_load(sums[i - first][1])));
#else
	_Alignas(64) WN(sums) gate[WN(MANY_ROWS)], up[WN(MANY_ROWS)];
	WN(sum_tiles)(p, w, all, t, first, last, gate);
	WN(sum_tiles)(p, w + 1, all, t, first, last, up);
	for (int64_t i = first; i < last; i++) v_store(p->y[i] + at, v_swiglu(v_load(gate[i - first][0]), v_load(up[i - first][0])));
#endif
}

// gate_many is wn_multiply_gated for many rows and outputs that fill tiles.
static void WN(gate_many)(const wn_gated *g, int64_t lo, int64_t hi) {
	const wn_product *p = &g->gate;
	const int64_t pass = WN(many_rows)(p);
	for (int64_t first = 0; first < p->rows; first += pass) {
		const int64_t last = wn_min(first + pass, p->rows);
		for (int64_t t = lo / 16; t < hi / 16; t++) {
			WN(gate_tile)(g, t, first, last);
			const int64_t end = 16 * (t + 1), j = end - g->span - p->base;
			if (!g->rounded || (end - lo) % g->span) continue;
			for (int64_t i = first; i < last; i++) WN(wn_round)(p->y[i] + j, g->span, g->span, g->rounded[i] + j / 32);
		}
	}
}
