// Whole runs of tiles, and room for each thread while it plans one: see attention.Groups.
#ifndef WN_GROUPS_H
#define WN_GROUPS_H

#include "scored.h"

enum { WN_STRIP = 16 }; // queries whose scores with all keys are kept at a time

typedef struct wn_groups {
	wn_tiles tiles;
	wn_scored s;
	wn_run_of_tiles *list; // the whole ones
	int64_t count, longest; // longest: keys that the last query of a group sees, at most
	float *work; // of work_floats for each thread
	float *plain; // of each thread: room for a tile of packed keys
	int64_t work_floats;
} wn_groups;

static inline int64_t wn_end(const wn_run_of_tiles *g) { return g->pos + g->rows; }

// wn_groups_of unpacks a descriptor, lists the whole groups, and has all tiles that are served read everything for now. There are no groups
// when memory is short.
static inline wn_groups wn_groups_of(wn_ctx *ctx, const wn_op *op) {
	wn_groups o = {.tiles = wn_tiles_of(ctx, op), .s = wn_scored_of(op)};
	const wn_tiles *t = &o.tiles;
	o.list = wn_scratch(ctx, (t->n + 1) * sizeof *o.list);
	if (!o.list) return o;
	wn_run_of_tiles r;
	for (int64_t i = 0; (i = wn_next_run(t, o.s.seq, i, o.s.size, &r));) {
		for (int64_t p = r.tile * t->groups; p < (r.tile + r.tiles) * t->groups; p++) wn_plan_row(t, p, 0, 0);
		if (r.rows < o.s.size) continue;
		o.list[o.count++] = r;
		o.longest = wn_max(o.longest, wn_end(&r));
	}
	return o;
}

#endif
