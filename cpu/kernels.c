//go:build linux && cgo && (amd64 || arm64)

// The tables of kernels, and what a machine needs for each.

#ifdef __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#ifdef __x86_64__
#define _GNU_SOURCE
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
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

// lacks_amx also asks the system for the tile registers, which a process has only once it asked.
static const char *lacks_amx(void) {
	const char *lacking = lacks_avx512();
#ifndef WINNOW_EMULATE
	unsigned a, b, c, d;
	if (*lacking) return lacking;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 25 & 1)) return "amx_tile and amx_int8";
	enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
	if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)) return "the system's leave to use AMX";
#endif
	return lacking;
}

#else

static const char *lacks_neon(void) { return ""; } // part of every 64-bit ARM

static const char *lacks_dotprod(void) { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? "" : "asimddp"; }

#endif

#define WN_ENTRY(op, variant) .op = wn_##op##_##variant,
#define WN_VARIANT(variant) {#variant, lacks_##variant, {WN_OPS(WN_ENTRY, variant)}},
const wn_variant wn_variants[WN_VARIANT_COUNT] = {
#ifdef __x86_64__
	{"amx", lacks_amx, {WN_OTHER_OPS(WN_ENTRY, avx512) WN_WEIGHT_OPS(WN_ENTRY, amx)}},
	WN_VARIANT(avx512) WN_VARIANT(avx2)
#else
	WN_VARIANT(dotprod) WN_VARIANT(neon)
#endif
};

const char *wn_lacks(const wn_variant *v) { return v->lacks(); }
