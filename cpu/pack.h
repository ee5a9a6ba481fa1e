// Weights as the kernels read them.
#ifndef WN_PACK_H
#define WN_PACK_H

#include "cpu.h"

// How a matrix is stored. Layout, but for WN_ROW: rows go in tiles of 16, which follow each other; the last one is filled up with rows
// of zeros. In a tile the 16 rows are interleaved: a line holds something of each, row r in lane r. A tile is a run of blocks:
//
//	WN_F32   1 column:    16 floats
//	WN_F16   1 column:    16 binary16
//	WN_BF16  2 columns:   16 lanes of two bfloat16; an odd last column is joined by zeros
//	WN_Q4_0  32 columns:  16 scales (binary16), 4 lines of nibbles
//	WN_Q4_1  32 columns:  16 scales, 16 minimums (binary16), 4 lines of nibbles
//	WN_Q8_0  32 columns:  16 scales (binary16), 8 lines of codes plus 128
//	WN_Q4_K  256 columns: 16 d, 16 dmin (binary16); for each 32 columns 16 scales and 16 minimums (uint8); then for each 32 columns
//	         4 lines of nibbles
//	WN_Q5_K  256 columns: the same head; then for each 32 columns 8 lines of codes, 0 to 31
//	WN_Q6_K  256 columns: 16 d (binary16); for each 16 columns 16 scales (int8); then for each 32 columns 8 lines of codes, 0 to 63
//
// A line of nibbles is 64 bytes for 8 columns: byte j of lane r holds column j of row r in its low nibble and column j+4 in the high
// one. A line of codes is 64 bytes for 4 columns: byte j of lane r holds column j.
//
// WN_ROW is a single row of floats as they are: norms, biases, frequencies.
enum { WN_ROW, WN_F32, WN_F16, WN_BF16, WN_Q4_0, WN_Q4_1, WN_Q8_0, WN_Q4_K, WN_Q5_K, WN_Q6_K };

typedef struct wn_weights {
	int64_t kind, rows, cols;
	uint8_t *tiles;
} wn_weights;

// wn_block_cols and wn_block_bytes are the columns and bytes of one block of a tile.
static inline int64_t wn_block_cols(int64_t kind) {
	static const int16_t cols[] = {1, 1, 1, 2, 32, 32, 32, 256, 256, 256};
	return cols[kind];
}

static inline int64_t wn_block_bytes(int64_t kind) {
	static const int16_t bytes[] = {4, 64, 32, 64, 32 + 256, 64 + 256, 32 + 512, 320 + 2048, 320 + 4096, 288 + 4096};
	return bytes[kind];
}

// wn_is_nibble says whether codes are stored in 4 bits, wn_has_least whether a minimum is added to the product of scale and code.
static inline int wn_is_nibble(int64_t kind) { return kind == WN_Q4_0 || kind == WN_Q4_1 || kind == WN_Q4_K; }
static inline int wn_has_least(int64_t kind) { return kind == WN_Q4_1 || kind == WN_Q4_K || kind == WN_Q5_K; }

static inline int64_t wn_tile_bytes(const wn_weights *w) {
	int64_t cols = wn_block_cols(w->kind);
	return (w->cols + cols - 1) / cols * wn_block_bytes(w->kind);
}

static inline int64_t wn_tiles(const wn_weights *w) { return (w->rows + 15) / 16; }

// wn_pack fills the tiles from rows in the format's own layout.
void wn_pack(wn_ctx *ctx, const wn_weights *w, const void *rows);

// wn_unpack_row restores row i exactly.
void wn_unpack_row(const wn_weights *w, int64_t i, float *out);

#endif
