//go:build linux && cgo && (amd64 || arm64)

// Packing weights at load, and reading one row back.

#include <string.h>

#include "pack.h"

typedef struct source {
	const wn_weights *w;
	const uint8_t *rows;
	int64_t row_bytes, block_bytes; // in the format's own layout
} source;

static const uint8_t zeros[256];

static source source_of(const wn_weights *w, const void *rows) {
	static const int16_t bytes[] = {4, 4, 2, 4, 18, 20, 34, 144, 176, 210};
	int64_t cols = wn_block_cols(w->kind), block = bytes[w->kind];
	return (source){w, rows, w->kind == WN_BF16 ? w->cols * 2 : w->cols / cols * block, block};
}

// nibbles writes 32 codes of row r into 4 lines.
static void nibbles(uint8_t *lines, int r, const uint8_t *codes) {
	for (int i = 0; i < 4; i++)
		for (int j = 0; j < 4; j++) lines[64 * i + 4 * r + j] = codes[8 * i + j] | codes[8 * i + j + 4] << 4;
}

// bytes writes 32 codes of row r into 8 lines.
static void bytes(uint8_t *lines, int r, const uint8_t *codes) {
	for (int i = 0; i < 8; i++) memcpy(lines + 64 * i + 4 * r, codes + 4 * i, 4);
}

// halves splits 16 bytes of nibbles into 32 codes: low nibbles, then high ones.
static void halves(uint8_t *codes, const uint8_t *from) {
	for (int j = 0; j < 16; j++) codes[j] = from[j] & 15, codes[j + 16] = from[j] >> 4;
}

// sub_scale is the 6-bit scale and minimum of sub-block j; the packing is that of quant.Q4_K.
static void sub_scale(const uint8_t *s, int j, uint8_t *scale, uint8_t *minimum) {
	if (j < 4) {
		*scale = s[j] & 63, *minimum = s[j + 4] & 63;
	} else {
		*scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4, *minimum = s[j + 4] >> 4 | s[j] >> 6 << 4;
	}
}

// pack_45 packs one block of 256 values of Q4_K or Q5_K.
static void pack_45(const wn_weights *w, const uint8_t *b, uint8_t *out, int r) {
	memcpy(out + 2 * r, b, 2);
	memcpy(out + 32 + 2 * r, b + 2, 2);
	const uint8_t *fifth = b + 16, *low = b + (w->kind == WN_Q4_K ? 16 : 48);
	for (int j = 0; j < 8; j++) {
		uint8_t codes[32];
		sub_scale(b + 4, j, out + 64 + 32 * j + r, out + 64 + 32 * j + 16 + r);
		for (int l = 0; l < 32; l++) codes[l] = j % 2 ? low[32 * (j / 2) + l] >> 4 : low[32 * (j / 2) + l] & 15;
		if (w->kind == WN_Q4_K) {
			nibbles(out + 320 + 256 * j, r, codes);
			continue;
		}
		for (int l = 0; l < 32; l++) codes[l] |= (fifth[l] >> j & 1) << 4;
		bytes(out + 320 + 512 * j, r, codes);
	}
}

// pack_6 packs one block of 256 values of Q6_K.
static void pack_6(const uint8_t *b, uint8_t *out, int r) {
	memcpy(out + 2 * r, b + 208, 2);
	for (int i = 0; i < 16; i++) out[32 + 16 * i + r] = b[192 + i];
	for (int j = 0; j < 8; j++) {
		const uint8_t *low = b + 64 * (j / 4) + 32 * (j % 2), *high = b + 128 + 32 * (j / 4);
		uint8_t codes[32];
		for (int l = 0; l < 32; l++) {
			uint8_t nibble = j % 4 < 2 ? low[l] & 15 : low[l] >> 4;
			codes[l] = nibble | (high[l] >> 2 * (j % 4) & 3) << 4;
		}
		bytes(out + 288 + 512 * j, r, codes);
	}
}

// pack_block packs the block of row r that starts at b.
static void pack_block(const wn_weights *w, const uint8_t *b, uint8_t *out, int r) {
	uint8_t codes[32];
	switch (w->kind) {
	case WN_F32: memcpy(out + 4 * r, b, 4); break;
	case WN_F16: memcpy(out + 2 * r, b, 2); break;
	case WN_BF16: memcpy(out + 4 * r, b, 4); break;
	case WN_Q4_0:
		memcpy(out + 2 * r, b, 2);
		halves(codes, b + 2);
		nibbles(out + 32, r, codes);
		break;
	case WN_Q4_1:
		memcpy(out + 2 * r, b, 2);
		memcpy(out + 32 + 2 * r, b + 2, 2);
		halves(codes, b + 4);
		nibbles(out + 64, r, codes);
		break;
	case WN_Q8_0:
		memcpy(out + 2 * r, b, 2);
		for (int l = 0; l < 32; l++) codes[l] = b[2 + l] ^ 0x80;
		bytes(out + 32, r, codes);
		break;
	case WN_Q6_K: pack_6(b, out, r); break;
	default: pack_45(w, b, out, r);
	}
}

static void pack_tile(void *arg, int64_t tile, int worker) {
	const source *s = arg;
	const wn_weights *w = s->w;
	(void)worker;
	int64_t cols = wn_block_cols(w->kind), bytes = wn_block_bytes(w->kind), blocks = w->cols / cols;
	uint8_t *out = w->tiles + tile * wn_tile_bytes(w);
	for (int r = 0; r < 16; r++) {
		int64_t row = 16 * tile + r;
		const uint8_t *b = row < w->rows ? s->rows + row * s->row_bytes : NULL;
		for (int64_t i = 0; i < blocks; i++) pack_block(w, b ? b + i * s->block_bytes : zeros, out + i * bytes, r);
		if (w->cols % cols) { // an odd last column of bfloat16
			uint8_t last[4] = {0};
			if (b) memcpy(last, b + 2 * (w->cols - 1), 2);
			pack_block(w, last, out + blocks * bytes, r);
		}
	}
}

void wn_pack(wn_ctx *ctx, const wn_weights *w, const void *rows) {
	source s = source_of(w, rows);
	wn_parallel(ctx, wn_tiles(w), pack_tile, &s);
}

static float from_f16(uint16_t h) {
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, frac = h & 0x3ff, bits;
	if (exp == 0) {
		float f = (float)frac * 0x1p-24f;
		memcpy(&bits, &f, 4);
		bits |= sign;
	} else {
		bits = exp == 31 ? sign | 0x7f800000 | frac << 13 : sign | (exp + 112) << 23 | frac << 13;
	}
	float f;
	memcpy(&f, &bits, 4);
	return f;
}

// lane16 is the binary16 number of row r on a line of them.
static float lane16(const uint8_t *line, int r) {
	uint16_t h;
	memcpy(&h, line + 2 * r, 2);
	return from_f16(h);
}

static uint32_t nibble(const uint8_t *lines, int r, int l) { return lines[64 * (l / 8) + 4 * r + l % 4] >> 4 * (l / 4 % 2) & 15; }

static uint32_t code(const uint8_t *lines, int r, int l) { return lines[64 * (l / 4) + 4 * r + l % 4]; }

// unpack_k restores the 256 values of a block of Q4_K, Q5_K or Q6_K.
static void unpack_k(int64_t kind, const uint8_t *b, int r, float *out) {
	float d = lane16(b, r);
	if (kind == WN_Q6_K) {
		for (int l = 0; l < 256; l++) {
			float scale = d * (float)(int8_t)b[32 + 16 * (l / 16) + r];
			out[l] = scale * (float)((int)code(b + 288 + 512 * (l / 32), r, l % 32) - 32);
		}
		return;
	}
	float dmin = lane16(b + 32, r);
	for (int l = 0; l < 256; l++) {
		const uint8_t *s = b + 64 + 32 * (l / 32) + r;
		uint32_t c = kind == WN_Q4_K ? nibble(b + 320 + 256 * (l / 32), r, l % 32) : code(b + 320 + 512 * (l / 32), r, l % 32);
		out[l] = d * (float)s[0] * (float)c - dmin * (float)s[16];
	}
}

// unpack_block restores the values of row r in one block of a tile.
static void unpack_block(int64_t kind, const uint8_t *b, int r, float *out) {
	uint32_t bits;
	switch (kind) {
	case WN_F32: memcpy(out, b + 4 * r, 4); break;
	case WN_F16: *out = lane16(b, r); break;
	case WN_BF16:
		memcpy(&bits, b + 4 * r, 4);
		memcpy(out, &(uint32_t){bits << 16}, 4);
		memcpy(out + 1, &(uint32_t){bits & 0xffff0000}, 4);
		break;
	case WN_Q4_0:
		for (int l = 0; l < 32; l++) out[l] = (float)((int)nibble(b + 32, r, l) - 8) * lane16(b, r);
		break;
	case WN_Q4_1:
		for (int l = 0; l < 32; l++) out[l] = (float)nibble(b + 64, r, l) * lane16(b, r) + lane16(b + 32, r);
		break;
	case WN_Q8_0:
		for (int l = 0; l < 32; l++) out[l] = (float)((int)code(b + 32, r, l) - 128) * lane16(b, r);
		break;
	default: unpack_k(kind, b, r, out);
	}
}

void wn_unpack_row(const wn_weights *w, int64_t i, float *out) {
	if (w->kind == WN_ROW) {
		memcpy(out, w->tiles, w->cols * sizeof *out);
		return;
	}
	const uint8_t *tile = w->tiles + i / 16 * wn_tile_bytes(w);
	int64_t cols = wn_block_cols(w->kind), bytes = wn_block_bytes(w->kind), blocks = w->cols / cols;
	for (int64_t b = 0; b < blocks; b++) unpack_block(w->kind, tile + b * bytes, (int)(i % 16), out + b * cols);
	if (w->cols % cols) {
		float last[2];
		unpack_block(w->kind, tile + blocks * bytes, (int)(i % 16), last);
		out[w->cols - 1] = last[0];
	}
}
