// Compiles a kernel file once for each variant. A file add.c includes this with WN_FILE defined as "add_kernel.h", which then finds
// the vectors of vec.h and names what it defines WN(name): name_avx2, name_avx512.
//
// Under WINNOW_EMULATE the AVX-512 variant is built from emulated instructions, for testing on machines without them.

#include <immintrin.h>
#include <math.h>
#include <string.h>
#ifdef WINNOW_EMULATE
#include "emulate.h"
#endif

#include "cpu.h"

#define WN_PASTE(name, suffix) name##_##suffix
#define WN_EXPAND(name, suffix) WN_PASTE(name, suffix)
#define WN(name) WN_EXPAND(name, WN_SUFFIX)
#define WN_INLINE static inline __attribute__((always_inline, unused))

#define WN_SUFFIX avx2
#define WN_AVX512 0
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#include "vec.h"
#include WN_FILE
#pragma GCC pop_options
#undef WN_SUFFIX
#undef WN_AVX512

#define WN_SUFFIX avx512
#define WN_AVX512 1
#pragma GCC push_options
#ifdef WINNOW_EMULATE
#pragma GCC optimize("O1") // emulation unrolled takes minutes to compile
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif
#include "vec.h"
#include WN_FILE
#pragma GCC pop_options
