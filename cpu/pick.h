// Choosing blocks by score, the same in every variant: what attention/pick.go says, to the bit.
#ifndef WN_PICK_H
#define WN_PICK_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// wn_sink_down restores a heap of n whose root is the least, from i down.
static inline void wn_sink_down(float *v, int64_t n, int64_t i) {
	float x = v[i];
	for (int64_t c; (c = 2 * i + 1) < n; i = c) {
		if (c + 1 < n && v[c + 1] < v[c]) c++;
		if (!(v[c] < x)) break;
		v[i] = v[c];
	}
	v[i] = x;
}

// wn_descend sorts numbers, none of them NaN, the largest first.
static inline void wn_descend(float *v, int64_t n) {
	for (int64_t i = n / 2; i-- > 0;) wn_sink_down(v, n, i);
	for (int64_t i = n; i-- > 1;) {
		float least = v[0];
		v[0] = v[i], v[i] = least;
		wn_sink_down(v, i, 0);
	}
}

// wn_at_least writes the indices of the k numbers that come first in descending order, of which cut is the last: all above it, and the
// first of those equal to it. Ascending; returns k.
static inline int64_t wn_at_least(const float *v, int64_t n, float cut, int64_t k, int32_t *out) {
	int64_t above = 0, at = 0;
	for (int64_t i = 0; i < n; i++) above += v[i] > cut;
	for (int64_t i = 0, equal = k - above; i < n; i++) {
		if (v[i] > cut || (v[i] == cut && equal-- > 0)) out[at++] = (int32_t)i;
	}
	return at;
}

// wn_rank is a word for a number such that larger numbers have larger words; wn_ranked is the number of a word.
static inline uint32_t wn_rank(float x) {
	uint32_t u;
	memcpy(&u, &x, 4);
	return u >> 31 ? ~u : u | 1u << 31;
}
static inline float wn_ranked(uint32_t r) {
	uint32_t u = r >> 31 ? r & ~(1u << 31) : ~r;
	float x;
	memcpy(&x, &u, 4);
	return x;
}

// wn_nth is the k-th number in descending order, 0 < k <= n: by the bits of its word, the highest first. room is for n words.
static inline float wn_nth(const float *v, int64_t n, int64_t k, uint32_t *room) {
	enum { BITS = 8 };
	for (int64_t i = 0; i < n; i++) room[i] = wn_rank(v[i]);
	uint32_t high = 0;
	for (int shift = 32 - BITS; shift >= 0; shift -= BITS) {
		int32_t count[1 << BITS] = {0}, b = (1 << BITS) - 1;
		for (int64_t i = 0; i < n; i++) count[room[i] >> shift & ((1 << BITS) - 1)]++;
		for (; k > count[b]; b--) k -= count[b];
		high |= (uint32_t)b << shift;
		if (count[b] == n) continue;
		int64_t left = 0; // of the words, those that begin like it
		for (int64_t i = 0; i < n; i++) {
			room[left] = room[i];
			left += (int32_t)(room[i] >> shift & ((1 << BITS) - 1)) == b;
		}
		n = left;
	}
	return wn_ranked(high);
}

// wn_top is attention.top: out has room for k, room for n floats.
static inline int64_t wn_top(const float *v, int64_t n, int64_t k, int32_t *out, float *room) {
	if (k <= 0) return 0;
	if (k >= n) {
		for (int64_t i = 0; i < n; i++) out[i] = (int32_t)i;
		return n;
	}
	return wn_at_least(v, n, wn_nth(v, n, k, (uint32_t *)room), k, out);
}

// wn_cover is attention.cover: out and room have room for n.
static inline int64_t wn_cover(const float *v, int64_t n, float share, int32_t *out, float *room) {
	float total = 0, sum = 0;
	int64_t k = 0;
	memcpy(room, v, n * sizeof *v);
	wn_descend(room, n);
	for (int64_t i = 0; i < n; i++) total += room[i];
	for (; k < n && sum < share * total; k++) sum += room[k];
	return k ? wn_at_least(v, n, room[k - 1], k, out) : 0;
}

#endif
