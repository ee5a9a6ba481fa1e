// Sample: p = logits, params, draws, start, edits, biases, ids, best, probs, n; d = rows, vocabulary, columns of best, columns of probs.
//
// Steps and sums are those of the Reference, operation by operation, so that the ids are the same. What passes over a whole row is cut among the
// threads: the largest logit of each block, sums of weights by pieces. What is left is short and one item a row: a pass that skips the blocks below the
// worst candidate, and steps over candidates.

// A row while it is worked on.
typedef struct WN(sampled) {
	const float *raw, *logits; // logits: after penalties and biases
	float *edited; // where those go, NULL where there are none
	const float *params;
	const int32_t *draws, *edits;
	const float *biases;
	int64_t edit_count;
	float *tops, *raw_tops; // the largest logit of each block
	double *weights, *moments, *raw_weights; // of each piece
	float top, raw_top;
	double inverse;
	int greedy, sums, reports;
} WN(sampled);

typedef struct WN(sample_job) {
	WN(sampled) *rows;
	int64_t count, vocab, pieces, blocks, spans, best_columns, probs_columns, capacity;
	wn_pick *picks; // capacity for each thread, or for each row where those are fewer
	int by_row;
	int32_t *ids, *best;
	float *probs;
} WN(sample_job);

// Vectors of doubles, one register of the variant; those of vec.h are of floats.
#undef WN_DOUBLES
#ifndef __x86_64__
#define WN_DOUBLES 2
#elif defined(__AVX512F__)
#define WN_DOUBLES 8
#else
#define WN_DOUBLES 4
#endif
typedef double WN(doubles) __attribute__((vector_size(8 * WN_DOUBLES)));
typedef int64_t WN(longs) __attribute__((vector_size(8 * WN_DOUBLES)));
typedef float WN(halves) __attribute__((vector_size(4 * WN_DOUBLES)));

typedef union WN(lanes) {
	WN(doubles) in[WN_LANES / WN_DOUBLES];
	double of[WN_LANES]; // by id
} WN(lanes);

// weigh gives weights and scaled logits of 16 ids.
WN_INLINE void WN(weigh)(const float *v, float top, double inverse, WN(lanes) *weight, WN(lanes) *scaled) {
	const double shift = 0x1.8p52, powers[] = {1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2, 1.0, 1.0};
	const WN(doubles) faintest = (WN(doubles)){0} + WN_FAINTEST;
#pragma GCC unroll 8
	for (int i = 0; i < WN_LANES / WN_DOUBLES; i++) {
		WN(halves) logits;
		memcpy(&logits, v + i * WN_DOUBLES, sizeof logits);
		WN(doubles) x = __builtin_convertvector(logits - top, WN(doubles)) * inverse;
		WN(longs) counts = x >= faintest; // all bits of those that have a weight
		x = (WN(doubles))(((WN(longs))x & counts) | ((WN(longs))faintest & ~counts));
		WN(doubles) t = x * 1.44269504088896340736 + shift, n = t - shift;
		WN(doubles) y = x - n * 0x1.62e42feep-1;
		y = y - n * 0x1.a39ef35793c76p-33;
		WN(doubles) p = (WN(doubles)){0} + 1.0 / 362880;
#pragma GCC unroll 9
		for (int k = 0; k < 9; k++) p = p * y + powers[k];
		weight->in[i] = (WN(doubles))(((WN(longs))p + ((WN(longs))t << 52)) & counts);
		scaled->in[i] = x;
	}
}

// weigh_n is weigh for the first n ids; the others have no weight.
WN_INLINE void WN(weigh_n)(const float *v, int64_t n, float top, double inverse, WN(lanes) *weight, WN(lanes) *scaled) {
	if (n >= WN_LANES) {
		WN(weigh)(v, top, inverse, weight, scaled);
		return;
	}
	float padded[WN_LANES];
	for (int64_t i = 0; i < WN_LANES; i++) padded[i] = i < n ? v[i] : -INFINITY;
	WN(weigh)(padded, top, inverse, weight, scaled);
}

static double WN(folded)(double *v) {
	for (int half = WN_LANES / 2; half; half /= 2)
		for (int i = 0; i < half; i++) v[i] += v[i + half];
	return v[0];
}

// sums gives a piece's sum of weights, and that of weights times scaled logits.
static void WN(sums)(const float *v, int64_t n, float top, double inverse, double *weights, double *moments) {
	WN(lanes) w, m, weight, scaled;
	memset(&w, 0, sizeof w), memset(&m, 0, sizeof m);
	for (int64_t i = 0; i < n; i += WN_LANES) {
		WN(weigh_n)(v + i, n - i, top, inverse, &weight, &scaled);
#pragma GCC unroll 8
		for (int l = 0; l < WN_LANES / WN_DOUBLES; l++) w.in[l] += weight.in[l], m.in[l] += weight.in[l] * scaled.in[l];
	}
	*weights = WN(folded)(w.of), *moments = WN(folded)(m.of);
}

// largest is the largest number, -INFINITY where there is none.
static float WN(largest)(const float *v, int64_t n) {
	v16f a = v_set(-INFINITY), b = a, c = a, d = a;
	int64_t i = 0;
	for (; i + 64 <= n; i += 64) {
		a = v_max(v_load(v + i), a), b = v_max(v_load(v + i + 16), b);
		c = v_max(v_load(v + i + 32), c), d = v_max(v_load(v + i + 48), d);
	}
	float most = v_most(v_max(v_max(a, b), v_max(c, d)));
	for (; i < n; i++) most = v[i] > most ? v[i] : most;
	return most;
}

enum { WN(SKIP) = 64 }; // ids that are passed over at a time

// reaches says whether one of the next ids has at least a logit.
WN_INLINE int WN(reaches)(const float *v, float least) {
	int any = 0;
	for (int i = 0; i < WN(SKIP); i++) any |= v[i] >= least;
	return any;
}

// first is the first id that has the largest logit; 0 where none is a number.
static int32_t WN(first)(const float *v, int64_t vocab, const float *tops, float top) {
	int64_t i = 0;
	while (i + WN_BLOCK < vocab && tops[i / WN_BLOCK] != top) i += WN_BLOCK;
	while (i + WN(SKIP) <= vocab && !WN(reaches)(v + i, top)) i += WN(SKIP);
	for (; i < vocab; i++)
		if (v[i] == top) return (int32_t)i;
	return 0;
}

static float WN(rank)(float logit) { return logit == logit ? -logit : INFINITY; }

// collect puts an id into a heap of the k likeliest, of which there are n.
WN_INLINE int64_t WN(collect)(wn_pick *best, int64_t n, int64_t k, wn_pick id) {
	if (n < k) {
		best[n++] = id;
		if (n == k) wn_heapify(best, k, 1);
	} else if (id.rank < best[0].rank) { // of the same, the lower id stays
		best[0] = id;
		wn_sift(best, k, 0, 1);
	}
	return n;
}

// likeliest is the k likeliest ids of a row, likeliest first, without their weights. Where k blocks have an id that reaches some logit, no other id
// below it can be one of them.
static void WN(likeliest)(const float *v, int64_t vocab, const float *tops, int64_t k, wn_pick *best) {
	if (k == 0) return;
	int64_t blocks = wn_parts(vocab, WN_BLOCK), n = 0, i = 0;
	float least = -INFINITY;
	if (k <= blocks) {
		for (int64_t b = 0; b < blocks; b++) n = WN(collect)(best, n, k, (wn_pick){0, -tops[b], (int32_t)b});
		least = -best[0].rank, n = 0;
	}
	for (; least == -INFINITY && i < k; i++) n = WN(collect)(best, n, k, (wn_pick){0, WN(rank)(v[i]), (int32_t)i}); // what is no number counts too
	while (i < vocab) {
		float limit = n < k ? least : -best[0].rank;
		int64_t next = wn_min((i / WN_BLOCK + 1) * WN_BLOCK, vocab), end = wn_min(i + WN(SKIP), next);
		if (tops[i / WN_BLOCK] < limit) {
			i = next;
		} else if (end - i == WN(SKIP) && !WN(reaches)(v + i, limit)) {
			i = end;
		} else {
			for (; i < end; i++)
				if (v[i] >= limit) n = WN(collect)(best, n, k, (wn_pick){0, -v[i], (int32_t)i});
		}
	}
	wn_sorted(best, k);
}

// above is the ids that are at least p times as likely as the likeliest, by id.
static int64_t WN(above)(const WN(sampled) *r, int64_t vocab, double p, wn_pick *list) {
	float least = r->top + (float)(log(p) / r->inverse) - 1;
	int64_t n = 0;
	for (int64_t i = 0; i < vocab;) {
		if (i % WN_BLOCK == 0 && r->tops[i / WN_BLOCK] < least) {
			i += WN_BLOCK;
			continue;
		}
		if (i % WN(SKIP) == 0 && i + WN(SKIP) <= vocab && !WN(reaches)(r->logits + i, least)) {
			i += WN(SKIP);
			continue;
		}
		WN(lanes) weight, scaled;
		int64_t count = wn_min(vocab - i, WN_LANES);
		WN(weigh_n)(r->logits + i, count, r->top, r->inverse, &weight, &scaled);
		for (int64_t l = 0; l < count; l++) {
			float v = r->logits[i + l];
			if (!(v < least) && weight.of[l] >= p) list[n++] = (wn_pick){weight.of[l], WN(rank)(v), (int32_t)(i + l)};
		}
		i += count;
	}
	return n;
}

// nucleus is the fewest likeliest ids that have share p of all weight. Mostly few have it, so those that are at least a thousandth as likely as the
// likeliest are tried first: if they have it, whatever the order of the sum, the others would not change which are kept.
static int64_t WN(nucleus)(const WN(sample_job) *j, const WN(sampled) *r, double p, wn_pick *list) {
	double total = wn_added(r->weights, j->pieces), mass = p * total, least = 0.99 * (1 - p) * total / (double)j->vocab;
	if (least < 0x1p-10) {
		int64_t n = WN(above)(r, j->vocab, 0x1p-10, list);
		if (wn_weights(list, n) > mass * (1 + 1e-9)) return wn_fewest(list, n, mass);
	}
	return wn_fewest(list, WN(above)(r, j->vocab, least, list), mass);
}

// one weighs an id.
static double WN(one)(const WN(sampled) *r, int64_t id, double *scaled) {
	WN(lanes) weights, all;
	WN(weigh_n)(r->logits + id, 1, r->top, r->inverse, &weights, &all);
	*scaled = all.of[0];
	return weights.of[0];
}

// typical keeps the most typical of a list, or of all ids where its length n is below 0.
static int64_t WN(typical)(const WN(sample_job) *j, const WN(sampled) *r, wn_pick *list, int64_t n, double p) {
	double total = 0, moment = 0, x;
	WN(lanes) weight, scaled;
	if (n < 0) {
		total = wn_added(r->weights, j->pieces), moment = wn_added(r->moments, j->pieces), n = j->vocab;
		double mean = moment / total;
		for (int64_t i = 0; i < n; i += WN_LANES) {
			WN(weigh_n)(r->logits + i, n - i, r->top, r->inverse, &weight, &scaled);
			for (int64_t l = 0; l < wn_min(n - i, WN_LANES); l++)
				list[i + l] = (wn_pick){weight.of[l], (float)fabs(scaled.of[l] - mean), (int32_t)(i + l)};
		}
	} else {
		for (int64_t i = 0; i < n; i++) {
			double w = WN(one)(r, list[i].id, &x);
			total += w, moment += w * x;
		}
		double mean = moment / total;
		for (int64_t i = 0; i < n; i++) {
			WN(one)(r, list[i].id, &x);
			list[i].rank = (float)fabs(x - mean);
		}
	}
	n = wn_fewest(list, n, p * total);
	for (int64_t i = 0; i < n; i++) list[i].rank = WN(rank)(r->logits[list[i].id]);
	return n;
}

// draw takes the id at share u of all weight.
static int32_t WN(draw)(const WN(sample_job) *j, const WN(sampled) *r, double u) {
	double left = u * wn_added(r->weights, j->pieces);
	WN(lanes) weight, scaled;
	int64_t at = 0;
	for (int64_t i = 0; i < j->pieces; i++) {
		if (r->weights[i] == 0) continue;
		at = i;
		if (left < r->weights[i]) break;
		left -= r->weights[i];
	}
	int64_t last = 0, end = wn_min((at + 1) * WN_PIECE, j->vocab);
	for (int64_t i = at * WN_PIECE; i < end; i += WN_LANES) {
		WN(weigh_n)(r->logits + i, end - i, r->top, r->inverse, &weight, &scaled);
		for (int64_t l = 0; l < wn_min(end - i, WN_LANES); l++) {
			if (weight.of[l] > 0) last = i + l;
			left -= weight.of[l];
			if (left < 0) return (int32_t)last;
		}
	}
	return (int32_t)last;
}

static int64_t WN(top_k)(const float *params, int64_t vocab) {
	return params[WN_TOP_K] > 0 && params[WN_TOP_K] < (float)vocab ? (int64_t)params[WN_TOP_K] : 0;
}

static int32_t WN(choose)(const WN(sample_job) *j, const WN(sampled) *r, wn_pick *list) {
	if (r->greedy) return WN(first)(r->logits, j->vocab, r->tops, r->top);
	const float *params = r->params;
	int64_t n = -1, k = WN(top_k)(params, j->vocab); // n below 0: no list, which stands for all ids
	if (k > 0) {
		WN(likeliest)(r->logits, j->vocab, r->tops, n = k, list);
		double scaled;
		for (int64_t i = 0; i < n; i++) list[i].weight = WN(one)(r, list[i].id, &scaled);
	}
	double typical = params[WN_TYPICAL_P], top = params[WN_TOP_P], min = params[WN_MIN_P];
	if (typical < 1) n = WN(typical)(j, r, list, n, typical);
	if (top < 1) n = n < 0 ? WN(nucleus)(j, r, top, list) : wn_fewest(list, n, top * wn_weights(list, n));
	if (min > 0) n = n < 0 ? WN(above)(r, j->vocab, min, list) : wn_min_p(list, n, min);
	double u = wn_uniform(r->draws);
	return n < 0 ? WN(draw)(j, r, u) : wn_drawn(list, n, u);
}

// report writes the best ids and the log-probabilities of the chosen id and of the best.
static void WN(report)(const WN(sample_job) *j, int64_t row, int32_t id, wn_pick *list) {
	const WN(sampled) *r = &j->rows[row];
	int32_t *best = j->best + row * j->best_columns;
	float *probs = j->probs + row * j->probs_columns;
	float top = r->raw[WN(first)(r->raw, j->vocab, r->raw_tops, r->raw_top)];
	double norm = (double)top + wn_ln(wn_added(r->raw_weights, j->pieces));
	int64_t n = wn_min(r->draws[WN_ALTERNATIVES], j->vocab);
	probs[0] = (float)((double)r->raw[id] - norm);
	WN(likeliest)(r->raw, j->vocab, r->raw_tops, n, list);
	for (int64_t i = 0; i < n; i++) best[i] = list[i].id, probs[1 + i] = (float)((double)r->raw[list[i].id] - norm);
}

// edit copies ids lo to hi of a row and changes those that have a penalty or a bias.
static void WN(edit)(WN(sampled) *r, int64_t lo, int64_t hi) {
	memcpy(r->edited + lo, r->raw + lo, (hi - lo) * sizeof(float));
	for (int64_t i = 0; i < r->edit_count; i++) {
		const int32_t *e = r->edits + i * WN_EDITS;
		if (e[WN_EDIT_ID] < lo || e[WN_EDIT_ID] >= hi) continue;
		float v = r->raw[e[WN_EDIT_ID]];
		if (e[WN_EDIT_SEEN] > 0) v = v > 0 ? v / r->params[WN_REPETITION] : v * r->params[WN_REPETITION];
		if (e[WN_EDIT_COUNT] > 0) v -= r->params[WN_PRESENCE] + (float)e[WN_EDIT_COUNT] * r->params[WN_FREQUENCY];
		r->edited[e[WN_EDIT_ID]] = v + r->biases[i];
	}
}

static void WN(sample_tops)(void *arg, int64_t item, int worker) {
	const WN(sample_job) *j = arg;
	WN(sampled) *r = &j->rows[item / j->spans];
	int64_t span = item % j->spans, lo = span * WN_SPAN, n = wn_min(WN_SPAN, j->vocab - lo);
	(void)worker;
	if (r->edited) WN(edit)(r, lo, lo + n);
	for (int64_t i = lo; i < lo + n; i += WN_BLOCK) {
		int64_t count = wn_min(WN_BLOCK, lo + n - i), block = i / WN_BLOCK;
		r->tops[block] = WN(largest)(r->logits + i, count);
		if (r->reports) r->raw_tops[block] = r->edited ? WN(largest)(r->raw + i, count) : r->tops[block];
	}
}

static void WN(sample_sums)(void *arg, int64_t item, int worker) {
	const WN(sample_job) *j = arg;
	WN(sampled) *r = &j->rows[item / j->pieces];
	int64_t piece = item % j->pieces, lo = piece * WN_PIECE, n = wn_min(WN_PIECE, j->vocab - lo);
	(void)worker;
	if (r->sums) WN(sums)(r->logits + lo, n, r->top, r->inverse, &r->weights[piece], &r->moments[piece]);
	if (!r->reports) return;
	if (r->sums && !r->edited && r->inverse == 1) {
		r->raw_weights[piece] = r->weights[piece];
	} else {
		double unused;
		WN(sums)(r->raw + lo, n, r->raw_top, 1, &r->raw_weights[piece], &unused);
	}
}

static void WN(sample_item)(void *arg, int64_t item, int worker) {
	const WN(sample_job) *j = arg;
	WN(sampled) *r = &j->rows[item];
	wn_pick *list = j->picks + (j->by_row ? item : worker) * j->capacity;
	j->ids[item] = WN(choose)(j, r, list);
	if (r->reports) WN(report)(j, item, j->ids[item], list);
}

// prepare finds out what a row needs, and sees to it that there is room for its candidates.
static void WN(prepare)(WN(sample_job) *j, WN(sampled) *r) {
	const float *p = r->params;
	r->greedy = p[WN_TEMPERATURE] <= 0;
	r->reports = r->draws[WN_ALTERNATIVES] >= 0;
	int64_t k = r->greedy ? 0 : WN(top_k)(p, j->vocab);
	int cuts = p[WN_TYPICAL_P] < 1 || p[WN_TOP_P] < 1;
	r->sums = !r->greedy && k == 0 && (cuts || !(p[WN_MIN_P] > 0));
	int64_t room = r->greedy ? 0 : k > 0 ? k : cuts || p[WN_MIN_P] > 0 ? j->vocab : 0;
	if (r->reports) room = wn_max(room, wn_min(r->draws[WN_ALTERNATIVES], j->vocab));
	j->capacity = wn_max(j->capacity, room);
}

void WN(wn_sample)(wn_ctx *ctx, const wn_op *op) {
	void *const *p = op->p;
	WN(sample_job) j = {.count = wn_live(ctx, p[9], op->d[0]), .vocab = op->d[1], .ids = p[6], .best = p[7], .probs = p[8],
		.best_columns = op->d[2], .probs_columns = op->d[3]};
	j.pieces = wn_parts(j.vocab, WN_PIECE), j.blocks = wn_parts(j.vocab, WN_BLOCK), j.spans = wn_parts(j.vocab, WN_SPAN), j.by_row = j.count < wn_threads(ctx);
	const int32_t *start = p[3];
	if (j.count == 0) return;
	j.rows = wn_scratch(ctx, j.count * sizeof *j.rows);
	float *tops = wn_scratch(ctx, 2 * j.count * j.blocks * sizeof *tops);
	double *sums = wn_scratch(ctx, 3 * j.count * j.pieces * sizeof *sums);
	if (!j.rows || !tops || !sums) return;
	for (int64_t i = 0; i < j.count; i++) {
		WN(sampled) *r = &j.rows[i];
		*r = (WN(sampled)){.raw = (const float *)p[0] + i * j.vocab, .params = (const float *)p[1] + i * WN_PARAMS,
			.draws = (const int32_t *)p[2] + i * WN_DRAWS, .edits = (const int32_t *)p[4] + start[i] * WN_EDITS,
			.biases = (const float *)p[5] + start[i], .edit_count = start[i + 1] - start[i],
			.tops = tops + 2 * i * j.blocks, .raw_tops = tops + (2 * i + 1) * j.blocks, .weights = sums + 3 * i * j.pieces,
			.moments = sums + (3 * i + 1) * j.pieces, .raw_weights = sums + (3 * i + 2) * j.pieces};
		r->logits = r->raw;
		if (r->edit_count > 0) {
			r->logits = r->edited = wn_scratch(ctx, j.vocab * sizeof(float));
			if (!r->edited) return;
		}
		WN(prepare)(&j, r);
	}
	j.picks = wn_scratch(ctx, (j.by_row ? j.count : wn_threads(ctx)) * j.capacity * sizeof *j.picks);
	if (!j.picks) return;
	wn_parallel(ctx, j.count * j.spans, WN(sample_tops), &j);
	int passes = 0;
	for (int64_t i = 0; i < j.count; i++) {
		WN(sampled) *r = &j.rows[i];
		r->top = WN(largest)(r->tops, j.blocks);
		if (r->reports) r->raw_top = WN(largest)(r->raw_tops, j.blocks);
		if (isinf(r->top)) r->greedy = 1, r->sums = 0; // there is nothing to draw from
		if (!r->greedy) r->inverse = 1 / (double)r->params[WN_TEMPERATURE];
		passes |= r->sums || r->reports;
	}
	if (passes) wn_parallel(ctx, j.count * j.pieces, WN(sample_sums), &j);
	wn_parallel(ctx, j.count, WN(sample_item), &j);
}
