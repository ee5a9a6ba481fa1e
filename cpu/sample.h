// What Sample's kernels of all variants share: columns of its operands, candidates and their order.
#ifndef WN_SAMPLE_H
#define WN_SAMPLE_H

#include <math.h>
#include <stdint.h>

// Columns, as tensor/sample.go has them.
enum { WN_TEMPERATURE, WN_TOP_K, WN_TOP_P, WN_MIN_P, WN_TYPICAL_P, WN_REPETITION, WN_PRESENCE, WN_FREQUENCY, WN_PARAMS };
enum { WN_SEED_LOW, WN_SEED_HIGH, WN_POSITION, WN_ALTERNATIVES, WN_DRAWS };
enum { WN_EDIT_ID, WN_EDIT_SEEN, WN_EDIT_COUNT, WN_EDITS };

// A piece is what sums are made of, see tensor/weigh.go. Of each block the largest logit is noted, by which others pass it over; a span is how many
// ids one item looks through for it.
enum { WN_PIECE = 4096, WN_BLOCK = 512, WN_SPAN = 32 * WN_BLOCK, WN_LANES = 16 };

#define WN_FAINTEST (-700.0)

// A candidate, see tensor/chain.go.
typedef struct wn_pick {
	double weight;
	float rank;
	int32_t id;
} wn_pick;

static inline int wn_before(const wn_pick *a, const wn_pick *b) { return a->rank < b->rank || (!(a->rank > b->rank) && a->id < b->id); }

// sift lets the candidate at a position of a heap sink to where it belongs. The root is the last candidate where up is 1, the first where it is 0.
static inline void wn_sift(wn_pick *heap, int64_t n, int64_t at, const int up) {
	wn_pick moved = heap[at];
	for (int64_t child; (child = 2 * at + 1) < n; at = child) {
		if (child + 1 < n && wn_before(&heap[child], &heap[child + 1]) == up) child++;
		if (wn_before(&moved, &heap[child]) != up) break;
		heap[at] = heap[child];
	}
	heap[at] = moved;
}

static inline void wn_heapify(wn_pick *heap, int64_t n, const int up) {
	for (int64_t i = n / 2; i-- > 0;) wn_sift(heap, n, i, up);
}

// fewest moves the first candidates whose weights reach mass to the front, in their order, and says how many they are.
static inline int64_t wn_fewest(wn_pick *list, int64_t n, double mass) {
	if (!(mass > 0)) mass = 0x1p-1074;
	wn_heapify(list, n, 0);
	int64_t kept = 0;
	for (double have = 0; kept < n && have < mass; kept++) {
		wn_pick first = list[0];
		have += first.weight;
		list[0] = list[n - 1 - kept], list[n - 1 - kept] = first;
		wn_sift(list, n - 1 - kept, 0, 0);
	}
	for (int64_t i = 0; i < kept && i < n - 1 - i; i++) {
		wn_pick t = list[i];
		list[i] = list[n - 1 - i], list[n - 1 - i] = t;
	}
	return kept;
}

// sorted puts a heap whose root is its last candidate in order.
static inline void wn_sorted(wn_pick *heap, int64_t n) {
	for (; n > 1; n--) {
		wn_pick last = heap[0];
		heap[0] = heap[n - 1], heap[n - 1] = last;
		wn_sift(heap, n - 1, 0, 1);
	}
}

static inline double wn_weights(const wn_pick *list, int64_t n) {
	double total = 0;
	for (int64_t i = 0; i < n; i++) total += list[i].weight;
	return total;
}

static inline double wn_added(const double *v, int64_t n) {
	double total = 0;
	for (int64_t i = 0; i < n; i++) total += v[i];
	return total;
}

// min_p drops what is less than p times as likely as the likeliest.
static inline int64_t wn_min_p(wn_pick *list, int64_t n, double p) {
	double most = 0;
	int64_t kept = 0;
	for (int64_t i = 0; i < n; i++)
		if (list[i].weight > most) most = list[i].weight;
	for (int64_t i = 0; i < n; i++)
		if (!(list[i].weight < p * most)) list[kept++] = list[i];
	return kept;
}

// drawn is the candidate at share u of the list's mass.
static inline int32_t wn_drawn(const wn_pick *list, int64_t n, double u) {
	double left = u * wn_weights(list, n);
	int32_t id = list[n - 1].id;
	for (int64_t i = 0; i < n; i++) {
		if (list[i].weight > 0) id = list[i].id;
		left -= list[i].weight;
		if (left < 0) break;
	}
	return id;
}

static inline uint64_t wn_mix(uint64_t x) {
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static inline double wn_uniform(const int32_t *draws) {
	uint64_t seed = (uint64_t)(uint32_t)draws[WN_SEED_HIGH] << 32 | (uint32_t)draws[WN_SEED_LOW];
	return (double)(wn_mix(wn_mix(seed) + (uint32_t)draws[WN_POSITION]) >> 11) / 0x1p53;
}

// The natural logarithm.
static inline double wn_ln(double x) {
	int e;
	double m = frexp(x, &e);
	if (m < 0.70710678118654752440) m *= 2, e--;
	double s = (m - 1) / (m + 1), q = s * s, p = 1.0 / 23;
	for (int k = 21; k > 0; k -= 2) p = p * q + 1 / (double)k;
	return 2 * s * p + (double)e * 0.69314718055994530942;
}

#endif
