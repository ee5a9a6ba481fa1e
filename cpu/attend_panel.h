// Panels: 64 keys and their values as floats, made of strips that lie in the cache or of keys gathered one by one. See attend_kernel.h.

// value_at is the first byte of 16 numbers of a value from dimension d on, see wn_shift_of.
WN_INLINE int64_t WN(value_at)(const wn_attend *a, int64_t d) {
	return wn_packed(a->kind) ? wn_byte_of(a->kind, d) : wn_row_bytes(a->kind, d);
}

// place_key is where 16 columns from column on of a panel of keys have their row d; place_value likewise for 16 dimensions of a value.
WN_INLINE float *WN(place_key)(const wn_attend *a, float *k, int64_t d, int64_t column) {
	return k + column / WN(COLUMNS) * WN(key_strip)(a) + d * WN(COLUMNS) + column % WN(COLUMNS);
}
WN_INLINE float *WN(place_value)(const wn_attend *a, float *v, int64_t j, int64_t d) {
	return v + d / WN(COLUMNS) * WN(value_strip)(a) + j * WN(COLUMNS) + d % WN(COLUMNS);
}

// strip_of_keys makes one strip of a panel of as many strips of keys as fill it.
static void WN(strip_of_keys)(const wn_attend *a, float *to, const wn_strip *strip) {
	int64_t dim = a->dim;
	for (int w = 0; w < WN(STRIP); w++) {
		const uint8_t *from = strip[w].k + strip[w].slot * a->row;
		if (a->kind == WN_CACHE_F16) {
#pragma GCC unroll 4
			for (int64_t d = 0; d < dim; d++) v_store(to + d * WN(COLUMNS) + 16 * w, v_load_f16(from + d * 2 * WN_STRIP_KEYS));
		} else {
			for (int64_t d = 0; d < dim; d++) v_store(to + d * WN(COLUMNS) + 16 * w, WN(tile16)(strip[w].k, a->kind, dim, d, strip[w].slot));
		}
	}
}

// panel_keys makes a panel of a page's strips of keys.
static void WN(panel_keys)(const wn_attend *a, float *k, const wn_strip *strip) {
	for (int64_t c = 0; c < WN_PAGE; c += WN(COLUMNS)) WN(strip_of_keys)(a, WN(place_key)(a, k, 0, c), strip + c / WN_STRIP_KEYS);
}

// value16 is 16 dimensions of a tile's value from d on, zeros after its last.
WN_INLINE v16f WN(value16)(const wn_attend *a, const uint8_t *tile, int64_t slot, int64_t d) {
	const uint8_t *from = tile + slot * a->row + WN(value_at)(a, d);
	if (!wn_packed(a->kind)) return WN(number_n)(from, a->kind == WN_CACHE_F16, wn_max(a->dim - d, 0));
	const uint8_t *scale = wn_scales(tile, a->kind, a->dim) + 2 * (slot * (a->dim / WN_SHARED) + d / WN_SHARED);
	return v_mul(WN(codes16)(from, a->kind, wn_shift_of(d)), v_set(v_one_f16(scale)));
}

// panel_value writes value j of a panel, that in a slot of a tile.
static void WN(panel_value)(const wn_attend *a, float *v, int64_t j, const uint8_t *tile, int64_t slot) {
	for (int64_t d = 0; d < a->padded; d += 16) v_store(WN(place_value)(a, v, j, d), WN(value16)(a, tile, slot, d));
}

// strip_of_values makes one strip of a panel of values lo to hi of strips, that from dimension d on.
static void WN(strip_of_values)(const wn_attend *a, float *to, const wn_strip *strip, int64_t d, const int64_t span[2]) {
	int plain = a->kind == WN_CACHE_F16 && a->dim % WN(COLUMNS) == 0;
	for (int64_t j = span[0], end; j < span[1]; j = end) {
		const wn_strip *s = &strip[j / WN_STRIP_KEYS];
		int64_t slot = s->slot + j % WN_STRIP_KEYS, row = a->row;
		end = wn_min(j / WN_STRIP_KEYS * WN_STRIP_KEYS + WN_STRIP_KEYS, span[1]);
		for (int w = 0; !plain && w < WN(COLUMNS); w += 16) {
			for (int64_t i = j; i < end; i++) v_store(to + i * WN(COLUMNS) + w, WN(value16)(a, s->v, slot + i - j, d + w));
		}
		const uint8_t *from = s->v + slot * row + 2 * d;
#pragma GCC unroll 4
		for (int64_t i = j; plain && i < end; i++, from += row) {
			for (int w = 0; w < WN(COLUMNS); w += 16) v_store(to + i * WN(COLUMNS) + w, v_load_f16(from + 2 * w));
		}
	}
}

// gather_packed copies keys of one strip to their places in a packed tile.
static void WN(gather_packed)(const wn_attend *a, uint8_t *to, const uint8_t *tile, const int32_t *key, int64_t from, int64_t end) {
	const uint8_t *scale = wn_scales(tile, a->kind, a->dim);
	uint8_t *scales = to + a->row * WN_PAGE;
	for (int64_t j = from; j < end; j++) {
		const uint8_t *of = tile + wn_key_at(a->row, key[j] % WN_PAGE);
		for (int64_t d = 0; d < a->row; d++) to[wn_key_at(a->row, j) + d * WN_STRIP_KEYS] = of[d * WN_STRIP_KEYS];
	}
	for (int64_t b = 0; b < a->dim / WN_SHARED; b++)
		for (int64_t j = from; j < end; j++) memcpy(scales + 2 * (b * WN_PAGE + j), scale + 2 * (b * WN_PAGE + key[j] % WN_PAGE), 2);
}

// gather_f16 copies keys i to end of a segment, which lie in one strip, to their places in a tile of binary16 numbers. What is at next is
// asked for meanwhile, where there is something.
static void WN(gather_f16)(uint16_t *raw, const uint8_t *strip, const int32_t *key, const int64_t span[3], const uint8_t *next) {
	int64_t dim = span[2];
	for (int64_t d = 0; next && d < dim; d += 2) __builtin_prefetch(next + 2 * WN_STRIP_KEYS * d);
	for (int64_t j = span[0]; j < span[1]; j++) {
		const uint8_t *from = strip + key[j] % WN_STRIP_KEYS * 2;
		uint16_t *to = raw + wn_key_at(dim, j);
#pragma GCC unroll 8
		for (int64_t d = 0; d < dim; d++) memcpy(to + d * WN_STRIP_KEYS, from + 2 * d * WN_STRIP_KEYS, 2);
	}
}

// gather makes panels of single keys and of their values, strip after strip. The next strip is asked for meanwhile, as are the values.
static void WN(gather)(const wn_attend *a, WN(bench) *b, const wn_list *l, const wn_segment *s) {
	const uint8_t *tile, *values, *after = NULL;
	for (int64_t i = 0, end; i < s->hi; i = end) {
		int64_t strip = s->key[i] / WN_STRIP_KEYS, at = wn_stored(a->kind, wn_tile_of(a, l, s->key[i] / WN_PAGE));
		tile = a->k + at, values = a->v + at;
		for (end = i + 1; end < s->hi && s->key[end] / WN_STRIP_KEYS == strip;) end++;
		for (int64_t j = i; j < end; j++) WN(fetch)(values + s->key[j] % WN_PAGE * a->row, a->row, 0);
		const uint8_t *keys = tile + strip * WN_STRIP_KEYS % WN_PAGE * a->row;
		if (wn_packed(a->kind)) {
			WN(gather_packed)(a, (uint8_t *)b->raw, tile, s->key, i, end);
		} else if (a->kind == WN_CACHE_F16) {
			if (end < s->hi) {
				after = a->k + wn_stored(a->kind, wn_tile_of(a, l, s->key[end] / WN_PAGE) + s->key[end] % WN_PAGE / WN_STRIP_KEYS * WN_STRIP_KEYS * a->dim);
			} else {
				after = NULL;
			}
			WN(gather_f16)(b->raw, keys, s->key, (int64_t[]){i, end, a->dim}, after);
		} else {
			for (int64_t d = 0; d < a->dim; d++)
				for (int64_t j = i; j < end; j++) memcpy(WN(place_key)(a, b->k, d, j), keys + (d * WN_STRIP_KEYS + s->key[j] % WN_STRIP_KEYS) * 4, 4);
		}
		for (int64_t j = i; j < end; j++) WN(panel_value)(a, b->v, j, values, s->key[j] % WN_PAGE);
	}
	wn_strip strip[WN_STRIPS];
	for (int64_t u = 0; u < WN_STRIPS; u++) strip[u] = (wn_strip){(const uint8_t *)b->raw, NULL, u * WN_STRIP_KEYS};
	if (a->kind != WN_CACHE_F32) WN(panel_keys)(a, b->k, strip);
}

// unpack makes panels of pruned tiles.
static void WN(unpack)(const wn_attend *a, float *to_k, float *to_v, const uint8_t *k, const uint8_t *v) {
	const uint8_t *bits = k + 2 * WN_PAGE * a->keep;
	for (int64_t d = 0; d < a->dim; d++) {
		for (int64_t j = 0; j < WN_PAGE; j += 16, bits += 2) {
			unsigned mask = bits[0] | (unsigned)bits[1] << 8;
			v_store(WN(place_key)(a, to_k, d, j), v_load_kept(k, mask));
			k += 2 * __builtin_popcount(mask);
		}
	}
	bits = v + 2 * WN_PAGE * a->keep;
	for (int64_t j = 0; j < WN_PAGE; j++) {
		for (int64_t d = 0; d < a->dim; d += 16, bits += 2) {
			unsigned mask = bits[0] | (unsigned)bits[1] << 8;
			v_store(WN(place_value)(a, to_v, j, d), v_load_kept(v, mask));
			v += 2 * __builtin_popcount(mask);
		}
	}
}

// gather_own is gather where pages are pruned, but for the row's own: a page of which keys are read is unpacked as a whole.
static void WN(gather_own)(const wn_attend *a, WN(bench) *b, const wn_list *l, const wn_segment *s) {
	float *k = b->whole_k, *v = b->whole_v;
	for (int64_t i = 0, page = -1; i < s->hi; i++) {
		if (s->key[i] / WN_PAGE != page) {
			page = s->key[i] / WN_PAGE;
			if (wn_is_pruned(l, page)) {
				int64_t at = wn_pruned_of(a, l, page);
				WN(unpack)(a, k, v, a->pruned_k + at, a->pruned_v + at);
			} else {
				int64_t at = wn_stored(a->kind, wn_tile_of(a, l, page));
				wn_strip strip[WN_STRIPS];
				for (int64_t u = 0; u < WN_STRIPS; u++) strip[u] = (wn_strip){a->k + at, a->v + at, u * WN_STRIP_KEYS};
				WN(panel_keys)(a, k, strip);
				for (int64_t j = 0; j < WN_PAGE; j++) WN(panel_value)(a, v, j, a->v + at, j);
			}
		}
		int64_t slot = s->key[i] % WN_PAGE;
		for (int64_t d = 0; d < a->dim; d++) *WN(place_key)(a, b->k, d, i) = *WN(place_key)(a, k, d, slot);
		for (int64_t d = 0; d < a->dim; d++) *WN(place_value)(a, b->v, i, d) = *WN(place_value)(a, v, slot, d);
	}
}
