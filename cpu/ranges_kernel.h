// SelectRanges: what tiles take; then p = whole; d = sink. f = recent.

#include "tiles.h"

void WN(wn_select_ranges)(wn_ctx *ctx, const wn_op *op) {
	wn_tiles t = wn_tiles_of(ctx, op);
	const int32_t *whole = op->p[WN_TILES_P];
	for (int64_t i = 0; i < t.n; i++) {
		if (t.policy[i] != t.serves) continue;
		int64_t recent = ((int64_t)wn_knob(&t, i) + WN_PAGE_KEYS - 1) / WN_PAGE_KEYS * WN_PAGE_KEYS;
		int64_t local = wn_max(0, t.pos[t.first[i]] / WN_PAGE_KEYS * WN_PAGE_KEYS - recent);
		for (int64_t g = 0; g < t.groups; g++) {
			if (whole && whole[g]) {
				wn_plan_row(&t, i * t.groups + g, 0, 0);
			} else {
				wn_plan_row(&t, i * t.groups + g, wn_min(op->d[WN_TILES_D], local), local);
			}
		}
	}
}
