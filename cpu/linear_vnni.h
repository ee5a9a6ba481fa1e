// Inputs as two bytes each, x = 256 * high + low with high signed and low not, which meet codes four products a lane. Codes are the
// unsigned side beside high and the signed one beside low: for codes up to 255 that is the code less 128, and begin makes up for it.

// take stores a block of rounded inputs, and sums each half.
WN_INLINE void WN(take)(wn_q16 *x, v16i first, v16i second, int32_t *sum) {
	v16i half[2] = {first, second};
	for (int h = 0; h < 2; h++) {
		v16i high = _mm512_srai_epi32(half[h], 8);
		_mm_storeu_si128((__m128i *)(x->high + 16 * h), _mm512_cvtepi32_epi8(high));
		_mm_storeu_si128((__m128i *)(x->low + 16 * h), _mm512_cvtepi32_epi8(half[h]));
		sum[h] = _mm512_reduce_add_epi32(half[h]);
		x->lift[h] = 128 * 256 * _mm512_reduce_add_epi32(high);
	}
}

// four is four neighbouring bytes in every lane.
WN_INLINE v16i WN(four)(const void *bytes) {
	int32_t w;
	memcpy(&w, bytes, 4);
	return v_int_set(w);
}

// nibbles multiplies 32 columns of 4-bit codes with R rows of x.
WN_INLINE void WN(nibbles)(const int R, const uint8_t *lines, const wn_q16 *const *x, int64_t b, v16i *sum) {
	const v16i mask = v_int_set(0x0f0f0f0f);
	v16i high[8], low[8];
	for (int r = 0; r < R; r++) high[r] = low[r] = v_int_zero();
#pragma GCC unroll 4
	for (int i = 0; i < 4; i++) {
		v16i line = v_int_load(lines + 64 * i);
#pragma GCC unroll 2
		for (int half = 0; half < 2; half++) {
			v16i codes = _mm512_and_si512(half ? _mm512_srli_epi16(line, 4) : line, mask);
#pragma GCC unroll 8
			for (int r = 0; r < R; r++) {
				high[r] = _mm512_dpbusd_epi32(high[r], codes, WN(four)(x[r][b].high + 8 * i + 4 * half));
				low[r] = _mm512_dpbusd_epi32(low[r], WN(four)(x[r][b].low + 8 * i + 4 * half), codes);
			}
		}
	}
	for (int r = 0; r < R; r++) sum[r] = _mm512_add_epi32(_mm512_slli_epi32(high[r], 8), low[r]);
}

// codes multiplies count lines of 8-bit codes with R rows of x from column first of the block.
WN_INLINE void WN(codes)(const int kind, const int R, const int count, const uint8_t *lines, const wn_q16 *const *x, int64_t b, const int first,
	v16i *sum) {
	const int wide = kind == WN_Q8_0; // codes above 127
	v16i high[8], low[8];
	for (int r = 0; r < R; r++) {
		high[r] = v_int_zero();
		low[r] = wide ? v_int_set(x[r][b].by128 - x[r][b].lift[0] - x[r][b].lift[1]) : v_int_zero();
	}
#pragma GCC unroll 8
	for (int i = 0; i < count; i++) {
		v16i line = v_int_load(lines + 64 * i), less = wide ? _mm512_xor_si512(line, v_int_set((int)0x80808080)) : line;
#pragma GCC unroll 8
		for (int r = 0; r < R; r++) {
			high[r] = _mm512_dpbusd_epi32(high[r], line, WN(four)(x[r][b].high + first + 4 * i));
			low[r] = _mm512_dpbusd_epi32(low[r], WN(four)(x[r][b].low + first + 4 * i), less);
		}
	}
	for (int r = 0; r < R; r++) sum[r] = _mm512_add_epi32(_mm512_slli_epi32(high[r], 8), low[r]);
}
