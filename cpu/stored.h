// How a cache stores its numbers: see attention.Cache and entry stored.
#ifndef WN_STORED_H
#define WN_STORED_H

#include "cpu.h"

enum { WN_CACHE_F32, WN_CACHE_F16, WN_CACHE_Q8_0, WN_CACHE_Q4_0 };
enum { WN_STRIP_KEYS = 16 }; // neighbours whose keys lie together, [dim][16]
enum { WN_SHARED = 32 }; // dimensions of a token that have a scale in common, where numbers are packed

// wn_packed says whether numbers are codes with scales.
static inline int wn_packed(int kind) { return kind == WN_CACHE_Q8_0 || kind == WN_CACHE_Q4_0; }

// wn_row_bytes is how many bytes n numbers of a token take, without their scales.
static inline int64_t wn_row_bytes(int kind, int64_t n) {
	return kind == WN_CACHE_F32 ? 4 * n : kind == WN_CACHE_F16 ? 2 * n : kind == WN_CACHE_Q8_0 ? n : n / 2;
}

// wn_stored is how many bytes n numbers take: whole tiles, where they are packed.
static inline int64_t wn_stored(int kind, int64_t n) { return wn_row_bytes(kind, n) + (wn_packed(kind) ? n / WN_SHARED * 2 : 0); }

// wn_key_at is where a tile of keys, whose tokens have rows numbers or bytes each, has the first one of the key in a slot. From one to the next
// are WN_STRIP_KEYS.
static inline int64_t wn_key_at(int64_t rows, int64_t slot) { return slot / WN_STRIP_KEYS * rows * WN_STRIP_KEYS + slot % WN_STRIP_KEYS; }

// wn_byte_of is the byte of a token that has the code of dimension d, and wn_shift_of the code's lowest bit in it: where codes have 4 bits, those of
// dimensions j and j + 16 of a block share a byte.
static inline int64_t wn_byte_of(int kind, int64_t d) { return kind == WN_CACHE_Q4_0 ? d / WN_SHARED * 16 + d % 16 : d; }
static inline int wn_shift_of(int64_t d) { return (int)(d / 16 % 2 * 4); }

// wn_scales are the scales of a packed tile, which follow its codes.
static inline const uint8_t *wn_scales(const uint8_t *tile, int kind, int64_t dim) { return tile + 64 * wn_row_bytes(kind, dim); }

// wn_floats is room for a tile of keys as floats for each thread. Says whether there was memory.
static inline int wn_floats(wn_ctx *ctx, int64_t dim, float **room) {
	*room = wn_scratch(ctx, wn_threads(ctx) * dim * 64 * (int64_t)sizeof(float));
	return *room != NULL;
}

// wn_widened is that room, see plain_keys; none is needed where keys are not packed.
static inline int wn_widened(wn_ctx *ctx, int kind, int64_t dim, float **room) {
	*room = NULL;
	return !wn_packed(kind) || wn_floats(ctx, dim, room);
}

#endif
