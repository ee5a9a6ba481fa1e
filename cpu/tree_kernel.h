// RouteTree: p = x, nodes, their biases, leaves, their biases, places, ids, factors, active, n; all matrices are in plain order; d = rows,
// dim, experts, trees, k; f = gamma, cut. Each row walks its trees by itself, in double precision with sums in an order that the
// reference shares: nodes that it does not come to are not read.

#ifndef WN_TREE_H
#define WN_TREE_H
enum { WN_TREE_EXPERTS = 1024, WN_TREE_STACK = 64 };

typedef struct wn_pair {
	double mass, score;
	int64_t expert;
} wn_pair;

typedef float wn_f8 __attribute__((vector_size(32)));
typedef double wn_d8 __attribute__((vector_size(64)));
#endif

typedef struct WN(tree_job) {
	const wn_op *op;
	wn_pair *pairs; // for each worker, as many as there are leaves
} WN(tree_job);

// wide_dot sums columns i, i+16 and so on in lane i, then adds lanes by halves. Products of floats are exact.
static double WN(wide_dot)(const float *a, const float *b, int64_t n) {
	wn_d8 low = {0}, high = {0};
	int64_t i = 0;
	for (; i + 16 <= n; i += 16) {
		wn_f8 x[2], y[2];
		memcpy(x, a + i, sizeof x);
		memcpy(y, b + i, sizeof y);
		low += __builtin_convertvector(x[0], wn_d8) * __builtin_convertvector(y[0], wn_d8);
		high += __builtin_convertvector(x[1], wn_d8) * __builtin_convertvector(y[1], wn_d8);
	}
	double lanes[16];
	memcpy(lanes, &low, sizeof low);
	memcpy(lanes + 8, &high, sizeof high);
	for (int64_t lane = 0; i + lane < n; lane++) lanes[lane] += (double)a[i + lane] * (double)b[i + lane];
	for (int w = 8; w; w /= 2)
		for (int lane = 0; lane < w; lane++) lanes[lane] += lanes[lane + w];
	return lanes[0];
}

static double WN(tree_logit)(const wn_op *op, const float *x, int m, int64_t row, int64_t *bad) {
	int64_t dim = op->d[1];
	double t = WN(wide_dot)(x, (const float *)op->p[m] + row * dim, dim);
	if (op->p[m + 1]) t += (double)((const float *)op->p[m + 1])[row];
	*bad += !isfinite(t);
	return t;
}

// smooth_step is 0 for NaN.
WN_INLINE double WN(smooth_step)(double t, double gamma) {
	double u = t / gamma;
	if (!(u > -0.5)) return 0;
	if (u >= 0.5) return 1;
	return (1.5 - 2 * u * u) * u + 0.5;
}

// walk_tree appends the leaves that a row reaches, depth first, and returns how many there are then.
static int64_t WN(walk_tree)(const wn_op *op, const float *x, int64_t tree, wn_pair *pairs, int64_t count, int64_t *bad) {
	int64_t nodes = op->d[2] - 1, top = 0;
	const int32_t *places = (const int32_t *)op->p[5] + 2 * tree * (2 * nodes + 1);
	struct {
		int64_t q;
		double mass;
	} stack[WN_TREE_STACK];
	if (places[0] < 0) return count;
	stack[top].q = 0, stack[top++].mass = 1;
	while (top > 0) {
		int64_t q = stack[--top].q, left = 2 * q + 1, right = 2 * q + 2;
		double mass = stack[top].mass, to_left = mass, to_right = mass;
		if (mass <= op->f[1]) continue;
		if (q >= nodes) {
			double score = op->p[3] ? WN(tree_logit)(op, x, 3, places[2 * q + 1], bad) : 0;
			if (isfinite(score)) pairs[count++] = (wn_pair){mass, score, places[2 * q]};
			continue;
		}
		if (places[2 * left] < 0) {
			to_left = 0;
		} else if (places[2 * right] < 0) {
			to_right = 0;
		} else {
			double s = WN(smooth_step)(WN(tree_logit)(op, x, 1, places[2 * q + 1], bad), op->f[0]);
			to_left = mass * s, to_right = mass * (1 - s);
		}
		stack[top].q = right, stack[top++].mass = to_right;
		stack[top].q = left, stack[top++].mass = to_left;
	}
	return count;
}

// add_up adds up the pairs of each expert, writes the heaviest and returns how many have weight.
static int64_t WN(add_up)(const wn_pair *pairs, int64_t count, const wn_op *op, int32_t *ids, float *factors) {
	double weights[WN_TREE_EXPERTS], kept[WN_TREE_EXPERTS], top = -INFINITY, sum = 0, most = 0;
	int64_t n = op->d[2], k = op->d[4], active = 0, chosen = 0;
	for (int64_t e = 0; e < n; e++) weights[e] = 0;
	for (int64_t i = 0; i < count; i++) top = pairs[i].score > top ? pairs[i].score : top;
	for (int64_t i = 0; i < count; i++) {
		double v = pairs[i].mass * exp(pairs[i].score - top);
		weights[pairs[i].expert] += v, sum += v;
	}
	for (int64_t e = 0; e < n; e++) active += weights[e] > 0;
	for (int64_t i = 0; i < k; i++) ids[i] = -1, factors[i] = 0;
	for (; chosen < k && chosen < active; chosen++) {
		int64_t best = 0;
		for (int64_t e = 1; e < n; e++)
			if (weights[e] > weights[best]) best = e;
		ids[chosen] = (int32_t)best, kept[chosen] = weights[best], most += weights[best];
		weights[best] = 0;
	}
	if (active > k) sum = most;
	for (int64_t i = 0; i < chosen; i++) factors[i] = (float)(kept[i] / sum);
	return active;
}

static void WN(route_tree_row)(void *arg, int64_t row, int worker) {
	const WN(tree_job) *j = arg;
	const wn_op *op = j->op;
	wn_pair *pairs = j->pairs + worker * op->d[2] * op->d[3];
	int64_t k = op->d[4], count = 0, bad = 0;
	for (int64_t tree = 0; tree < op->d[3]; tree++) count = WN(walk_tree)(op, (const float *)op->p[0] + row * op->d[1], tree, pairs, count, &bad);
	int32_t *active = (int32_t *)op->p[8] + 2 * row;
	active[0] = (int32_t)WN(add_up)(pairs, count, op, (int32_t *)op->p[6] + row * k, (float *)op->p[7] + row * k);
	active[1] = (int32_t)bad;
}

void WN(wn_route_tree)(wn_ctx *ctx, const wn_op *op) {
	int64_t rows = wn_live(ctx, op->p[9], op->d[0]);
	WN(tree_job) j = {op, wn_scratch(ctx, wn_threads(ctx) * op->d[2] * op->d[3] * sizeof *j.pairs)};
	if (!j.pairs) return;
	wn_parallel(ctx, rows, WN(route_tree_row), &j);
}
