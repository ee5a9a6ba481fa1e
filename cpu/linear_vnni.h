// Inputs as two signed bytes each, x = 16 * high + low, which meet unsigned codes four products a lane; and as words for formats with blocks of
// 256 columns, whose codes times their scales are words.

#define WN_BYTES
#include "linear_words.h"
#undef WN_BYTES

// take stores a block of rounded inputs, and sums each half.
WN_INLINE void WN(take)(wn_rounded *x, int64_t span, v16i first, v16i second, int32_t *sum) {
	v16i half[2] = {first, second};
	for (int h = 0; h < 2; h++) {
		sum[h] = _mm512_reduce_add_epi32(half[h]);
		if (span == 256) {
			v_store_i16(x->q + 16 * h, half[h]);
			continue;
		}
		v16i high = _mm512_srai_epi32(_mm512_add_epi32(half[h], v_int_set(8)), 4);
		v16i low = _mm512_sub_epi32(half[h], _mm512_slli_epi32(high, 4));
		_mm_storeu_si128((__m128i *)(x->high + 16 * h), _mm512_cvtepi32_epi8(high));
		_mm_storeu_si128((__m128i *)(x->low + 16 * h), _mm512_cvtepi32_epi8(low));
	}
}

// four is four neighbouring bytes in every lane.
WN_INLINE v16i WN(four)(const void *bytes) {
	int32_t w;
	memcpy(&w, bytes, 4);
	return v_int_set(w);
}

// nibbles multiplies 32 columns of 4-bit codes with R rows of x. 16 times a code is a byte still, and joins the sum with the high bytes.
WN_INLINE void WN(nibbles)(const int R, const uint8_t *lines, const wn_rounded *const *x, int64_t b, v16i *sum) {
	const v16i low = v_int_set(0x0f0f0f0f), high = v_int_set((int)0xf0f0f0f0);
	for (int r = 0; r < R; r++) sum[r] = v_int_zero();
#pragma GCC unroll 4
	for (int i = 0; i < 4; i++) {
		v16i line = v_int_load(lines + 64 * i);
#pragma GCC unroll 2
		for (int half = 0; half < 2; half++) {
			v16i codes = _mm512_and_si512(half ? _mm512_srli_epi16(line, 4) : line, low);
			v16i times16 = _mm512_and_si512(half ? line : _mm512_slli_epi16(line, 4), high);
#pragma GCC unroll 8
			for (int r = 0; r < R; r++) sum[r] = _mm512_dpbusd_epi32(sum[r], times16, WN(four)(x[r][b].high + 8 * i + 4 * half));
#pragma GCC unroll 8
			for (int r = 0; r < R; r++) sum[r] = _mm512_dpbusd_epi32(sum[r], codes, WN(four)(x[r][b].low + 8 * i + 4 * half));
		}
	}
}

// codes multiplies 32 columns of other codes with R rows of x.
WN_INLINE void WN(codes)(const int kind, const int R, const uint8_t *lines, const wn_rounded *const *x, int64_t b, v16i *sum) {
	v16i high[8], low[8];
	for (int r = 0; r < R; r++) high[r] = low[r] = v_int_zero();
#pragma GCC unroll 8
	for (int i = 0; i < 8; i++) {
		v16i line = WN(line)(kind, lines, i);
#pragma GCC unroll 8
		for (int r = 0; r < R; r++) {
			high[r] = _mm512_dpbusd_epi32(high[r], line, WN(four)(x[r][b].high + 4 * i));
			low[r] = _mm512_dpbusd_epi32(low[r], line, WN(four)(x[r][b].low + 4 * i));
		}
	}
	for (int r = 0; r < R; r++) sum[r] = _mm512_add_epi32(_mm512_slli_epi32(high[r], 4), low[r]);
}

// sums32 multiplies 32 columns with R rows of x.
WN_INLINE void WN(sums32)(const int kind, const int R, const uint8_t *lines, const wn_rounded *const *x, int64_t b, v16i *sum) {
	if (WN(plain)(kind)) {
		WN(nibbles)(R, lines, x, b, sum);
	} else {
		WN(codes)(kind, R, lines, x, b, sum);
	}
}

// lines_of takes 32 columns apart into lines as sum_lines reads them: of nibbles 8 lines of 16 times the codes of 4 columns and 8 of the codes, of
// others the 8 lines of codes.
WN_INLINE void WN(lines_of)(const int kind, const uint8_t *from, uint8_t (*to)[64]) {
#pragma GCC unroll 8
	for (int m = 0; m < 8; m++) {
		v16i codes = WN(line)(kind, from, m);
		_mm512_store_si512(to[m], codes);
		if (WN(plain)(kind)) _mm512_store_si512(to[8 + m], codes), _mm512_store_si512(to[m], _mm512_slli_epi16(codes, 4));
	}
}

// dot_lines adds the products of a line of each of two tiles, next bytes apart, with four bytes of R rows.
WN_INLINE void WN(dot_lines)(const int R, const uint8_t *line, int64_t next, const wn_rounded *const *x, int64_t b, const int at, v16i *sum) {
	v16i one = v_int_load(line), two = v_int_load(line + next);
#pragma GCC unroll 8
	for (int r = 0; r < R; r++) {
		v16i in = WN(four)(x[r][b].high + at);
		sum[r] = _mm512_dpbusd_epi32(sum[r], one, in), sum[R + r] = _mm512_dpbusd_epi32(sum[R + r], two, in);
	}
}

// sum_lines multiplies 32 columns, of which lines of two tiles are given, with block b of R rows of x, less the format's offset.
WN_INLINE void WN(sum_lines)(const int R, const int kind, const uint8_t (*lines)[64], int64_t next, const wn_rounded *const *x, int64_t b, v16i *sum) {
	enum { LOW = offsetof(wn_rounded, low) - offsetof(wn_rounded, high) };
	// What is to be taken off is so from the start, before sums that are shifted.
	const int start = wn_offset(kind) == (WN(plain)(kind) ? 8 : 128);
#pragma GCC unroll 16
	for (int r = 0; r < 2 * R; r++) sum[r] = start ? v_int_set(x[r % R][b].less8) : v_int_zero();
#pragma GCC unroll 8
	for (int i = 0; i < 8; i++) {
		WN(dot_lines)(R, lines[i], next, x, b, 4 * i, sum);
		if (WN(plain)(kind)) WN(dot_lines)(R, lines[8 + i], next, x, b, LOW + 4 * i, sum);
	}
	if (!WN(plain)(kind)) {
		for (int r = 0; r < 2 * R; r++) sum[r] = _mm512_slli_epi32(sum[r], 4);
#pragma GCC unroll 8
		for (int i = 0; i < 8; i++) WN(dot_lines)(R, lines[i], next, x, b, LOW + 4 * i, sum);
	}
	if (start) return;
#pragma GCC unroll 16
	for (int r = 0; r < 2 * R; r++) sum[r] = WN(take_off)(kind, sum[r], x[r % R] + b);
}
