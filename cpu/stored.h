// How a cache stores its numbers: see attention.Cache and entry stored.
#ifndef WN_STORED_H
#define WN_STORED_H

#include "cpu.h"

enum { WN_CACHE_F32, WN_CACHE_F16, WN_CACHE_Q8_0 };
enum { WN_STRIP_KEYS = 16 }; // neighbours whose keys lie together, [dim][16]
enum { WN_SHARED = 32 }; // dimensions of a token that have a scale in common, where numbers are packed

// wn_stored is how many bytes n numbers take: whole tiles, where they are packed.
static inline int64_t wn_stored(int kind, int64_t n) { return kind == WN_CACHE_F32 ? 4 * n : kind == WN_CACHE_F16 ? 2 * n : n / 32 * 34; }

// wn_key_at is where a tile of keys has the first dimension of the key in a slot. From one dimension to the next are WN_STRIP_KEYS numbers.
static inline int64_t wn_key_at(int64_t dim, int64_t slot) { return slot / WN_STRIP_KEYS * dim * WN_STRIP_KEYS + slot % WN_STRIP_KEYS; }

// wn_scales are the scales of a packed tile, which follow its codes.
static inline const uint8_t *wn_scales(const uint8_t *tile, int64_t dim) { return tile + dim * 64; }

// wn_widened is room for a tile of keys as floats for each thread, see plain_keys; none is needed, where keys are not packed. Says whether
// there was memory.
static inline int wn_widened(wn_ctx *ctx, int kind, int64_t dim, float **room) {
	*room = NULL;
	if (kind != WN_CACHE_Q8_0) return 1;
	*room = wn_scratch(ctx, wn_threads(ctx) * dim * 64 * (int64_t)sizeof(float));
	return *room != NULL;
}

#endif
