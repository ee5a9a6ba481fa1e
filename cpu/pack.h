// Weights as the kernels read them.
#ifndef WN_PACK_H
#define WN_PACK_H

#include "cpu.h"

// How a matrix is stored. Layout, but for WN_ROW: rows go in tiles of 16, which follow each other; the last one is filled up with rows
// of zeros. In a tile the 16 rows are interleaved: a line holds something of each, row r in lane r. A tile is a run of blocks:
//
//	WN_F32     1 column:    16 floats
//	WN_F16     1 column:    16 binary16
//	WN_BF16    2 columns:   16 lanes of two bfloat16; an odd last column is joined by zeros
//	WN_Q4_0    32 columns:  16 scales (binary16), codes of 4 bits
//	WN_Q4_1    32 columns:  16 scales, 16 minimums (binary16), codes of 4 bits
//	WN_Q5_0    32 columns:  16 scales (binary16), codes of 5 bits
//	WN_Q5_1    32 columns:  16 scales, 16 minimums (binary16), codes of 5 bits
//	WN_Q8_0    32 columns:  16 scales (binary16), codes plus 128 of 8 bits
//	WN_IQ4_NL  32 columns:  16 scales (binary16), codes of 4 bits
//	WN_MXFP4   32 columns:  16 scales (bfloat16), codes of 4 bits
//	WN_Q4_K    256 columns: 16 d, 16 dmin (binary16); for each 32 columns 16 scales and 16 minimums (uint8); codes of 4 bits
//	WN_Q5_K    256 columns: the same with codes of 5 bits
//	WN_Q6_K    256 columns: 16 d (binary16); for each 16 columns 16 scales (int8); codes of 6 bits
//	WN_IQ4_XS  256 columns: 16 d (binary16); for each 32 columns 16 scales (int8); codes of 4 bits
//
// Codes follow each other by 32 columns, those of b bits in b lines of 64 bytes, of which 4 bytes belong to each row. Lines hold 4 columns
// of bytes, where b is 8, or 8 columns of nibbles: byte j of lane r is column j of row r, or column j in its low nibble and column j+4 in
// the high one. What is over 4 bits comes in the lines after those: the bit of column 4*m+j is bit m of byte j of one line; the two bits
// of column 4*m+j are bits 2*(m%4) and up of byte j of line m/4 of two.
//
// WN_ROW is a single row of floats as they are: norms, biases, frequencies.
enum {
	WN_ROW, WN_F32, WN_F16, WN_BF16, WN_Q4_0, WN_Q4_1, WN_Q5_0, WN_Q5_1, WN_Q8_0, WN_IQ4_NL, WN_MXFP4, WN_Q4_K, WN_Q5_K, WN_Q6_K, WN_IQ4_XS,
	WN_KINDS
};

typedef struct wn_weights {
	int64_t kind, rows, cols;
	uint8_t *tiles;
} wn_weights;

// wn_code_bits is how many bits a code of an integer format takes, wn_head_bytes what comes before the codes of a block.
static inline int wn_code_bits(int64_t kind) {
	static const int8_t bits[WN_KINDS] = {0, 0, 0, 0, 4, 4, 5, 5, 8, 4, 4, 4, 5, 6, 4};
	return bits[kind];
}
static inline int wn_head_bytes(int64_t kind) {
	static const int16_t bytes[WN_KINDS] = {0, 0, 0, 0, 32, 64, 32, 64, 32, 32, 32, 320, 320, 288, 160};
	return bytes[kind];
}

// wn_block_cols and wn_block_bytes are the columns and bytes of one block of a tile.
static inline int64_t wn_block_cols(int64_t kind) {
	static const int16_t cols[WN_KINDS] = {1, 1, 1, 2, 32, 32, 32, 32, 32, 32, 32, 256, 256, 256, 256};
	return cols[kind];
}
static inline int64_t wn_block_bytes(int64_t kind) {
	static const int16_t floats[] = {4, 64, 32, 64};
	return kind < WN_Q4_0 ? floats[kind] : wn_head_bytes(kind) + wn_block_cols(kind) * wn_code_bits(kind) * 2;
}

// wn_offset is what is to be taken off a code, after wn_levels where there are some.
static inline int wn_offset(int64_t kind) {
	static const int16_t offset[WN_KINDS] = {0, 0, 0, 0, 8, 0, 16, 0, 128, 128, 16, 0, 0, 32, 128};
	return offset[kind];
}

// wn_levels are what the codes of a format with uneven levels stand for, plus the offset; NULL where codes stand for themselves.
static inline const uint8_t *wn_levels(int64_t kind) {
	static const uint8_t iq4[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
	static const uint8_t fp4[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4}; // twice E2M1
	return kind == WN_IQ4_NL || kind == WN_IQ4_XS ? iq4 : kind == WN_MXFP4 ? fp4 : NULL;
}

// wn_has_least says whether a minimum is added to the product of scale and code.
static inline int wn_has_least(int64_t kind) {
	return kind == WN_Q4_1 || kind == WN_Q5_1 || kind == WN_Q4_K || kind == WN_Q5_K;
}

// wn_group_cols is how many columns have one scale.
static inline int wn_group_cols(int64_t kind) { return kind == WN_Q6_K ? 16 : 32; }

static inline int64_t wn_tile_bytes(const wn_weights *w) {
	int64_t cols = wn_block_cols(w->kind);
	return (w->cols + cols - 1) / cols * wn_block_bytes(w->kind);
}

static inline int64_t wn_tiles(const wn_weights *w) { return (w->rows + 15) / 16; }

// wn_pack fills the tiles from rows in the layout of a source, which is the format's own but for WN_FROM_Q3_K: Q3_K to tiles of Q6_K,
// whose codes and scales can say what those of Q3_K do.
enum { WN_FROM_OWN, WN_FROM_Q3_K };
void wn_pack(wn_ctx *ctx, const wn_weights *w, int source, const void *rows);

// wn_unpack_row restores row i exactly.
void wn_unpack_row(const wn_weights *w, int64_t i, float *out);

#endif
