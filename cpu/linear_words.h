// Inputs as words of 16 bits, which meet codes two products a lane.

// take stores a block of rounded inputs, and sums each half.
WN_INLINE void WN(take)(wn_rounded *x, v16i first, v16i second, int32_t *sum) {
	v_store_i16(x->q, first), v_store_i16(x->q + 16, second);
	sum[0] = sum[1] = 0;
	for (int i = 0; i < 16; i++) sum[0] += x->q[i], sum[1] += x->q[i + 16];
}

// words is two neighbouring words in every lane.
WN_INLINE v16i WN(words)(const int16_t *q) {
	int32_t w;
	memcpy(&w, q, 4);
	return v_int_set(w);
}

// nibbles multiplies 32 columns of 4-bit codes with R rows of x.
WN_INLINE void WN(nibbles)(const int R, const uint8_t *lines, const wn_rounded *const *x, int64_t b, v16i *sum) {
	for (int r = 0; r < R; r++) sum[r] = v_int_zero();
#pragma GCC unroll 4
	for (int i = 0; i < 4; i++) {
		v16i line = v_int_load(lines + 64 * i);
#pragma GCC unroll 4
		for (int k = 0; k < 4; k++) { // columns 0 and 2 of the line, 1 and 3, 4 and 6, 5 and 7
			v16i codes = v_codes4(line, k / 2 * 4 + k % 2 * 8);
#pragma GCC unroll 8
			for (int r = 0; r < R; r++) sum[r] = v_dot(sum[r], codes, WN(words)(x[r][b].q + 8 * i + 2 * k));
		}
	}
}

// codes multiplies count lines of 4 columns of 32 with R rows of x, from line first.
WN_INLINE void WN(codes)(const int kind, const int R, const int count, const uint8_t *lines, const wn_rounded *const *x, int64_t b,
	const int first, v16i *sum) {
	for (int r = 0; r < R; r++) sum[r] = v_int_zero();
#pragma GCC unroll 8
	for (int i = 0; i < count; i++) {
		v16i line = WN(line)(kind, lines, first + i), even = v_codes8(line, 0), odd = v_codes8(line, 8);
#pragma GCC unroll 8
		for (int r = 0; r < R; r++) {
			const int16_t *q = x[r][b].q + 4 * (first + i);
			sum[r] = v_dot(v_dot(sum[r], even, WN(words)(q)), odd, WN(words)(q + 2));
		}
	}
}

// lines_of takes 32 columns apart into 16 lines as sum_lines reads them: words of 2 columns.
WN_INLINE void WN(lines_of)(const int kind, const uint8_t *from, uint8_t (*to)[64]) {
#pragma GCC unroll 8
	for (int m = 0; m < 8; m++) {
		v16i line = WN(line)(kind, from, m), even = v_codes8(line, 0), odd = v_codes8(line, 8);
		memcpy(to[2 * m], &even, 64), memcpy(to[2 * m + 1], &odd, 64);
	}
}

// sum_lines multiplies group g of 32 columns, of which the lines of a tile are given, with block b of R rows of x, less the format's offset.
WN_INLINE void WN(sum_lines)(const int R, const int kind, const uint8_t (*lines)[64], int64_t next, const int g, const wn_rounded *const *x,
	int64_t b, v16i *sum) {
	const int count = wn_group_cols(kind) / 2, first = g * count;
	(void)next;
	for (int r = 0; r < R; r++) sum[r] = v_int_zero();
#pragma GCC unroll 16
	for (int i = first; i < first + count; i++) {
		v16i line = v_int_load(lines[i]);
#pragma GCC unroll 8
		for (int r = 0; r < R; r++) sum[r] = v_dot(sum[r], line, WN(words)(x[r][b].q + 2 * i));
	}
	for (int r = 0; r < R; r++) sum[r] = WN(take_group_off)(kind, sum[r], x[r] + b, g);
}
