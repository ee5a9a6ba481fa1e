// A plan as those read it who do not attend: see entry.plan.
#ifndef WN_PLAN_H
#define WN_PLAN_H

#include "cpu.h"

typedef struct wn_plan {
	const int32_t *tile, *sink, *local, *block_at, *block_n, *blocks, *key_at, *key_n, *keys;
	int64_t groups, heads;
} wn_plan;

// wn_plan_of reads nine pointers and two numbers of a descriptor.
static inline wn_plan wn_plan_of(void *const *p, const int64_t *d) {
	return (wn_plan){.tile = p[0], .sink = p[1], .local = p[2], .block_at = p[3], .block_n = p[4], .blocks = p[5], .key_at = p[6],
		.key_n = p[7], .keys = p[8], .groups = d[0], .heads = d[1]};
}

// wn_row_of is the plan row of a batch row and query head.
static inline int64_t wn_row_of(const wn_plan *p, int64_t row, int64_t head) {
	return (p->tile ? p->tile[row] : row) * p->groups + head * p->groups / p->heads;
}

#endif
