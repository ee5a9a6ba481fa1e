// Inputs as words of 16 bits, which meet codes two products a lane: in all formats, or under WN_BYTES only in those with blocks of 256 columns.

// words is two neighbouring words in every lane.
WN_INLINE v16i WN(words)(const int16_t *q) {
	int32_t w;
	memcpy(&w, q, 4);
	return v_int_set(w);
}

// word_nibbles multiplies 32 columns of 4-bit codes with R rows of x.
WN_INLINE void WN(word_nibbles)(const int R, const uint8_t *lines, const wn_rounded *const *x, int64_t b, v16i *sum) {
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

// word_codes multiplies count lines of 4 columns of 32 with R rows of x, from line first.
WN_INLINE void WN(word_codes)(const int kind, const int R, const int count, const uint8_t *lines, const wn_rounded *const *x, int64_t b,
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

// sum_group multiplies group g of 32 columns of a format with blocks of 256 with R rows of x.
WN_INLINE void WN(sum_group)(const int kind, const int R, const uint8_t *lines, const wn_rounded *const *x, int64_t b, const int g, v16i *sum) {
	const int count = wn_group_cols(kind) / 4;
	if (WN(plain)(kind)) {
		WN(word_nibbles)(R, lines, x, b, sum);
	} else {
		WN(word_codes)(kind, R, count, lines, x, b, count * g, sum);
	}
}

#ifdef WN_MANY
// dot_words adds the products of a line of each of WN_MANY_TILES tiles, next bytes apart, with words 2*at and on of R rows.
WN_INLINE void WN(dot_words)(const int R, const uint8_t *line, int64_t next, const wn_rounded *const *x, int64_t b, const int at, v16i *sum) {
	v16i of[WN_MANY_TILES];
#pragma GCC unroll 2
	for (int t = 0; t < WN_MANY_TILES; t++) of[t] = v_int_load(line + t * next);
#pragma GCC unroll 8
	for (int r = 0; r < R; r++) {
		v16i in = WN(words)(x[r][b].q + 2 * at);
#pragma GCC unroll 2
		for (int t = 0; t < WN_MANY_TILES; t++) sum[t * R + r] = v_dot(sum[t * R + r], of[t], in);
	}
}

// word_lines takes 32 columns apart into 16 lines of 2 columns, as words. Of formats with blocks of 256 they are what the codes stand for, times the
// scales of their groups, whose first is at times.
WN_INLINE void WN(word_lines)(const int kind, const uint8_t *from, const v16i *times, uint8_t (*to)[64]) {
	const v16i offset = v_int_set(wn_offset(kind) * 0x00010001);
#pragma GCC unroll 8
	for (int m = 0; m < 8; m++) {
		v16i line = WN(line)(kind, from, m), half[2] = {v_codes8(line, 0), v_codes8(line, 8)};
#pragma GCC unroll 2
		for (int h = 0; h < 2; h++) {
			if (wn_span(kind) == 256) {
				if (wn_offset(kind)) half[h] = v_words_sub(half[h], offset);
				half[h] = v_words_mul(half[h], times[4 * m / wn_group_cols(kind)]);
			}
			memcpy(to[2 * m + h], &half[h], 64);
		}
	}
}
#endif

#ifndef WN_BYTES
// take stores a block of rounded inputs, and sums each half.
WN_INLINE void WN(take)(wn_rounded *x, int64_t span, v16i first, v16i second, int32_t *sum) {
	(void)span;
	v_store_i16(x->q, first), v_store_i16(x->q + 16, second);
	sum[0] = sum[1] = 0;
	for (int i = 0; i < 16; i++) sum[0] += x->q[i], sum[1] += x->q[i + 16];
}

// sums32 multiplies 32 columns with R rows of x.
WN_INLINE void WN(sums32)(const int kind, const int R, const uint8_t *lines, const wn_rounded *const *x, int64_t b, v16i *sum) {
	if (WN(plain)(kind)) {
		WN(word_nibbles)(R, lines, x, b, sum);
	} else {
		WN(word_codes)(kind, R, 8, lines, x, b, 0, sum);
	}
}

#ifdef WN_MANY
// lines_of takes 32 columns apart into lines as sum_lines reads them.
WN_INLINE void WN(lines_of)(const int kind, const uint8_t *from, uint8_t (*to)[64]) { WN(word_lines)(kind, from, NULL, to); }

// sum_lines multiplies 32 columns, of which the lines are given, with block b of R rows of x, less the format's offset.
WN_INLINE void WN(sum_lines)(const int R, const int kind, const uint8_t (*lines)[64], int64_t next, const wn_rounded *const *x, int64_t b, v16i *sum) {
	for (int r = 0; r < R; r++) sum[r] = v_int_zero();
#pragma GCC unroll 16
	for (int i = 0; i < 16; i++) WN(dot_words)(R, lines[i], next, x, b, i, sum);
	for (int r = 0; r < R; r++) sum[r] = WN(take_off)(kind, sum[r], x[r] + b);
}
#endif
#endif
