// How a thread waits awake.
#ifndef WN_SPIN_H
#define WN_SPIN_H

#include <stdint.h>

// wn_ticks reads a clock that costs a few ns, and wn_patience is how many ticks a waiting thread spins before it sleeps: some 20 us,
// which bridge the short operations between two parallel ones. wn_pause lets the other thread of the core run for a moment.
#ifdef __x86_64__

#include <x86intrin.h>

static inline uint64_t wn_ticks(void) { return __rdtsc(); }
static inline uint64_t wn_patience(void) { return 50000; } // at 2.5 GHz
static inline void wn_pause(void) { _mm_pause(); }

#else

static inline uint64_t wn_ticks(void) {
	uint64_t t;
	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
	return t;
}

static inline uint64_t wn_patience(void) {
	uint64_t a_second;
	__asm__("mrs %0, cntfrq_el0" : "=r"(a_second));
	return a_second / 50000;
}

static inline void wn_pause(void) { __asm__ volatile("isb"); } // yield does nothing on most cores

#endif

#endif
