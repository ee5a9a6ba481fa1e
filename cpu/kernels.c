//go:build linux && cgo && (amd64 || arm64)

// The tables of kernels, and what a machine needs for each.

#ifdef __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "cpu.h"

#ifdef __x86_64__

static const char *lacks_avx2(void) {
	if (!__builtin_cpu_supports("avx2")) return "avx2";
	if (!__builtin_cpu_supports("fma")) return "fma";
	if (!__builtin_cpu_supports("f16c")) return "f16c";
	return "";
}

static const char *lacks_avx512(void) {
#ifdef WINNOW_EMULATE
	return "";
#else
	if (!__builtin_cpu_supports("avx512f")) return "avx512f";
	if (!__builtin_cpu_supports("avx512bw")) return "avx512bw";
	if (!__builtin_cpu_supports("avx512dq")) return "avx512dq";
	if (!__builtin_cpu_supports("avx512vl")) return "avx512vl";
	if (!__builtin_cpu_supports("avx512vnni")) return "avx512vnni";
	return lacks_avx2();
#endif
}

#else

static const char *lacks_neon(void) { return ""; } // part of every 64-bit ARM

static const char *lacks_dotprod(void) { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? "" : "asimddp"; }

#endif

#define WN_ENTRY(op, variant) .op = wn_##op##_##variant,
#define WN_VARIANT(variant) {#variant, lacks_##variant, {WN_OPS(WN_ENTRY, variant)}},
const wn_variant wn_variants[WN_VARIANT_COUNT] = {WN_VARIANTS(WN_VARIANT)};

const char *wn_lacks(const wn_variant *v) { return v->lacks(); }
