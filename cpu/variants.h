// Compiles a kernel file once for each variant. A file add.c includes this with WN_FILE defined as "add_kernel.h", which then finds
// the vectors of vec.h and names what it defines WN(name): name_avx2, name_avx512.
//
//	WN_VECTORS  the file that says what the vectors are
//	WN_SUMS     how many sums of 16 lanes the registers hold beside what is added to them
//	WN_ROWS     how many rows of inputs a product takes at a time, 2 or more; with an integer format up to 4 of them
//	WN_MANY     how many of many rows it then takes, WN_MANY_TILES with how many tiles: linear_many.h; absent where there is no such way
//	WN_INPUTS   the file that says how inputs of integer formats are multiplied: linear_words.h, linear_vnni.h, linear_dotprod.h
//	WN_TILES    1 where many rows of them are multiplied by AMX. A file that wants a variant for that defines WN_WEIGHTS.
//
// Under WINNOW_EMULATE the AVX-512 variant is built from emulated instructions, for testing on machines without them.

#include <math.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#ifdef WINNOW_EMULATE
#include "emulate.h"
#endif
#else
#include <arm_neon.h>
#endif

#include "cpu.h"

#define WN_PASTE(name, suffix) name##_##suffix
#define WN_EXPAND(name, suffix) WN_PASTE(name, suffix)
#define WN(name) WN_EXPAND(name, WN_SUFFIX)
#define WN_INLINE static inline __attribute__((always_inline, unused))
#define WN_TILES 0

#ifdef __x86_64__

#define WN_SUFFIX avx2
#define WN_VECTORS "vec_avx2.h"
#define WN_SUMS 4
#define WN_ROWS 4
#define WN_MANY 4
#define WN_MANY_TILES 1
#define WN_INPUTS "linear_words.h"
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#include "vec.h"
#include WN_FILE
#pragma GCC pop_options
#undef WN_SUFFIX
#undef WN_VECTORS
#undef WN_SUMS
#undef WN_ROWS
#undef WN_MANY
#undef WN_MANY_TILES
#undef WN_INPUTS

#define WN_SUFFIX avx512
#define WN_VECTORS "vec_avx512.h"
#define WN_SUMS 8
#define WN_ROWS 8
#define WN_MANY 8
#define WN_MANY_TILES 2
#define WN_INPUTS "linear_vnni.h"
#pragma GCC push_options
#ifdef WINNOW_EMULATE
#pragma GCC optimize("O1") // emulation unrolled takes minutes to compile
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif
#include "vec.h"
#include WN_FILE
#ifdef WN_WEIGHTS
#undef WN_SUFFIX
#define WN_SUFFIX amx
#undef WN_TILES
#define WN_TILES 1
#include "vec.h"
#include WN_FILE
#endif
#pragma GCC pop_options

#else

// Instructions stay in the order that the kernels name: moved early, loads take more registers than there are.
#pragma GCC optimize("no-schedule-insns")

#define WN_VECTORS "vec_neon.h"
#define WN_SUMS 4

#define WN_SUFFIX neon
#define WN_ROWS 2
#define WN_INPUTS "linear_words.h"
#include "vec.h"
#include WN_FILE
#undef WN_SUFFIX
#undef WN_ROWS
#undef WN_INPUTS

#define WN_SUFFIX dotprod
#define WN_ROWS 4
#define WN_INPUTS "linear_dotprod.h"
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#include "vec.h"
#include WN_FILE
#pragma GCC pop_options

#endif
