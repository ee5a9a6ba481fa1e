// Products with floats: of F32, F16 and BF16, each widened as it is read.

// column adds column k, of bytes at w, of T tiles to T*R sums.
WN_INLINE void WN(column)(const int R, const int T, const v16f *w, const float *const *x, int64_t k, v16f *acc) {
#pragma GCC unroll 8
	for (int r = 0; r < R; r++) {
		v16f v = v_set(x[r][k]);
#pragma GCC unroll 4
		for (int t = 0; t < T; t++) acc[t * R + r] = v_fma(w[t], v, acc[t * R + r]);
	}
}

// tile_float multiplies T neighbouring tiles of floats with R rows of x. Sums are taken over 512 columns, then over those: rounding
// grows with the square root of the length only.
WN_INLINE void WN(tile_float)(const int kind, const int R, const int T, const wn_product *p, const uint8_t *w, int64_t row, v16f *acc) {
	const float *x[8];
	const int64_t cols = p->w->cols, next = wn_tile_bytes(p->w), bytes = wn_block_bytes(kind);
	for (int r = 0; r < R; r++) x[r] = p->x[row + r];
	for (int i = 0; i < T * R; i++) acc[i] = v_zero();
	for (int64_t from = 0; from < cols; from += 512) {
		v16f part[8], v[4];
		int64_t to = wn_min(from + 512, cols), k = from;
		for (int i = 0; i < T * R; i++) part[i] = v_zero();
		if (kind == WN_BF16) {
			for (; k + 1 < to; k += 2, w += bytes) {
				v16f odd[4];
				for (int t = 0; t < T; t++) {
					v16i both = v_int_load(w + t * next);
					v[t] = v_even_bf16(both), odd[t] = v_odd_bf16(both);
				}
				WN(column)(R, T, v, x, k, part);
				WN(column)(R, T, odd, x, k + 1, part);
			}
			if (k < to) {
				for (int t = 0; t < T; t++) v[t] = v_even_bf16(v_int_load(w + t * next));
				WN(column)(R, T, v, x, k, part);
			}
		} else {
			for (; k < to; k++, w += bytes) {
				for (int t = 0; t < T; t++) v[t] = kind == WN_F32 ? v_load((const float *)(w + t * next)) : v_load_f16(w + t * next);
				WN(column)(R, T, v, x, k, part);
			}
		}
		for (int i = 0; i < T * R; i++) acc[i] = v_add(acc[i], part[i]);
	}
}
