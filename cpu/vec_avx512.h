// The vectors of vec.h, each one register of 512 bits.

typedef __m512 v16f;
typedef __m512i v16i;

WN_INLINE v16f v_zero(void) { return _mm512_setzero_ps(); }
WN_INLINE v16f v_set(float x) { return _mm512_set1_ps(x); }
WN_INLINE v16f v_load(const float *p) { return _mm512_loadu_ps(p); }
WN_INLINE void v_store(float *p, v16f a) { _mm512_storeu_ps(p, a); }
WN_INLINE v16f v_load_n(const float *p, int64_t n) {
	if (n >= 16) return v_load(p);
	return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
WN_INLINE void v_store_n(float *p, v16f a, int64_t n) {
	if (n >= 16) {
		v_store(p, a);
		return;
	}
	_mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}
WN_INLINE v16f v_add(v16f a, v16f b) { return _mm512_add_ps(a, b); }
WN_INLINE v16f v_sub(v16f a, v16f b) { return _mm512_sub_ps(a, b); }
WN_INLINE v16f v_mul(v16f a, v16f b) { return _mm512_mul_ps(a, b); }
WN_INLINE v16f v_div(v16f a, v16f b) { return _mm512_div_ps(a, b); }
WN_INLINE v16f v_fma(v16f a, v16f b, v16f c) { return _mm512_fmadd_ps(a, b, c); }
WN_INLINE v16f v_fnma(v16f a, v16f b, v16f c) { return _mm512_fnmadd_ps(a, b, c); }
WN_INLINE v16f v_max(v16f a, v16f b) { return _mm512_max_ps(a, b); }
WN_INLINE v16f v_min(v16f a, v16f b) { return _mm512_min_ps(a, b); }
WN_INLINE v16f v_abs(v16f a) {
	return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff)));
}
WN_INLINE v16f v_round(v16f a) { return _mm512_roundscale_ps(a, 8); }
WN_INLINE v16f v_floats(v16i a) { return _mm512_cvtepi32_ps(a); }
WN_INLINE v16i v_ints(v16f a) { return _mm512_cvtps_epi32(a); }
WN_INLINE v16f v_scale2(v16f a, v16f n) {
	return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(v_ints(n), 23)));
}
WN_INLINE v16f v_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }
WN_INLINE void v_store_f16(void *p, v16f a) { _mm256_storeu_si256(p, _mm512_cvtps_ph(a, 0)); }
WN_INLINE float v_one_f16(const void *p) {
	uint16_t h;
	memcpy(&h, p, 2);
	return _cvtsh_ss(h);
}
WN_INLINE v16f v_load_bf16(const void *p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16)); }
WN_INLINE v16i v_int_u8(const void *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(p)); }
WN_INLINE v16i v_int_i8(const void *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128(p)); }
WN_INLINE v16f v_load_u8(const void *p) { return v_floats(v_int_u8(p)); }
WN_INLINE v16f v_load_i8(const void *p) { return v_floats(v_int_i8(p)); }
WN_INLINE v16f v_load_kept(const void *p, unsigned mask) { return _mm512_maskz_expand_ps((__mmask16)mask, v_load_f16(p)); }
WN_INLINE v16f v_load_i4(const void *p, int n) {
	const v16f codes = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
	__m128i c = _mm_srl_epi16(_mm_loadu_si128(p), _mm_cvtsi32_si128(n)); // bits above the 4 are passed over
	return _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(c), codes);
}
WN_INLINE v16f v_even_bf16(v16i a) { return _mm512_castsi512_ps(_mm512_slli_epi32(a, 16)); }
WN_INLINE v16f v_odd_bf16(v16i a) { return _mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32((int)0xffff0000))); }
WN_INLINE v16i v_int_zero(void) { return _mm512_setzero_si512(); }
WN_INLINE v16i v_int_set(int32_t x) { return _mm512_set1_epi32(x); }
WN_INLINE v16i v_int_load(const void *p) { return _mm512_loadu_si512(p); }
WN_INLINE v16i v_int_add(v16i a, v16i b) { return _mm512_add_epi32(a, b); }
WN_INLINE v16i v_int_sub(v16i a, v16i b) { return _mm512_sub_epi32(a, b); }
WN_INLINE v16i v_int_mul(v16i a, v16i b) { return _mm512_mullo_epi32(a, b); }
WN_INLINE v16i v_int_or(v16i a, v16i b) { return _mm512_or_si512(a, b); }
WN_INLINE v16i v_bits(v16i a, const int n, const uint8_t mask) {
	if (n > 0) a = _mm512_slli_epi16(a, n);
	if (n < 0) a = _mm512_srli_epi16(a, -n);
	return _mm512_and_si512(a, _mm512_set1_epi32(mask * 0x01010101));
}
WN_INLINE v16i v_lookup(const uint8_t *table, v16i a) {
	return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table)), a);
}
WN_INLINE v16i v_codes4(v16i a, const int n) { return _mm512_and_si512(_mm512_srli_epi16(a, n), _mm512_set1_epi16(0x000f)); }
WN_INLINE v16i v_codes8(v16i a, const int n) { return _mm512_and_si512(_mm512_srli_epi16(a, n), _mm512_set1_epi16(0x00ff)); }
WN_INLINE v16i v_words_of(v16i a) { return _mm512_or_si512(_mm512_slli_epi32(a, 16), _mm512_and_si512(a, v_int_set(0xffff))); }
WN_INLINE v16i v_words_sub(v16i a, v16i b) { return _mm512_sub_epi16(a, b); }
WN_INLINE v16i v_words_mul(v16i a, v16i b) { return _mm512_mullo_epi16(a, b); }
WN_INLINE v16i v_dot(v16i acc, v16i a, v16i b) { return _mm512_dpwssd_epi32(acc, a, b); }
WN_INLINE void v_store_i16(int16_t *p, v16i a) {
	_mm256_storeu_si256((__m256i *)p, _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(_mm512_cvtepi32_epi16(a), 0xd8), 0xd8));
}
