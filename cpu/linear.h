// The product of rows and packed weights, which Linear, the experts and the router share.
#ifndef WN_LINEAR_H
#define WN_LINEAR_H

#include "pack.h"

// 32 inputs rounded to 16 bits, as words or as bytes: what kernels of integer formats read. The last numbers take back
// what the codes' offsets add. 8 bits would halve the work over many rows, but their error flips near ties among tokens and experts; one
// row is bound by memory either way.
typedef struct wn_q16 {
	union {
		int16_t q[32]; // x = d * q; every four in the order 0, 2, 1, 3, as v_store_i16 stores them
		struct {
			int8_t high[32]; // or q = 256 * high + low, in order
			uint8_t low[32];
		};
	};
	float d, ds; // ds = d * sum of q
	int32_t by8, by128; // 8 and 128 times the sum of q
	int32_t by32[2]; // 32 times the sum of each half
	int32_t lift[2]; // 128 * 256 times the sum of each half's high
} wn_q16;

// A product y[r][j - base] = x[r] . row j of w, plus bias[j]. Rows of x are wn_q16 where the format is of integers (wn_rounds), else
// floats.
typedef struct wn_product {
	const wn_weights *w;
	const void *const *x; // rows pointers
	float *const *y; // rows pointers
	int64_t rows, base;
	const float *bias; // NULL = none
} wn_product;

static inline int wn_rounds(int64_t kind) { return kind >= WN_Q4_0; }

// wn_multiply computes outputs lo to hi, hi excluded, on the calling thread. Each sum depends on its row of x and its row of w alone.
typedef void wn_multiply(const wn_product *p, int64_t lo, int64_t hi);

// wn_round rounds count floats, a multiple of 32.
typedef void wn_round(const float *x, int64_t count, wn_q16 *out);

#define WN_DECLARE(variant) \
	wn_multiply wn_multiply_##variant; \
	wn_round wn_round_##variant;
WN_VARIANTS(WN_DECLARE)
#undef WN_DECLARE

// wn_grain is how many tiles an item takes so that it lasts long enough to be worth a claim and the items still spread over the
// threads; total counts the tiles of all the items.
static inline int64_t wn_grain(const wn_weights *w, int64_t rows, int64_t total, int threads) {
	int64_t bytes = wn_tile_bytes(w) / 10, products = 16 * w->cols * rows / (wn_rounds(w->kind) ? 100 : 25); // ns
	int64_t tile = wn_max(wn_max(bytes, products), 1);
	int64_t target = wn_min(wn_max(total * tile / (6 * threads), 2000), 100000);
	return wn_max(1, target / tile);
}

#endif
