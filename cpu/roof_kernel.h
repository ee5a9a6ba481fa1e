// Roof: p = operations done, an int64 that is 0 where the machine lacks the arithmetic; d = which of WN_ROOFS, steps an item, items. A step is
// one instruction, or the few that stand for it, in each of several chains of sums, so many that none waits for itself. Nothing is loaded or
// stored: what a product with weights reaches of this is the kernel's share.

#if WN_TILES
#include "amx.h"
#endif

#undef WN_CHAINS
#undef WN_STAYS
#undef WN_ROOF

#ifdef __x86_64__
#define WN_STAYS "v"
#if defined(__AVX512VNNI__) && !defined(WINNOW_EMULATE)
#define WN_CHAINS 12
#else
#define WN_CHAINS 10
#endif
#else
#define WN_STAYS "w"
#define WN_CHAINS 16
#endif

// WN_ROOF defines a loop of steps, each of which does so many operations a chain. Empty assembly keeps the operand unknown, so that no part of
// a step moves out of the loop, and asks for the sums at the end. target is an attribute, or nothing.
#define WN_ROOF(name, target, sums, operand, next, operations) \
	target static int64_t WN(name)(int64_t steps) { \
		operand x; \
		sums s[WN_CHAINS]; \
		for (size_t i = 0; i < sizeof x; i += 4) memcpy((char *)&x + i, &(uint32_t){0x3f803f80}, 4); /* 1.0 as bfloat16, 1.002 as a float */ \
		_Pragma("GCC unroll 16") for (int i = 0; i < WN_CHAINS; i++) s[i] = (sums){0}; \
		for (int64_t n = 0; n < steps; n++) { \
			_Pragma("GCC unroll 16") for (int i = 0; i < WN_CHAINS; i++) { \
				__asm__("" : "+" WN_STAYS(x)); \
				s[i] = next; \
			} \
		} \
		_Pragma("GCC unroll 16") for (int i = 0; i < WN_CHAINS; i++) __asm__ volatile("" ::WN_STAYS(s[i])); \
		return steps * WN_CHAINS * (operations); \
	}

#ifdef __x86_64__
#if defined(__AVX512VNNI__) && !defined(WINNOW_EMULATE)
WN_ROOF(roof_f32, , __m512, __m512, _mm512_fmadd_ps(x, x, s[i]), 32)
#if WN_TILES
static int64_t WN(roof_i8)(int64_t steps) {
	wn_tile_configure(16, 64);
	for (int64_t n = 0; n < steps; n++) {
		wn_tile_dot_ss(0, 4, 6);
		wn_tile_dot_ss(1, 5, 7);
		wn_tile_dot_ss(2, 4, 7);
		wn_tile_dot_ss(3, 5, 6);
	}
	wn_tile_release();
	return steps * 4 * 2 * 16 * 16 * 64;
}
#else
WN_ROOF(roof_i8, , __m512i, __m512i, _mm512_dpbusd_epi32(s[i], x, x), 128)
#endif
// Inputs are two bytes each: see linear_vnni.h and linear_amx.h.
static int64_t WN(roof_i16)(int64_t steps) { return WN(roof_i8)(steps) / 2; }
WN_ROOF(roof_pairs, __attribute__((target("avx512bf16"))), __m512, __m512i, _mm512_dpbf16_ps(s[i], (__m512bh)x, (__m512bh)x), 64)
static int64_t WN(roof_bf16)(int64_t steps) { return __builtin_cpu_supports("avx512bf16") ? WN(roof_pairs)(steps) : 0; }
#else
WN_ROOF(roof_f32, , __m256, __m256, _mm256_fmadd_ps(x, x, s[i]), 16)
WN_ROOF(roof_i16, , __m256i, __m256i, _mm256_add_epi32(s[i], _mm256_madd_epi16(x, x)), 32)
WN_ROOF(roof_i8, , __m256i, __m256i, _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_maddubs_epi16(x, x), x)), 64)
static int64_t WN(roof_bf16)(int64_t steps) { return steps * 0; }
#endif
#else
WN_ROOF(roof_f32, , float32x4_t, float32x4_t, vfmaq_f32(s[i], x, x), 8)
#ifdef __ARM_FEATURE_DOTPROD
WN_ROOF(roof_i8, , int32x4_t, int8x16_t, vdotq_s32(s[i], x, x), 32)
// Inputs are two bytes each, whose products with the codes are added up apart, see linear_dotprod.h: two instructions for what roof_i8 does in one.
static int64_t WN(roof_i16)(int64_t steps) { return WN(roof_i8)(steps) / 2; }
#else
WN_ROOF(roof_i8, , int32x4_t, int8x16_t, vpadalq_s16(s[i], vmull_s8(vget_low_s8(x), vget_low_s8(x))), 16)
WN_ROOF(roof_i16, , int32x4_t, int16x8_t, vmlal_high_s16(s[i], x, x), 8)
#endif
static int64_t WN(roof_bf16)(int64_t steps) { return steps * 0; }
#endif

typedef int64_t WN(roof_loop)(int64_t steps);

typedef struct WN(roof_job) {
	WN(roof_loop) *run;
	int64_t steps;
} WN(roof_job);

static void WN(roof_item)(void *arg, int64_t item, int worker) {
	const WN(roof_job) *j = arg;
	(void)item, (void)worker;
	j->run(j->steps);
}

void WN(wn_roof)(wn_ctx *ctx, const wn_op *op) {
#define WN_ROOF_RUN(name, run) [WN_ROOF_##name] = WN(roof_##run),
	static WN(roof_loop) *const loops[] = {WN_ROOFS(WN_ROOF_RUN)};
#undef WN_ROOF_RUN
	WN(roof_job) j = {loops[op->d[0]], op->d[1]};
	*(int64_t *)op->p[0] = j.run(1) * j.steps * op->d[2];
	wn_parallel(ctx, op->d[2], WN(roof_item), &j);
}
