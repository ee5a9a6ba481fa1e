//go:build linux && cgo && (amd64 || arm64)

// Packing weights at load, and reading one row back.

#include <string.h>

#include "pack.h"

// source is where rows come from, and how a block of one is packed.
typedef struct source {
	const wn_weights *w;
	const uint8_t *rows;
	int64_t row_bytes, block_bytes; // in the format's own layout
	void (*pack)(const wn_weights *w, const uint8_t *block, uint8_t *out, int r);
} source;

static const uint8_t zeros[256];

// put_codes writes 32 codes of row r.
static void put_codes(uint8_t *lines, int bits, int r, const uint8_t *codes) {
	if (bits == 8) {
		for (int i = 0; i < 8; i++) memcpy(lines + 64 * i + 4 * r, codes + 4 * i, 4);
		return;
	}
	uint8_t *more = lines + 256;
	for (int j = 0; j < 4; j++) {
		uint32_t fifth = 0, top[2] = {0, 0};
		for (int i = 0; i < 4; i++) lines[64 * i + 4 * r + j] = (codes[8 * i + j] & 15) | (codes[8 * i + j + 4] & 15) << 4;
		for (int m = 0; m < 8; m++) {
			fifth |= (uint32_t)(codes[4 * m + j] >> 4 & 1) << m;
			top[m / 4] |= (uint32_t)(codes[4 * m + j] >> 4 & 3) << 2 * (m % 4);
		}
		if (bits == 5) more[4 * r + j] = (uint8_t)fifth;
		if (bits == 6) more[4 * r + j] = (uint8_t)top[0], more[64 + 4 * r + j] = (uint8_t)top[1];
	}
}

// get_code reads the code of column l of 32 of row r.
static uint32_t get_code(const uint8_t *lines, int bits, int r, int l) {
	int m = l / 4, j = l % 4, lane = 4 * r + j;
	if (bits == 8) return lines[64 * m + lane];
	uint32_t code = lines[64 * (m / 2) + lane] >> 4 * (m % 2) & 15;
	if (bits == 5) code |= (uint32_t)(lines[256 + lane] >> m & 1) << 4;
	if (bits == 6) code |= (uint32_t)(lines[256 + 64 * (m / 4) + lane] >> 2 * (m % 4) & 3) << 4;
	return code;
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
	const int bits = wn_code_bits(w->kind);
	const uint8_t *fifth = b + 16, *low = b + (bits == 4 ? 16 : 48);
	for (int j = 0; j < 8; j++) {
		uint8_t codes[32];
		sub_scale(b + 4, j, out + 64 + 32 * j + r, out + 64 + 32 * j + 16 + r);
		for (int l = 0; l < 32; l++) codes[l] = j % 2 ? low[32 * (j / 2) + l] >> 4 : low[32 * (j / 2) + l] & 15;
		if (bits == 5)
			for (int l = 0; l < 32; l++) codes[l] |= (fifth[l] >> j & 1) << 4;
		put_codes(out + 320 + 64 * bits * j, bits, r, codes);
	}
}

// pack_6 packs one block of 256 values of Q6_K.
static void pack_6(const wn_weights *w, const uint8_t *b, uint8_t *out, int r) {
	(void)w;
	memcpy(out + 2 * r, b + 208, 2);
	for (int i = 0; i < 16; i++) out[32 + 16 * i + r] = b[192 + i];
	for (int j = 0; j < 8; j++) {
		const uint8_t *low = b + 64 * (j / 4) + 32 * (j % 2), *high = b + 128 + 32 * (j / 4);
		uint8_t codes[32];
		for (int l = 0; l < 32; l++) {
			uint8_t nibble = j % 4 < 2 ? low[l] & 15 : low[l] >> 4;
			codes[l] = nibble | (high[l] >> 2 * (j % 4) & 3) << 4;
		}
		put_codes(out + 288 + 384 * j, 6, r, codes);
	}
}

// pack_3 packs one block of 256 values of Q3_K, whose layout is that of quant.Q3_K, as Q6_K.
static void pack_3(const wn_weights *w, const uint8_t *b, uint8_t *out, int r) {
	(void)w;
	const uint8_t *high = b, *low = b + 32, *s = b + 96;
	memcpy(out + 2 * r, b + 108, 2);
	for (int i = 0; i < 16; i++) {
		int scale = (i < 8 ? s[i % 8] & 15 : s[i % 8] >> 4) | (s[8 + i % 4] >> 2 * (i / 4) & 3) << 4;
		out[32 + 16 * i + r] = (uint8_t)(int8_t)(scale - 32);
	}
	for (int j = 0; j < 8; j++) {
		uint8_t codes[32];
		for (int l = 0; l < 32; l++) codes[l] = (uint8_t)((low[32 * (j / 4) + l] >> 2 * (j % 4) & 3) + 4 * (high[l] >> j & 1) - 4 + 32);
		put_codes(out + 288 + 384 * j, 6, r, codes);
	}
}

// pack_xs packs one block of 256 values of IQ4_XS.
static void pack_xs(const wn_weights *w, const uint8_t *b, uint8_t *out, int r) {
	(void)w;
	memcpy(out + 2 * r, b, 2);
	for (int j = 0; j < 8; j++) {
		uint8_t codes[32];
		int scale = (b[4 + j / 2] >> 4 * (j % 2) & 15) | (b[2 + j / 4] >> 2 * (j % 4) & 3) << 4;
		out[32 + 16 * j + r] = (uint8_t)(int8_t)(scale - 32);
		halves(codes, b + 8 + 16 * j);
		put_codes(out + 160 + 256 * j, 4, r, codes);
	}
}

// bfloat_of gives 2^(e-128), as bfloat16; subnormal for the two smallest, NaN for 255.
static uint16_t bfloat_of(uint8_t e) { return e == 255 ? 0x7fc0 : e < 2 ? (uint16_t)(0x20 << e) : (uint16_t)((e - 1) << 7); }

// pack_32 packs one block of 32 values.
static void pack_32(const wn_weights *w, const uint8_t *b, uint8_t *out, int r) {
	const int bits = wn_code_bits(w->kind);
	uint8_t codes[32], *lines = out + wn_head_bytes(w->kind);
	uint16_t scale;
	if (w->kind == WN_MXFP4) {
		scale = bfloat_of(*b++);
	} else {
		memcpy(&scale, b, 2);
		b += 2;
	}
	memcpy(out + 2 * r, &scale, 2);
	if (wn_has_least(w->kind)) {
		memcpy(out + 32 + 2 * r, b, 2);
		b += 2;
	}
	if (bits == 8) {
		for (int l = 0; l < 32; l++) codes[l] = b[l] ^ 0x80;
	} else {
		const uint8_t *fifth = b;
		halves(codes, bits == 5 ? b + 4 : b);
		if (bits == 5)
			for (int l = 0; l < 32; l++) codes[l] |= (fifth[l / 8] >> l % 8 & 1) << 4;
	}
	put_codes(lines, bits, r, codes);
}

static void pack_floats(const wn_weights *w, const uint8_t *b, uint8_t *out, int r) {
	int bytes = w->kind == WN_F16 ? 2 : 4;
	memcpy(out + bytes * r, b, bytes);
}

static source source_of(const wn_weights *w, int from, const void *rows) {
	static const int16_t bytes[WN_KINDS] = {4, 4, 2, 4, 18, 20, 22, 24, 34, 18, 17, 144, 176, 210, 136};
	int64_t cols = wn_block_cols(w->kind), block = from == WN_FROM_Q3_K ? 110 : bytes[w->kind];
	source s = {w, rows, w->kind == WN_BF16 ? w->cols * 2 : w->cols / cols * block, block, pack_32};
	if (from == WN_FROM_Q3_K) {
		s.pack = pack_3;
	} else if (w->kind < WN_Q4_0) {
		s.pack = pack_floats;
	} else if (cols == 256) {
		s.pack = w->kind == WN_Q6_K ? pack_6 : w->kind == WN_IQ4_XS ? pack_xs : pack_45;
	}
	return s;
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
		for (int64_t i = 0; i < blocks; i++) s->pack(w, b ? b + i * s->block_bytes : zeros, out + i * bytes, r);
		if (w->cols % cols) { // an odd last column of bfloat16
			uint8_t last[4] = {0};
			if (b) memcpy(last, b + 2 * (w->cols - 1), 2);
			s->pack(w, last, out + blocks * bytes, r);
		}
	}
}

void wn_pack(wn_ctx *ctx, const wn_weights *w, int from, const void *rows) {
	source s = source_of(w, from, rows);
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

static float lane_bf16(const uint8_t *line, int r) {
	uint16_t h;
	memcpy(&h, line + 2 * r, 2);
	uint32_t bits = (uint32_t)h << 16;
	float f;
	memcpy(&f, &bits, 4);
	return f;
}

// unpack_codes restores the values of an integer format in the block of row r. They are rounded as those of its Go decoder.
static void unpack_codes(int64_t kind, const uint8_t *b, int r, float *out) {
	const int bits = wn_code_bits(kind), cols = (int)wn_block_cols(kind), offset = wn_offset(kind);
	const uint8_t *lines = b + wn_head_bytes(kind), *levels = wn_levels(kind);
	const float d = kind == WN_MXFP4 ? lane_bf16(b, r) : lane16(b, r);
	const float least = wn_has_least(kind) ? lane16(b + 32, r) : 0;
	for (int l = 0; l < cols; l++) {
		uint32_t c = get_code(lines + 64 * bits * (l / 32), bits, r, l % 32);
		float code = (float)((int)(levels ? levels[c] : c) - offset);
		const uint8_t *s = b + 64 + 32 * (l / 32) + r;
		switch (kind) {
		case WN_Q4_K:
		case WN_Q5_K: out[l] = d * (float)s[0] * code - least * (float)s[16]; break;
		case WN_Q6_K: out[l] = d * (float)(int8_t)b[32 + 16 * (l / 16) + r] * code; break;
		case WN_IQ4_XS: out[l] = d * (float)(int8_t)b[32 + 16 * (l / 32) + r] * code; break;
		case WN_Q4_1:
		case WN_Q5_1: out[l] = code * d + least; break;
		default: out[l] = code * d;
		}
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
	default: unpack_codes(kind, b, r, out);
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
