// Route: p = x, weights, bias, selection bias, phys, logits, ids, factors, n, wishes, lines of wishes, shares; d = rows, dim, experts, kind of the
// weights, k, score, weight, groups (1 = none), groups kept, 1 where a group is judged by its two best, 1 where factors are normed, rows and
// columns of wishes, the column of the layer's k; f = scale, eps, band. First the logits, by tiles of experts, then the choice of each row, in double
// precision.

#ifndef WN_ROUTER_H
#define WN_ROUTER_H
enum { WN_SOFTMAX, WN_SIGMOID, WN_SQRT_SOFTPLUS, WN_IDENTITY };
enum { WN_FROM_SCORE, WN_SOFTMAX_TOP_K, WN_SIGMOID_TOP_K, WN_SPARSE_MIXER };
enum { WN_WISH_MIN_P, WN_WISH_MASS, WN_WISH_SKIP };
enum { WN_MOST_EXPERTS = 1024, WN_MOST_ACTIVE = 64 };
#endif

typedef struct WN(route_job) {
	const wn_op *op;
	wn_weights w;
	wn_product product;
	int64_t rows, grain; // grain: tiles of an item
} WN(route_job);

static void WN(route_logits)(void *arg, int64_t item, int worker) {
	const WN(route_job) *j = arg;
	(void)worker;
	int64_t lo = item * j->grain * 16;
	WN(wn_multiply)(&j->product, lo, wn_min(lo + j->grain * 16, j->w.rows));
}

// largest is the index of the largest value, the lowest on ties.
static int64_t WN(largest)(const double *v, int64_t n) {
	int64_t best = 0;
	for (int64_t i = 1; i < n; i++)
		if (v[i] > v[best]) best = i;
	return best;
}

static void WN(softmax)(double *to, const double *z, int64_t n) {
	if (n == 0) return;
	double top = z[WN(largest)(z, n)], sum = 0;
	if (top == -INFINITY) { // nothing to choose from
		memset(to, 0, n * sizeof *to);
		return;
	}
	for (int64_t i = 0; i < n; i++) to[i] = exp(z[i] - top), sum += to[i];
	for (int64_t i = 0; i < n; i++) to[i] /= sum;
}

WN_INLINE double WN(sigmoid)(double v) { return 1 / (1 + exp(-v)); }

static void WN(score_all)(double *to, const double *z, int64_t n, int64_t kind) {
	switch (kind) {
	case WN_SOFTMAX: WN(softmax)(to, z, n); break;
	case WN_SIGMOID:
		for (int64_t e = 0; e < n; e++) to[e] = WN(sigmoid)(z[e]);
		break;
	case WN_SQRT_SOFTPLUS:
		for (int64_t e = 0; e < n; e++) to[e] = sqrt((z[e] > 0 ? z[e] : 0) + log1p(exp(-fabs(z[e]))));
		break;
	default: memcpy(to, z, n * sizeof *to);
	}
}

// keep_groups sets the scores of all but the best groups to -inf. A group without live experts is worst.
static void WN(keep_groups)(double *u, int64_t n, const wn_op *op) {
	double judged[WN_MOST_EXPERTS];
	int64_t groups = op->d[7], size = n / groups;
	if (groups <= 1) return;
	for (int64_t g = 0; g < groups; g++) {
		double best = -INFINITY, second = -INFINITY;
		for (int64_t e = g * size; e < (g + 1) * size; e++) {
			if (u[e] > best) {
				second = best, best = u[e];
			} else if (u[e] > second) {
				second = u[e];
			}
		}
		judged[g] = op->d[9] && second > -INFINITY ? best + second : best;
	}
	char kept[WN_MOST_EXPERTS] = {0};
	for (int64_t i = 0; i < op->d[8]; i++) {
		int64_t g = WN(largest)(judged, groups);
		kept[g] = 1, judged[g] = -INFINITY;
	}
	for (int64_t e = 0; e < n; e++)
		if (!kept[e / size]) u[e] = -INFINITY;
}

// band is the share of expert e in a softmax over the logits that are as good as its own.
static double WN(band)(const double *z, int64_t n, int64_t e, double width) {
	double sum = 0;
	for (int64_t i = 0; i < n; i++)
		if (z[i] > -INFINITY && z[e] - z[i] <= 2 * width * fmax(fabs(z[i]), z[e])) sum += exp(z[i] - z[e]);
	return 1 / sum;
}

// factors are those of the count chosen experts before norm; the sparse mixer takes them out of z for the time.
static void WN(factors)(double *w, double *z, const double *score, const int32_t *ids, int64_t count, const wn_op *op) {
	double before[WN_MOST_ACTIVE];
	for (int64_t i = 0; i < count; i++) before[i] = z[ids[i]];
	for (int64_t i = 0; i < count; i++) {
		double v = z[ids[i]];
		switch (op->d[6]) {
		case WN_SIGMOID_TOP_K: w[i] = WN(sigmoid)(v); break;
		case WN_SOFTMAX_TOP_K: w[i] = v; break;
		case WN_SPARSE_MIXER: w[i] = WN(band)(z, op->d[2], ids[i], op->f[2]), z[ids[i]] = -INFINITY; break;
		default: w[i] = score[ids[i]];
		}
	}
	for (int64_t i = 0; i < count; i++) z[ids[i]] = before[i];
	if (op->d[6] == WN_SOFTMAX_TOP_K) WN(softmax)(w, w, count);
}

// weigh writes factors with their norm and scale.
static void WN(weigh)(const double *w, int64_t count, float *out, const wn_op *op) {
	double factor = op->f[0];
	if (op->d[10]) {
		double sum = op->f[1];
		for (int64_t i = 0; i < count; i++) sum += w[i];
		if (sum > 0) factor /= sum; // else all are 0
	}
	for (int64_t i = 0; i < count; i++) out[i] = (float)(w[i] * factor);
}

// heaviest leaves of the kept ones the fewest heaviest whose sum reaches goal, and at least one: equals in the order of choice.
static void WN(heaviest)(const double *w, char *kept, int64_t count, double goal) {
	char rest[WN_MOST_ACTIVE];
	double sum = 0;
	memcpy(rest, kept, count);
	memset(kept, 0, count);
	for (;;) {
		int64_t best = -1;
		for (int64_t i = 0; i < count; i++)
			if (rest[i] && (best < 0 || w[i] > w[best])) best = i;
		if (best < 0) return;
		rest[best] = 0, kept[best] = 1;
		if ((sum += w[best]) >= goal) return;
	}
}

// drop takes the experts out that a wish does without; those that stay close up, and left says how many they are. It gives the share of the
// factors' sum that they have.
static double WN(drop)(const double *w, int32_t *ids, int64_t count, int64_t *left, const float *wish, const wn_op *op) {
	char kept[WN_MOST_ACTIVE] = {0};
	int64_t most = (int64_t)wish[op->d[13]], within = most > 0 ? wn_min(count, most) : count;
	double total = 0, held = 0, mass = wish[WN_WISH_MASS];
	*left = 0;
	if (count == 0) return 1;
	int64_t best = WN(largest)(w, within);
	for (int64_t i = 0; i < within; i++)
		kept[i] = i == best || (!(w[i] < (double)wish[WN_WISH_MIN_P] * w[best]) && !(w[i] < (double)wish[WN_WISH_SKIP] * w[0]));
	for (int64_t i = 0; i < count; i++) total += w[i];
	if (mass > 0 && mass < 1) WN(heaviest)(w, kept, count, mass * total);
	for (int64_t i = 0; i < count; i++)
		if (kept[i]) ids[(*left)++] = ids[i], held += w[i];
	for (int64_t i = *left; i < count; i++) ids[i] = -1;
	return *left == count || !(total > 0) ? 1 : held / total;
}

static void WN(route_choose)(void *arg, int64_t row, int worker) {
	const wn_op *op = ((WN(route_job) *)arg)->op;
	int64_t n = op->d[2], k = op->d[4], count = 0;
	const float *choice = op->p[3], *logits = (const float *)op->p[5] + row * n;
	const int32_t *phys = op->p[4];
	int32_t *ids = (int32_t *)op->p[6] + row * k;
	float *factors = (float *)op->p[7] + row * k;
	const int32_t *of = op->p[10];
	float *shares = (float *)op->p[11];
	double z[WN_MOST_EXPERTS], score[WN_MOST_EXPERTS], u[WN_MOST_EXPERTS], w[WN_MOST_ACTIVE] = {0}, share = 1;
	(void)worker;
	z[0] = -INFINITY; // there is at least one expert
	for (int64_t e = 0; e < n; e++) {
		z[e] = phys[e] < 0 || !(logits[e] < INFINITY) ? -INFINITY : logits[e];
	}
	WN(score_all)(score, z, n, op->d[5]);
	for (int64_t e = 0; e < n; e++) {
		u[e] = score[e] + (choice ? choice[e] : 0);
		if (z[e] == -INFINITY || u[e] != u[e]) u[e] = -INFINITY;
	}
	WN(keep_groups)(u, n, op);
	for (int64_t i = 0; i < k; i++) {
		int64_t e = WN(largest)(u, n);
		ids[i] = -1, factors[i] = 0;
		if (u[e] == -INFINITY) continue;
		ids[i] = (int32_t)e, u[e] = -INFINITY, count++;
	}
	WN(factors)(w, z, score, ids, count, op);
	if (of && of[row]) {
		int64_t chosen = count;
		share = WN(drop)(w, ids, chosen, &count, (const float *)op->p[9] + (of[row] - 1) * op->d[12], op);
		if (count < chosen) WN(factors)(w, z, score, ids, count, op);
	}
	WN(weigh)(w, count, factors, op);
	if (shares) shares[row] = (float)share;
}

void WN(wn_route)(wn_ctx *ctx, const wn_op *op) {
	WN(route_job) j = {.op = op, .w = {op->d[3], op->d[2], op->d[1], op->p[1]}, .rows = wn_live(ctx, op->p[8], op->d[0])};
	const void **x = wn_scratch(ctx, j.rows * sizeof *x);
	float **z = wn_scratch(ctx, j.rows * sizeof *z);
	if (!x || !z) return;
	for (int64_t r = 0; r < j.rows; r++) x[r] = (const float *)op->p[0] + r * op->d[1], z[r] = (float *)op->p[5] + r * op->d[2];
	if (op->p[10] && !wn_check_rows(ctx, op->p[10], j.rows, op->d[11] + 1)) return;
	j.product = (wn_product){&j.w, x, z, j.rows, 0, op->p[2], NULL, NULL, 0};
	j.grain = wn_grain(&j.w, WN(wn_rate)(j.w.kind, j.rows), j.rows, wn_tiles(&j.w), wn_threads(ctx));
	wn_parallel(ctx, (wn_tiles(&j.w) + j.grain - 1) / j.grain, WN(route_logits), &j);
	wn_parallel(ctx, j.rows, WN(route_choose), &j);
}
