// AVX-512 out of AVX2 instructions, for testing on machines without it: what SIMDe emulates, and here what it lacks.
#ifndef WN_EMULATE_H
#define WN_EMULATE_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

// The halves of a vector.
typedef union wn_halves {
	simde__m512 f;
	simde__m512i i;
	__m256 fs[2];
	__m256i is[2];
	float lane[16];
	int32_t whole[16];
} wn_halves;

static inline simde__m512 wn_cvtepi32_ps(simde__m512i a) {
	wn_halves x = {.i = a};
	return ((wn_halves){.fs = {_mm256_cvtepi32_ps(x.is[0]), _mm256_cvtepi32_ps(x.is[1])}}).f;
}

static inline simde__m512i wn_cvtps_epi32(simde__m512 a) {
	wn_halves x = {.f = a};
	return ((wn_halves){.is = {_mm256_cvtps_epi32(x.fs[0]), _mm256_cvtps_epi32(x.fs[1])}}).i;
}

static inline simde__m512 wn_cvtph_ps(__m256i a) {
	return ((wn_halves){.fs = {_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))}}).f;
}

static inline __m256i wn_cvtps_ph(simde__m512 a) {
	wn_halves x = {.f = a};
	return _mm256_set_m128i(_mm256_cvtps_ph(x.fs[1], 0), _mm256_cvtps_ph(x.fs[0], 0));
}

static inline simde__m512i wn_cvtepu8_epi32(__m128i a) {
	return ((wn_halves){.is = {_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8))}}).i;
}

static inline simde__m512i wn_cvtepi8_epi32(__m128i a) {
	return ((wn_halves){.is = {_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_srli_si128(a, 8))}}).i;
}

static inline simde__m512i wn_cvtepu16_epi32(__m256i a) {
	return ((wn_halves){.is = {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)), _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1))}}).i;
}

static inline simde__m512i wn_srai_epi32(simde__m512i a, int n) {
	wn_halves x = {.i = a};
	return ((wn_halves){.is = {_mm256_srai_epi32(x.is[0], n), _mm256_srai_epi32(x.is[1], n)}}).i;
}

static inline int wn_reduce_add_epi32(simde__m512i a) {
	wn_halves x = {.i = a};
	int sum = 0;
	for (int i = 0; i < 16; i++) sum += x.whole[i];
	return sum;
}

static inline __m128i wn_cvtepi32_epi8(simde__m512i a) {
	wn_halves x = {.i = a};
	int8_t low[16];
	for (int i = 0; i < 16; i++) low[i] = (int8_t)x.whole[i];
	return _mm_loadu_si128((const __m128i *)low);
}

static inline __m256i wn_cvtepi32_epi16(simde__m512i a) {
	wn_halves x = {.i = a};
	int16_t low[16];
	for (int i = 0; i < 16; i++) low[i] = (int16_t)x.whole[i];
	return _mm256_loadu_si256((const __m256i *)low);
}

static inline simde__m512 wn_maskz_loadu_ps(unsigned mask, const float *p) {
	wn_halves x = {.lane = {0}};
	for (int i = 0; i < 16; i++)
		if (mask >> i & 1) x.lane[i] = p[i];
	return x.f;
}

static inline void wn_mask_storeu_ps(float *p, unsigned mask, simde__m512 a) {
	wn_halves x = {.f = a};
	for (int i = 0; i < 16; i++)
		if (mask >> i & 1) p[i] = x.lane[i];
}

static inline simde__m512 wn_maskz_expand_ps(unsigned mask, simde__m512 a) {
	wn_halves from = {.f = a}, x = {.lane = {0}};
	for (int i = 0, n = 0; i < 16; i++)
		if (mask >> i & 1) x.lane[i] = from.lane[n++];
	return x.f;
}

#define _mm512_cvtepi32_ps wn_cvtepi32_ps
#define _mm512_cvtps_epi32 wn_cvtps_epi32
#define _mm512_cvtepu8_epi32 wn_cvtepu8_epi32
#define _mm512_cvtepi8_epi32 wn_cvtepi8_epi32
#define _mm512_srai_epi32 wn_srai_epi32
#define _mm512_reduce_add_epi32 wn_reduce_add_epi32
#define _mm512_cvtepi32_epi8 wn_cvtepi32_epi8
#define _mm512_cvtepu16_epi32 wn_cvtepu16_epi32
#define _mm512_cvtepi32_epi16 wn_cvtepi32_epi16
#define _mm512_cvtph_ps wn_cvtph_ps
#define _mm512_cvtps_ph(a, rounding) wn_cvtps_ph(a)
#define _mm512_maskz_loadu_ps wn_maskz_loadu_ps
#define _mm512_mask_storeu_ps wn_mask_storeu_ps
#define _mm512_maskz_expand_ps wn_maskz_expand_ps

#endif
