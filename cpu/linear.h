// The product of rows and packed weights, which Linear, the experts and the router share.
#ifndef WN_LINEAR_H
#define WN_LINEAR_H

#include "pack.h"

// 32 inputs rounded to 12 bits, as words or as bytes: what kernels of integer formats read. Formats with blocks of 256 columns read words where
// the variant has a choice, and their inputs have one d for all of the 256. The last numbers take back what the codes' offsets add.
typedef struct wn_rounded {
	_Alignas(32) union {
		int16_t q[32]; // x = d * q; every four in the order 0, 2, 1, 3, as v_store_i16 stores them
		struct {
			int8_t high[32], low[32]; // or q = 16 * high + low, in order; -8 <= low < 8
		};
	};
	float d, ds; // ds = d * sum of q
	int32_t less8, by16, by128; // -8, 16 and 128 times the sum of q
	int32_t less2[2]; // -2 times the sum of each half
} wn_rounded;

enum { WN_MOST = 16 * 127 + 7 }; // the largest q

// A product y[r][j - base] = x[r] . row j of w, plus bias[j]. Rows of x are wn_rounded where the format is of integers (wn_rounds), else
// floats.
typedef struct wn_product {
	const wn_weights *w;
	const void *const *x; // rows pointers
	float *const *y; // rows pointers
	int64_t rows, base;
	const float *bias; // NULL = none
	void *room; // wn_room bytes for this worker; NULL where the format is not of integers
	const void *panels; // the rows, for those who read them in panels: linear_amx.h; NULL = in x
	int again; // these are the rows of the product before with this room
} wn_product;

static inline int wn_rounds(int64_t kind) { return kind >= WN_Q4_0; }

// wn_span is how many inputs are rounded together for a format: 32 or 256, or 0 where they are not rounded.
static inline int64_t wn_span(int64_t kind) { return wn_rounds(kind) ? wn_block_cols(kind) : 0; }

// wn_multiply computes outputs lo to hi, hi excluded, on the calling thread. Each sum depends on its row of x and its row of w alone.
typedef void wn_multiply(const wn_product *p, int64_t lo, int64_t hi);

// A gated product: y[r][j - base] = silu(x[r] . row j of gate) * (x[r] . row j of up).
typedef struct wn_gated {
	wn_product gate;
	const wn_weights *up;
	const void *const *x; // the rows as up reads them
	float *const *through; // rows pointers: where products with up may be put meanwhile
	wn_rounded *const *rounded; // rows pointers: y rounded; NULL = not wanted
	int64_t span; // how: the outputs of a call are whole spans then
} wn_gated;

// wn_multiply_gated is wn_multiply for a gated product.
typedef void wn_multiply_gated(const wn_gated *g, int64_t lo, int64_t hi);

// wn_round rounds count floats, a multiple of the span.
typedef void wn_round(const float *x, int64_t count, int64_t span, wn_rounded *out);

// wn_room is how many bytes wn_multiply needs beside its operands.
typedef int64_t wn_room(int64_t cols);

// wn_rate is how many products of a weight and an input a thread makes in a ns where memory does not hold it up: an estimate.
typedef int64_t wn_rate(int64_t kind, int64_t rows);

#define WN_DECLARE(variant) \
	wn_multiply wn_multiply_##variant; \
	wn_multiply_gated wn_multiply_gated_##variant; \
	wn_round wn_round_##variant; \
	wn_room wn_room_##variant; \
	wn_rate wn_rate_##variant;
WN_VARIANTS(WN_DECLARE)
#undef WN_DECLARE

// wn_grain is how many tiles an item takes so that it lasts long enough to be worth a claim and the items still spread over the
// threads; total counts the tiles of all the items.
static inline int64_t wn_grain(const wn_weights *w, int64_t rate, int64_t rows, int64_t total, int threads) {
	int64_t bytes = wn_tile_bytes(w) / 10, products = 16 * w->cols * rows / rate; // ns
	int64_t tile = wn_max(wn_max(bytes, products), 1);
	int64_t most = rows >= 64 ? 1000000 : rate >= 200 ? 400000 : 100000; // an item reads all rows anew, from far where they are many
	int64_t target = wn_min(wn_max(total * tile / (6 * threads), 2000), most);
	int64_t grain = wn_max(1, target / tile);
	return rows < 8 ? grain : (grain + 1) / 2 * 2; // many rows meet two tiles at a time
}

#endif
