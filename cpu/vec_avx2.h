// The vectors of vec.h, each two registers of 256 bits.

typedef struct v16f { __m256 a, b; } v16f;
typedef struct v16i { __m256i a, b; } v16i;

#define WN_BOTH(type, op) ((type){op(x.a), op(x.b)})
#define WN_BOTH2(type, op) ((type){op(x.a, y.a), op(x.b, y.b)})

WN_INLINE v16f v_zero(void) { return (v16f){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
WN_INLINE v16f v_set(float x) { return (v16f){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
WN_INLINE v16f v_load(const float *p) { return (v16f){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
WN_INLINE void v_store(float *p, v16f x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
WN_INLINE v16f v_load_n(const float *p, int64_t n) {
	if (n >= 16) return v_load(p);
	__m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	v16f x = v_zero();
	x.a = _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane));
	if (n > 8) x.b = _mm256_maskload_ps(p + 8, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n - 8), lane));
	return x;
}
WN_INLINE void v_store_n(float *p, v16f x, int64_t n) {
	if (n >= 16) {
		v_store(p, x);
		return;
	}
	__m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	_mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane), x.a);
	if (n > 8) _mm256_maskstore_ps(p + 8, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n - 8), lane), x.b);
}
WN_INLINE v16f v_add(v16f x, v16f y) { return WN_BOTH2(v16f, _mm256_add_ps); }
WN_INLINE v16f v_sub(v16f x, v16f y) { return WN_BOTH2(v16f, _mm256_sub_ps); }
WN_INLINE v16f v_mul(v16f x, v16f y) { return WN_BOTH2(v16f, _mm256_mul_ps); }
WN_INLINE v16f v_div(v16f x, v16f y) { return WN_BOTH2(v16f, _mm256_div_ps); }
WN_INLINE v16f v_fma(v16f x, v16f y, v16f z) { return (v16f){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
WN_INLINE v16f v_fnma(v16f x, v16f y, v16f z) { return (v16f){_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)}; }
WN_INLINE v16f v_max(v16f x, v16f y) { return WN_BOTH2(v16f, _mm256_max_ps); }
WN_INLINE v16f v_min(v16f x, v16f y) { return WN_BOTH2(v16f, _mm256_min_ps); }
WN_INLINE v16f v_abs(v16f x) {
	__m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
	return (v16f){_mm256_and_ps(x.a, m), _mm256_and_ps(x.b, m)};
}
WN_INLINE v16f v_round(v16f x) { return (v16f){_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8)}; }
WN_INLINE v16f v_floats(v16i x) { return WN_BOTH(v16f, _mm256_cvtepi32_ps); }
WN_INLINE v16i v_ints(v16f x) { return WN_BOTH(v16i, _mm256_cvtps_epi32); }
WN_INLINE v16f v_scale2(v16f x, v16f n) {
	v16i e = v_ints(n);
	return (v16f){_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.a), _mm256_slli_epi32(e.a, 23))),
		_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.b), _mm256_slli_epi32(e.b, 23)))};
}
WN_INLINE v16f v_load_f16(const void *p) {
	return (v16f){_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1))};
}
WN_INLINE void v_store_f16(void *p, v16f x) {
	_mm_storeu_si128(p, _mm256_cvtps_ph(x.a, 0)), _mm_storeu_si128((__m128i *)p + 1, _mm256_cvtps_ph(x.b, 0));
}
WN_INLINE float v_one_f16(const void *p) {
	uint16_t h;
	memcpy(&h, p, 2);
	return _cvtsh_ss(h);
}
WN_INLINE v16f v_load_bf16(const void *p) {
	__m256i h = _mm256_loadu_si256(p);
	__m256i a = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(h)), b = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(h, 1));
	return (v16f){_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}
WN_INLINE v16i v_int_u8(const void *p) {
	__m128i c = _mm_loadu_si128(p);
	return (v16i){_mm256_cvtepu8_epi32(c), _mm256_cvtepu8_epi32(_mm_srli_si128(c, 8))};
}
WN_INLINE v16i v_int_i8(const void *p) {
	__m128i c = _mm_loadu_si128(p);
	return (v16i){_mm256_cvtepi8_epi32(c), _mm256_cvtepi8_epi32(_mm_srli_si128(c, 8))};
}
WN_INLINE v16f v_load_u8(const void *p) { return v_floats(v_int_u8(p)); }
WN_INLINE v16f v_load_i8(const void *p) { return v_floats(v_int_i8(p)); }
WN_INLINE v16f v_load_kept(const void *p, unsigned mask) {
	uint16_t from[16], t[16] = {0};
	memcpy(from, p, sizeof from);
	for (const uint16_t *x = from; mask; mask &= mask - 1) t[__builtin_ctz(mask)] = *x++;
	return v_load_f16(t);
}
WN_INLINE v16f v_load_i4(const void *p, int n) {
	__m128i c = _mm_and_si128(_mm_srl_epi16(_mm_loadu_si128(p), _mm_cvtsi32_si128(n)), _mm_set1_epi8(15));
	c = _mm_sub_epi8(c, _mm_set1_epi8(8));
	return v_floats((v16i){_mm256_cvtepi8_epi32(c), _mm256_cvtepi8_epi32(_mm_srli_si128(c, 8))});
}
WN_INLINE v16f v_even_bf16(v16i x) {
	return (v16f){_mm256_castsi256_ps(_mm256_slli_epi32(x.a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(x.b, 16))};
}
WN_INLINE v16f v_odd_bf16(v16i x) {
	__m256i m = _mm256_set1_epi32((int)0xffff0000);
	return (v16f){_mm256_castsi256_ps(_mm256_and_si256(x.a, m)), _mm256_castsi256_ps(_mm256_and_si256(x.b, m))};
}
WN_INLINE v16i v_int_zero(void) { return (v16i){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
WN_INLINE v16i v_int_set(int32_t x) { return (v16i){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
WN_INLINE v16i v_int_load(const void *p) {
	return (v16i){_mm256_loadu_si256(p), _mm256_loadu_si256((const __m256i *)p + 1)};
}
WN_INLINE v16i v_int_add(v16i x, v16i y) { return WN_BOTH2(v16i, _mm256_add_epi32); }
WN_INLINE v16i v_int_sub(v16i x, v16i y) { return WN_BOTH2(v16i, _mm256_sub_epi32); }
WN_INLINE v16i v_int_mul(v16i x, v16i y) { return WN_BOTH2(v16i, _mm256_mullo_epi32); }
WN_INLINE v16i v_int_or(v16i x, v16i y) { return WN_BOTH2(v16i, _mm256_or_si256); }
WN_INLINE v16i v_bits(v16i x, const int n, const uint8_t mask) {
	__m256i m = _mm256_set1_epi8((char)mask);
	if (n > 0) x = (v16i){_mm256_slli_epi16(x.a, n), _mm256_slli_epi16(x.b, n)};
	if (n < 0) x = (v16i){_mm256_srli_epi16(x.a, -n), _mm256_srli_epi16(x.b, -n)};
	return (v16i){_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m)};
}
WN_INLINE v16i v_lookup(const uint8_t *table, v16i x) {
	__m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
	return (v16i){_mm256_shuffle_epi8(t, x.a), _mm256_shuffle_epi8(t, x.b)};
}
WN_INLINE v16i v_codes4(v16i x, const int n) {
	__m256i m = _mm256_set1_epi16(0x000f);
	return (v16i){_mm256_and_si256(_mm256_srli_epi16(x.a, n), m), _mm256_and_si256(_mm256_srli_epi16(x.b, n), m)};
}
WN_INLINE v16i v_codes8(v16i x, const int n) {
	__m256i m = _mm256_set1_epi16(0x00ff);
	return (v16i){_mm256_and_si256(_mm256_srli_epi16(x.a, n), m), _mm256_and_si256(_mm256_srli_epi16(x.b, n), m)};
}
WN_INLINE v16i v_words_of(v16i x) {
	__m256i low = _mm256_set1_epi32(0xffff);
	x = (v16i){_mm256_and_si256(x.a, low), _mm256_and_si256(x.b, low)};
	return (v16i){_mm256_or_si256(x.a, _mm256_slli_epi32(x.a, 16)), _mm256_or_si256(x.b, _mm256_slli_epi32(x.b, 16))};
}
WN_INLINE v16i v_words_sub(v16i x, v16i y) { return WN_BOTH2(v16i, _mm256_sub_epi16); }
WN_INLINE v16i v_words_mul(v16i x, v16i y) { return WN_BOTH2(v16i, _mm256_mullo_epi16); }
WN_INLINE v16i v_dot(v16i acc, v16i x, v16i y) {
	acc = (v16i){_mm256_add_epi32(acc.a, _mm256_madd_epi16(x.a, y.a)), _mm256_add_epi32(acc.b, _mm256_madd_epi16(x.b, y.b))};
	__asm__("" : "+x"(acc.a), "+x"(acc.b)); // has gcc add here, not put it off and spill the terms
	return acc;
}
WN_INLINE void v_store_i16(int16_t *p, v16i x) {
	__m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
	_mm256_storeu_si256((__m256i *)p, _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(w, 0xd8), 0xd8));
}

#undef WN_BOTH
#undef WN_BOTH2
