// The tile unit of AMX: instructions on the registers tmm0 to tmm7 of the calling thread. In assembly, because the compiler's own
// intrinsics do not say what they read and write.
#ifndef WN_AMX_H
#define WN_AMX_H

#include <stdint.h>

// The registers 0 to 3 are sums, 4 and 5 rows of inputs, 6 and 7 codes.
typedef struct wn_tile_shape {
	uint8_t palette, start, zero[14];
	uint16_t bytes[16]; // of a row
	uint8_t rows[16];
} wn_tile_shape;

// wn_tile_of is the shape for so many rows of inputs, and bytes of each that are multiplied at a time, a multiple of 4.
static inline wn_tile_shape wn_tile_of(int rows, int bytes) {
	wn_tile_shape s = {.palette = 1};
	for (int i = 0; i < 4; i++) s.bytes[i] = 64, s.rows[i] = (uint8_t)rows;
	for (int i = 4; i < 6; i++) s.bytes[i] = (uint16_t)bytes, s.rows[i] = (uint8_t)rows;
	for (int i = 6; i < 8; i++) s.bytes[i] = 64, s.rows[i] = (uint8_t)(bytes / 4);
	return s;
}

#ifdef WINNOW_EMULATE

#include <string.h>

static _Thread_local wn_tile_shape wn_shape;
static _Thread_local union { int8_t s8[16][64]; uint8_t u8[16][64]; int32_t s32[16][16]; } wn_tile[8];

static inline void wn_tile_configure(int rows, int bytes) { wn_shape = wn_tile_of(rows, bytes); }
static inline void wn_tile_release(void) { wn_shape = (wn_tile_shape){0}; }
static inline void wn_tile_zero(int t) { memset(&wn_tile[t], 0, sizeof wn_tile[t]); }

static inline void wn_tile_load(int t, const void *from) {
	wn_tile_zero(t);
	for (int r = 0; r < wn_shape.rows[t]; r++) memcpy(wn_tile[t].u8[r], (const uint8_t *)from + 64 * r, wn_shape.bytes[t]);
}

static inline void wn_tile_store(int t, void *to) {
	for (int r = 0; r < wn_shape.rows[t]; r++) memcpy((uint8_t *)to + 64 * r, wn_tile[t].u8[r], wn_shape.bytes[t]);
}

static inline void wn_tile_dot(int sum, int rows, int codes, int is_signed) {
	for (int r = 0; r < wn_shape.rows[rows]; r++)
		for (int n = 0; n < 16; n++)
			for (int k = 0; k < wn_shape.bytes[rows]; k++) {
				int code = is_signed ? wn_tile[codes].s8[k / 4][4 * n + k % 4] : wn_tile[codes].u8[k / 4][4 * n + k % 4];
				wn_tile[sum].s32[r][n] += wn_tile[rows].s8[r][k] * code;
			}
}

#define wn_tile_dot_ss(sum, rows, codes) wn_tile_dot(sum, rows, codes, 1)
#define wn_tile_dot_su(sum, rows, codes) wn_tile_dot(sum, rows, codes, 0)

#else

static inline void wn_tile_configure(int rows, int bytes) {
	wn_tile_shape s = wn_tile_of(rows, bytes);
	__asm__ volatile("ldtilecfg %0" : : "m"(s));
}
static inline void wn_tile_release(void) { __asm__ volatile("tilerelease"); }

#define wn_tile_zero(t) __asm__ volatile("tilezero %%tmm" #t : :)
// The rows of a tile lie 64 bytes apart in memory.
typedef struct __attribute__((may_alias)) wn_tile_memory {
	uint8_t rows[16][64];
} wn_tile_memory;

#define wn_tile_load(t, from) \
	__asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(from), "r"((int64_t)64), "m"(*(const wn_tile_memory *)(from)))
#define wn_tile_store(t, to) \
	__asm__ volatile("tilestored %%tmm" #t ", (%1,%2,1)" : "=m"(*(wn_tile_memory *)(to)) : "r"(to), "r"((int64_t)64))
// Signed inputs times signed codes, and times unsigned ones.
#define wn_tile_dot_ss(sum, rows, codes) __asm__ volatile("tdpbssd %%tmm" #codes ", %%tmm" #rows ", %%tmm" #sum : :)
#define wn_tile_dot_su(sum, rows, codes) __asm__ volatile("tdpbsud %%tmm" #codes ", %%tmm" #rows ", %%tmm" #sum : :)

#endif

#endif
