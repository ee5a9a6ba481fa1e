// Vectors of 16 lanes, with the same arithmetic in every variant: one 512-bit register, or two of 256 bits. A kernel written with
// them gives the same bits everywhere. Included by variants.h, once for each variant.
//
//	v16f  16 floats
//	v16i  16 int32, or the same 64 bytes as 64 codes of 8 bits: lane r holds bytes 4r to 4r+3

#define v16f WN(v16f)
#define v16i WN(v16i)
#define v_zero WN(v_zero)
#define v_set WN(v_set)
#define v_load WN(v_load)
#define v_store WN(v_store)
#define v_load_n WN(v_load_n)
#define v_store_n WN(v_store_n)
#define v_add WN(v_add)
#define v_sub WN(v_sub)
#define v_mul WN(v_mul)
#define v_div WN(v_div)
#define v_fma WN(v_fma)
#define v_fnma WN(v_fnma)
#define v_max WN(v_max)
#define v_min WN(v_min)
#define v_abs WN(v_abs)
#define v_round WN(v_round)
#define v_scale2 WN(v_scale2)
#define v_sum WN(v_sum)
#define v_most WN(v_most)
#define v_exp WN(v_exp)
#define v_swiglu WN(v_swiglu)
#define v_load_f16 WN(v_load_f16)
#define v_load_u8 WN(v_load_u8)
#define v_load_i8 WN(v_load_i8)
#define v_even_bf16 WN(v_even_bf16)
#define v_odd_bf16 WN(v_odd_bf16)
#define v_floats WN(v_floats)
#define v_ints WN(v_ints)
#define v_int_zero WN(v_int_zero)
#define v_int_set WN(v_int_set)
#define v_int_load WN(v_int_load)
#define v_int_sub WN(v_int_sub)
#define v_int_add WN(v_int_add)
#define v_store_f16 WN(v_store_f16)
#define v_codes4 WN(v_codes4)
#define v_codes8 WN(v_codes8)
#define v_dot WN(v_dot)
#define v_store_i16 WN(v_store_i16)

#if WN_AVX512

typedef __m512 v16f;
typedef __m512i v16i;

WN_INLINE v16f v_zero(void) { return _mm512_setzero_ps(); }
WN_INLINE v16f v_set(float x) { return _mm512_set1_ps(x); }
WN_INLINE v16f v_load(const float *p) { return _mm512_loadu_ps(p); }
WN_INLINE void v_store(float *p, v16f a) { _mm512_storeu_ps(p, a); }
// v_load_n reads the first n floats, 0 <= n <= 16, and no memory beyond; the other lanes are 0. v_store_n writes likewise.
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
WN_INLINE v16f v_fma(v16f a, v16f b, v16f c) { return _mm512_fmadd_ps(a, b, c); } // a*b + c
WN_INLINE v16f v_fnma(v16f a, v16f b, v16f c) { return _mm512_fnmadd_ps(a, b, c); } // c - a*b
WN_INLINE v16f v_max(v16f a, v16f b) { return _mm512_max_ps(a, b); } // b where either is NaN
WN_INLINE v16f v_min(v16f a, v16f b) { return _mm512_min_ps(a, b); } // b where either is NaN
WN_INLINE v16f v_abs(v16f a) {
	return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff)));
}
WN_INLINE v16f v_round(v16f a) { return _mm512_roundscale_ps(a, 8); } // to the nearest whole number, ties to even
WN_INLINE v16f v_floats(v16i a) { return _mm512_cvtepi32_ps(a); }
WN_INLINE v16i v_ints(v16f a) { return _mm512_cvtps_epi32(a); } // nearest, ties to even
// v_scale2 is a * 2^n for whole n with a normal result, a being in [1/2, 2].
WN_INLINE v16f v_scale2(v16f a, v16f n) {
	return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(v_ints(n), 23)));
}
WN_INLINE v16f v_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }
WN_INLINE void v_store_f16(void *p, v16f a) { _mm256_storeu_si256(p, _mm512_cvtps_ph(a, 0)); } // ties to even
WN_INLINE v16f v_load_u8(const void *p) { return v_floats(_mm512_cvtepu8_epi32(_mm_loadu_si128(p))); }
WN_INLINE v16f v_load_i8(const void *p) { return v_floats(_mm512_cvtepi8_epi32(_mm_loadu_si128(p))); }
// v_even_bf16 and v_odd_bf16 are the bfloat16 values in the low and the high half of each lane.
WN_INLINE v16f v_even_bf16(v16i a) { return _mm512_castsi512_ps(_mm512_slli_epi32(a, 16)); }
WN_INLINE v16f v_odd_bf16(v16i a) { return _mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32((int)0xffff0000))); }
WN_INLINE v16i v_int_zero(void) { return _mm512_setzero_si512(); }
WN_INLINE v16i v_int_set(int32_t x) { return _mm512_set1_epi32(x); }
WN_INLINE v16i v_int_load(const void *p) { return _mm512_loadu_si512(p); }
WN_INLINE v16i v_int_add(v16i a, v16i b) { return _mm512_add_epi32(a, b); }
WN_INLINE v16i v_int_sub(v16i a, v16i b) { return _mm512_sub_epi32(a, b); }
// v_codes4 is the code of 4 bits at bit n of each half of a lane, n being 0, 4, 8 or 12; v_codes8 that of 8 bits, n being 0 or 8.
WN_INLINE v16i v_codes4(v16i a, const int n) { return _mm512_and_si512(_mm512_srli_epi32(a, n), _mm512_set1_epi32(0x000f000f)); }
WN_INLINE v16i v_codes8(v16i a, const int n) { return _mm512_and_si512(_mm512_srli_epi32(a, n), _mm512_set1_epi32(0x00ff00ff)); }
// v_dot adds, in each lane, the two products of codes with signed words of 16 bits.
WN_INLINE v16i v_dot(v16i acc, v16i codes, v16i words) { return _mm512_dpwssd_epi32(acc, codes, words); }
// v_store_i16 stores whole numbers of at most 16 bits as words, every four of them in the order 0, 2, 1, 3.
WN_INLINE void v_store_i16(int16_t *p, v16i a) {
	__m256i w = _mm512_cvtepi32_epi16(a);
	_mm256_storeu_si256((__m256i *)p, _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(w, 0xd8), 0xd8));
}

#else // AVX2; the comments above hold

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
WN_INLINE v16f v_load_u8(const void *p) {
	__m128i c = _mm_loadu_si128(p);
	return v_floats((v16i){_mm256_cvtepu8_epi32(c), _mm256_cvtepu8_epi32(_mm_srli_si128(c, 8))});
}
WN_INLINE v16f v_load_i8(const void *p) {
	__m128i c = _mm_loadu_si128(p);
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
WN_INLINE v16i v_codes4(v16i x, const int n) {
	__m256i m = _mm256_set1_epi16(0x000f);
	return (v16i){_mm256_and_si256(_mm256_srli_epi16(x.a, n), m), _mm256_and_si256(_mm256_srli_epi16(x.b, n), m)};
}
WN_INLINE v16i v_codes8(v16i x, const int n) {
	__m256i m = _mm256_set1_epi16(0x00ff);
	return (v16i){_mm256_and_si256(_mm256_srli_epi16(x.a, n), m), _mm256_and_si256(_mm256_srli_epi16(x.b, n), m)};
}
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

#endif

// v_sum adds the 16 lanes in an order that all variants share.
WN_INLINE float v_sum(v16f x) {
	float t[16];
	v_store(t, x);
	for (int w = 8; w; w /= 2)
		for (int i = 0; i < w; i++) t[i] += t[i + w];
	return t[0];
}

// v_most is the largest lane.
WN_INLINE float v_most(v16f x) {
	float t[16];
	v_store(t, x);
	for (int w = 8; w; w /= 2)
		for (int i = 0; i < w; i++) t[i] = t[i] > t[i + w] ? t[i] : t[i + w];
	return t[0];
}

// v_exp is e^x within 2 units in the last place for x in [-87, 88], the value at the nearer bound outside, NaN for NaN: 2^n times a
// polynomial in r = x - n ln 2, |r| <= ln 2 / 2.
WN_INLINE v16f v_exp(v16f x) {
	x = v_min(v_set(88.0f), v_max(v_set(-87.0f), x));
	v16f n = v_round(v_mul(x, v_set(1.44269504f)));
	v16f r = v_fnma(n, v_set(0x1.62e4p-1f), x); // ln 2 in two parts; n times the first is exact
	r = v_fnma(n, v_set(1.42860677e-6f), r);
	v16f p = v_set(1.0f / 5040);
	p = v_fma(p, r, v_set(1.0f / 720));
	p = v_fma(p, r, v_set(1.0f / 120));
	p = v_fma(p, r, v_set(1.0f / 24));
	p = v_fma(p, r, v_set(1.0f / 6));
	p = v_fma(p, r, v_set(0.5f));
	p = v_fma(p, r, v_set(1.0f));
	p = v_fma(p, r, v_set(1.0f));
	return v_scale2(p, n);
}

// v_swiglu is gate * sigmoid(gate) * up.
WN_INLINE v16f v_swiglu(v16f gate, v16f up) {
	return v_mul(v_div(gate, v_add(v_set(1.0f), v_exp(v_sub(v_zero(), gate)))), up);
}
