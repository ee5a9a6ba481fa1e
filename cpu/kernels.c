//go:build linux && cgo && amd64

// The tables of kernels, and what a machine needs for each.

#include "cpu.h"

#define WN_ENTRY(op) .op = wn_##op##_avx2,
const wn_kernels wn_avx2 = {WN_OPS(WN_ENTRY)};
#undef WN_ENTRY

#define WN_ENTRY(op) .op = wn_##op##_avx512,
const wn_kernels wn_avx512 = {WN_OPS(WN_ENTRY)};
#undef WN_ENTRY

const char *wn_lacks_avx2(void) {
	if (!__builtin_cpu_supports("avx2")) return "avx2";
	if (!__builtin_cpu_supports("fma")) return "fma";
	if (!__builtin_cpu_supports("f16c")) return "f16c";
	return "";
}

const char *wn_lacks_avx512(void) {
#ifdef WINNOW_EMULATE
	return "";
#else
	if (!__builtin_cpu_supports("avx512f")) return "avx512f";
	if (!__builtin_cpu_supports("avx512bw")) return "avx512bw";
	if (!__builtin_cpu_supports("avx512dq")) return "avx512dq";
	if (!__builtin_cpu_supports("avx512vl")) return "avx512vl";
	if (!__builtin_cpu_supports("avx512vnni")) return "avx512vnni";
	return wn_lacks_avx2();
#endif
}
