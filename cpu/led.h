// Runs of which the first of a group of positions is asked for the others, see attention.Groups.led: in a head in which it would leave away less
// than a tenth, they read everything, and nobody scores their keys.
#ifndef WN_LED_H
#define WN_LED_H

#include "runs.h"
#include "scored.h"

typedef struct wn_led {
	wn_run_of_tiles *runs;
	int64_t count, leads, heads; // leads: runs that are asked for their groups
	int64_t *order; // of runs: those that are asked for their groups first, and later ones before earlier ones, since they score more keys
	int64_t *asked; // of a run: the one that is asked for it, or less than 0
	uint8_t *whole; // of a run and head: whether it would leave away less than a tenth
} wn_led;

// wn_led_whole says whether the run that is asked for a run would leave away next to nothing in a head.
static inline int wn_led_whole(const wn_led *l, int64_t run, int64_t head) { return l->asked[run] >= 0 && l->whole[l->asked[run] * l->heads + head]; }

// wn_led_reads notes how many of the keys before a run it reads in a head.
static inline void wn_led_reads(const wn_led *l, int64_t run, int64_t head, int64_t keys) {
	l->whole[run * l->heads + head] = 10 * keys >= 9 * l->runs[run].pos;
}

static inline void wn_led_sort(wn_led *l, int64_t size, int64_t group) {
	int64_t n = 0;
	for (int leads = 1; leads >= 0; leads--) {
		for (int64_t i = l->count - 1; i >= 0; i--) {
			const wn_run_of_tiles *r = &l->runs[i];
			if ((r->rows == size && r->pos % group == 0) != leads) continue;
			l->asked[i] = -1;
			l->order[n++] = i;
			for (int64_t j = 0; !leads && j < l->leads; j++) {
				const wn_run_of_tiles *lead = &l->runs[l->order[j]];
				if (lead->seq == r->seq && lead->pos / group == r->pos / group) l->asked[i] = l->order[j];
			}
		}
		if (leads) l->leads = n;
	}
}

// wn_led_of finds the runs of tiles. Says whether there was memory.
static inline int wn_led_of(wn_ctx *ctx, wn_led *l, const wn_tiles *t, const wn_scored *s, int64_t group) {
	*l = (wn_led){.heads = s->heads};
	l->runs = wn_scratch(ctx, (t->n + 1) * sizeof *l->runs);
	l->order = wn_scratch(ctx, (t->n + 1) * sizeof *l->order);
	l->asked = wn_scratch(ctx, (t->n + 1) * sizeof *l->asked);
	l->whole = wn_scratch(ctx, (t->n + 1) * s->heads);
	if (!l->runs || !l->order || !l->asked || !l->whole) return 0;
	for (int64_t i = 0; (i = wn_next_run(t, s->seq, i, s->size, &l->runs[l->count]));) l->count++;
	wn_led_sort(l, s->size, group);
	return 1;
}

// What is planned at a time: runs of the order from first on, under each key-value head.
typedef struct wn_led_turn {
	const void *of;
	int64_t first;
} wn_led_turn;

#endif
