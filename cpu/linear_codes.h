// Codes of a tile, as pack.h lays them out.

// plain says whether codes are nibbles that stand for themselves.
WN_INLINE int WN(plain)(const int kind) { return wn_code_bits(kind) == 4 && !wn_levels(kind); }

// line is columns 4*m to 4*m+3 of 32, a byte each, with the format's offset in them.
WN_INLINE v16i WN(line)(const int kind, const uint8_t *lines, const int m) {
	const int bits = wn_code_bits(kind);
	if (bits == 8) return v_int_load(lines + 64 * m);
	v16i codes = v_bits(v_int_load(lines + 64 * (m / 2)), m % 2 ? -4 : 0, 0x0f);
	if (bits == 5) codes = v_int_or(codes, v_bits(v_int_load(lines + 256), 4 - m, 0x10));
	if (bits == 6) codes = v_int_or(codes, v_bits(v_int_load(lines + 256 + 64 * (m / 4)), 4 - 2 * (m % 4), 0x30));
	return wn_levels(kind) ? v_lookup(wn_levels(kind), codes) : codes;
}

// times is by how much the products with codes of group g of a block of 256 columns count in its sum, and least what is added for each of the inputs.
WN_INLINE v16i WN(times)(const int kind, const uint8_t *w, int64_t g) {
	return kind == WN_Q4_K || kind == WN_Q5_K ? v_int_u8(w + 64 + 32 * g) : v_int_i8(w + 32 + 16 * g);
}
WN_INLINE v16f WN(least)(const uint8_t *w, v16f dmin, int64_t g) { return v_mul(dmin, v_load_u8(w + 80 + 32 * g)); }

// take_scales stores the scales of blocks of a tile, and the minimums, if any, of every 32 columns, from the start of a block on; blocks counts 32
// columns. Minimums have the sign with which they are added.
WN_INLINE void WN(take_scales)(const int kind, const uint8_t *w, int64_t blocks, float (*scale)[16], float (*least)[16]) {
	if (wn_block_cols(kind) == 32) {
		for (int64_t b = 0; b < blocks; b++, w += wn_block_bytes(kind)) {
			v_store(scale[b], kind == WN_MXFP4 ? v_load_bf16(w) : v_load_f16(w));
			if (wn_has_least(kind)) v_store(least[b], v_load_f16(w + 32));
		}
		return;
	}
	for (int64_t b = 0; b < blocks; b += 8, w += wn_block_bytes(kind)) {
		v_store(scale[b / 8], v_load_f16(w));
		v16f dmin = wn_has_least(kind) ? v_sub(v_zero(), v_load_f16(w + 32)) : v_zero();
		for (int g = 0; wn_has_least(kind) && g < 8; g++) v_store(least[b + g], WN(least)(w, dmin, g));
	}
}
