// Vectors of 16 lanes, with the same arithmetic in every variant, be they one register of 512 bits, two of 256 or four of 128. A
// kernel written with them gives the same bits everywhere. Included by variants.h, once for each variant.
//
//	v16f  16 floats
//	v16i  16 int32, or the same 64 bytes as 64 codes of 8 bits: lane r holds bytes 4r to 4r+3

#define v16f WN(v16f)
#define v16i WN(v16i)
#define v_zero WN(v_zero)
#define v_set WN(v_set)
#define v_load WN(v_load)
#define v_store WN(v_store)
#define v_load_n WN(v_load_n) // the first n floats, 0 <= n <= 16, and no memory beyond; the other lanes are 0
#define v_store_n WN(v_store_n) // likewise
#define v_add WN(v_add)
#define v_sub WN(v_sub)
#define v_mul WN(v_mul)
#define v_div WN(v_div)
#define v_fma WN(v_fma) // a*b + c, rounded once
#define v_fnma WN(v_fnma) // c - a*b, rounded once
#define v_max WN(v_max) // the second where either is NaN
#define v_min WN(v_min) // the second where either is NaN
#define v_abs WN(v_abs)
#define v_round WN(v_round) // to the nearest whole number, ties to even
#define v_scale2 WN(v_scale2) // a * 2^n for whole n with a normal result, a being in [1/2, 2]
#define v_sum WN(v_sum)
#define v_most WN(v_most)
#define v_exp WN(v_exp)
#define v_swiglu WN(v_swiglu)
#define v_load_f16 WN(v_load_f16)
#define v_store_f16 WN(v_store_f16) // ties to even
#define v_one_f16 WN(v_one_f16) // the one binary16 number at p, as a float
#define v_load_kept WN(v_load_kept) // of 16 lanes those of a mask, from binary16 numbers that follow each other; the others are 0. Reads 32 bytes
#define v_load_bf16 WN(v_load_bf16)
#define v_load_u8 WN(v_load_u8)
#define v_load_i8 WN(v_load_i8)
#define v_int_u8 WN(v_int_u8)
#define v_int_i8 WN(v_int_i8)
#define v_load_i4 WN(v_load_i4) // of 16 bytes the 4 bits from bit n on, n being 0 or 4, less 8
#define v_even_bf16 WN(v_even_bf16) // the bfloat16 values in the low half of each lane
#define v_odd_bf16 WN(v_odd_bf16) // in the high half
#define v_floats WN(v_floats)
#define v_ints WN(v_ints) // nearest, ties to even
#define v_int_zero WN(v_int_zero)
#define v_int_set WN(v_int_set)
#define v_int_load WN(v_int_load)
#define v_int_add WN(v_int_add)
#define v_int_sub WN(v_int_sub)
#define v_int_mul WN(v_int_mul)
#define v_int_or WN(v_int_or)
#define v_bits WN(v_bits) // each byte shifted left by n bits, or right by -n, and what the mask, the same for each byte, leaves of it
#define v_lookup WN(v_lookup) // each byte, below 16, replaced by that byte of a table
// Of variants that multiply words of 16 bits, two a lane:
#define v_codes4 WN(v_codes4) // the code of 4 bits at bit n of each half of a lane, n being 0, 4, 8 or 12
#define v_codes8 WN(v_codes8) // that of 8 bits, n being 0 or 8
#define v_dot WN(v_dot) // adds, in each lane, the two products of signed words
#define v_words_of WN(v_words_of) // the low word of each lane, in both its halves: of variants that meet many rows, like the next two
#define v_words_sub WN(v_words_sub)
#define v_words_mul WN(v_words_mul) // the low 16 bits
#define v_store_i16 WN(v_store_i16) // whole numbers of at most 16 bits as words, every four of them in the order 0, 2, 1, 3

#include WN_VECTORS

// v_sum adds the 16 lanes in an order that all variants share: halves, then halves of what that gives. v_most is the largest lane.
#ifdef __x86_64__
#define WN_FOLD(name, eight, four) \
	WN_INLINE float name(v16f x) { \
		float t[16]; \
		v_store(t, x); \
		__m256 a = eight(_mm256_loadu_ps(t), _mm256_loadu_ps(t + 8)); \
		__m128 b = four(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)); \
		b = four(b, _mm_movehl_ps(b, b)); \
		return _mm_cvtss_f32(four(b, _mm_movehdup_ps(b))); \
	}
WN_FOLD(v_sum, _mm256_add_ps, _mm_add_ps)
WN_FOLD(v_most, _mm256_max_ps, _mm_max_ps) // of a and b it takes a where a > b, else b
#else
#define WN_FOLD(name, of) \
	WN_INLINE float name(v16f x) { \
		float t[16]; \
		v_store(t, x); \
		_Pragma("GCC unroll 4") for (int w = 8; w; w /= 2) \
			_Pragma("GCC unroll 8") for (int i = 0; i < w; i++) t[i] = of(t[i], t[i + w]); \
		return t[0]; \
	}
#define WN_PLUS(a, b) ((a) + (b))
#define WN_MORE(a, b) ((a) > (b) ? (a) : (b))
WN_FOLD(v_sum, WN_PLUS)
WN_FOLD(v_most, WN_MORE)
#undef WN_PLUS
#undef WN_MORE
#endif
#undef WN_FOLD

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
