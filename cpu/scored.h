// What kernels take that score queries with keys and plan runs of tiles, see entry.groups.
#ifndef WN_SCORED_H
#define WN_SCORED_H

#include "runs.h"
#include "stored.h"

typedef struct wn_scored {
	const float *q; // rows x heads*dim
	const uint8_t *k; // the cache's keys
	const int32_t *pages, *seq;
	int64_t heads, kv, dim, columns, stride, size; // columns: of the page table; stride: numbers from page to page; size: positions of a run
	int kind, f16; // kind: how the cache stores numbers; f16: whether keys as plain_keys gives them are F16
	float scale;
} wn_scored;

enum { WN_SCORED_P = WN_TILES_P + 4, WN_SCORED_D = WN_TILES_D + 7 }; // pointers and numbers of a descriptor that they take; and two floats

static inline wn_scored wn_scored_of(const wn_op *op) {
	void *const *p = op->p + WN_TILES_P;
	const int64_t *d = op->d + WN_TILES_D;
	return (wn_scored){.q = p[0], .k = p[1], .pages = p[2], .seq = p[3], .heads = d[0], .kv = d[1], .dim = d[2], .columns = d[3],
		.stride = d[4], .kind = (int)d[5], .f16 = d[5] == WN_CACHE_F16, .size = d[6], .scale = op->f[1]};
}

// wn_keys is the tile of a page's keys in a head.
static inline const uint8_t *wn_keys(const wn_scored *s, int64_t seq, int64_t page, int64_t kv_head) {
	int64_t at = s->pages[seq * s->columns + page] * s->stride + kv_head * s->dim * WN_PAGE_KEYS;
	return s->k + wn_stored(s->kind, at);
}

// wn_query is a row's query in a head.
static inline const float *wn_query(const wn_scored *s, int64_t row, int64_t head) { return s->q + (row * s->heads + head) * s->dim; }

#endif
