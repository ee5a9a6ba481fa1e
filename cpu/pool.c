//go:build linux && cgo && (amd64 || arm64)

// The pool of threads, and the lists that run on it.

#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu.h"
#include "spin.h"

// The state of the job on offer is one word, so that joining it and closing it cannot cross: the count of workers inside in the low
// 16 bits, OPEN, and above that the number of the job.
#define INSIDE 0xffffu
#define OPEN 0x10000u
#define JOB_STEP 0x20000u

typedef struct worker {
	pthread_t thread;
	wn_ctx *ctx;
	int number;
} worker;

// A share is the items of a job that one thread begins with. Who has done his own takes from the others.
typedef struct share {
	_Alignas(64) atomic_llong next; // the next item to claim
	int64_t end;
} share;

struct wn_ctx {
	_Alignas(64) atomic_uint state;
	_Alignas(64) atomic_int sleepers; // workers asleep on state
	atomic_int caller_sleeps;
	atomic_int closing;
	// The job on offer. Written only while nobody is inside and the state is not OPEN.
	_Alignas(64) wn_job *job;
	void *arg;
	share *shares; // one a thread

	int threads;
	worker *workers; // threads-1
	const wn_op *at, *end; // the operation that runs, and the end of its list
	int failed;
	char *scratch; // in use from 0 to used, of size
	int64_t used, size;
	char **spilled; // blocks that the operation took when scratch was full
	int64_t spills, want;
};

static void futex_wait(atomic_uint *word, unsigned seen) {
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word, int count) {
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

// claim does items while there are any. A thread's own are neighbours: weights are streamed, and a stream is slow to begin.
static void claim(wn_ctx *c, int number) {
	wn_job *job = c->job;
	void *arg = c->arg;
	for (int n = 0; n < c->threads; n++) {
		share *s = &c->shares[(number + n) % c->threads];
		int64_t end = s->end, i = atomic_load_explicit(&s->next, memory_order_relaxed);
		while (i < end && (i = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed)) < end) job(arg, i++, number);
	}
}

// changed waits until the state is not seen: by spinning, then asleep.
static unsigned changed(wn_ctx *c, unsigned seen) {
	uint64_t start = wn_ticks();
	unsigned s;
	while ((s = atomic_load_explicit(&c->state, memory_order_acquire)) == seen) {
		wn_pause();
		if (wn_ticks() - start < wn_patience()) continue;
		atomic_fetch_add(&c->sleepers, 1);
		futex_wait(&c->state, seen);
		atomic_fetch_sub(&c->sleepers, 1);
		start = wn_ticks();
	}
	return s;
}

// leave takes a worker out of the job, and wakes the caller that waits for the last one.
static void leave(wn_ctx *c) {
	unsigned before = atomic_fetch_sub(&c->state, 1);
	if ((before & (INSIDE | OPEN)) == 1 && atomic_load(&c->caller_sleeps)) futex_wake(&c->state, 1 << 30);
}

// A worker joins each job at most once. One that wakes late finds the job closed and does nothing: the caller never waits for a
// thread that has not begun, so a busy machine costs speed in proportion and no more.
static void *work(void *p) {
	worker *w = p;
	wn_ctx *c = w->ctx;
	unsigned seen = atomic_load(&c->state), joined = ~0u;
	for (; !atomic_load_explicit(&c->closing, memory_order_relaxed);) {
		unsigned number = seen & ~(INSIDE | OPEN);
		if (!(seen & OPEN) || number == joined) {
			seen = changed(c, seen);
			continue;
		}
		if (!atomic_compare_exchange_weak(&c->state, &seen, seen + 1)) continue;
		joined = number;
		claim(c, w->number);
		leave(c);
		seen = atomic_load(&c->state);
	}
	return NULL;
}

// finish closes the job and waits for the workers inside.
static void finish(wn_ctx *c) {
	unsigned s = atomic_fetch_and(&c->state, ~OPEN) & ~OPEN;
	uint64_t start = wn_ticks();
	while (s & INSIDE) {
		if (wn_ticks() - start < wn_patience()) {
			wn_pause();
		} else {
			atomic_store(&c->caller_sleeps, 1);
			s = atomic_load(&c->state);
			if (s & INSIDE) futex_wait(&c->state, s);
			atomic_store(&c->caller_sleeps, 0);
		}
		s = atomic_load(&c->state);
	}
}

void wn_parallel(wn_ctx *c, int64_t items, wn_job *job, void *arg) {
	if (items <= 1 || c->threads == 1) {
		for (int64_t i = 0; i < items; i++) job(arg, i, 0);
		return;
	}
	c->job = job, c->arg = arg;
	for (int i = 0; i < c->threads; i++) {
		atomic_store_explicit(&c->shares[i].next, items * i / c->threads, memory_order_relaxed);
		c->shares[i].end = items * (i + 1) / c->threads;
	}
	atomic_store(&c->state, ((atomic_load(&c->state) & ~(INSIDE | OPEN)) + JOB_STEP) | OPEN);
	int asleep = atomic_load(&c->sleepers);
	if (asleep > 0) futex_wake(&c->state, (int)wn_min(asleep, items - 1));
	claim(c, 0);
	finish(c);
}

int wn_threads(const wn_ctx *c) { return c->threads; }

int wn_pin(wn_ctx *c, int worker, const void *cpus, size_t bytes) { return pthread_setaffinity_np(c->workers[worker - 1].thread, bytes, cpus); }

// start creates a worker that takes no signals but those of its own faults: the others are the Go runtime's.
static int start(worker *w) {
	sigset_t most, before;
	sigfillset(&most);
	sigdelset(&most, SIGSEGV), sigdelset(&most, SIGBUS), sigdelset(&most, SIGFPE), sigdelset(&most, SIGILL), sigdelset(&most, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &most, &before);
	int failed = pthread_create(&w->thread, NULL, work, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return failed;
}

wn_ctx *wn_open(int threads) {
	wn_ctx *c = aligned_alloc(64, (sizeof *c + 63) / 64 * 64);
	if (!c) return NULL;
	*c = (wn_ctx){.threads = threads};
	c->workers = calloc(threads, sizeof *c->workers);
	c->shares = aligned_alloc(64, threads * sizeof *c->shares);
	if (!c->workers || !c->shares) {
		free(c->workers);
		free(c->shares);
		free(c);
		return NULL;
	}
	for (int i = 1; i < threads; i++) {
		worker *w = &c->workers[i - 1];
		w->ctx = c, w->number = i;
		if (start(w)) {
			c->threads = i;
			wn_close(c);
			return NULL;
		}
	}
	return c;
}

void wn_close(wn_ctx *c) {
	atomic_store(&c->closing, 1);
	atomic_fetch_add(&c->state, JOB_STEP);
	futex_wake(&c->state, 1 << 30);
	for (int i = 1; i < c->threads; i++) pthread_join(c->workers[i - 1].thread, NULL);
	free(c->workers);
	free(c->shares);
	free(c->scratch);
	free(c);
}

void *wn_scratch(wn_ctx *c, int64_t bytes) {
	bytes = wn_max((bytes + 63) / 64 * 64, 64);
	c->want += bytes;
	if (c->used + bytes <= c->size) {
		char *p = c->scratch + c->used;
		c->used += bytes;
		return p;
	}
	char *p = aligned_alloc(64, bytes);
	char **list = p ? realloc(c->spilled, (c->spills + 1) * sizeof *list) : NULL;
	if (!list) {
		free(p);
		c->failed = WN_NO_MEMORY;
		return NULL;
	}
	c->spilled = list;
	c->spilled[c->spills++] = p;
	return p;
}

// reset takes back what an operation used. What did not fit makes the block larger for the next time.
static void reset(wn_ctx *c) {
	if (c->spills) {
		while (c->spills) free(c->spilled[--c->spills]);
		free(c->spilled);
		c->spilled = NULL;
		free(c->scratch);
		c->scratch = aligned_alloc(64, c->want);
		c->size = c->scratch ? c->want : 0;
	}
	c->used = c->want = 0;
}

int64_t wn_live(wn_ctx *c, const void *n, int64_t most) {
	if (!n) return most;
	int64_t live = *(const int32_t *)n;
	if (live <= most) return live;
	c->failed = WN_TOO_MANY_ROWS;
	return 0;
}

int wn_check_rows(wn_ctx *c, const int32_t *rows, int64_t count, int64_t most) {
	for (int64_t i = 0; i < count; i++)
		if (rows[i] < 0 || rows[i] >= most) c->failed = WN_NO_SUCH_ROW;
	return !c->failed;
}

int64_t wn_following(const wn_ctx *c, const wn_op *op) { return c->end - op - 1; }

void wn_skip(wn_ctx *c, int64_t count) { c->at += count; }

int wn_execute(wn_ctx *c, const wn_op *ops, int64_t count) {
	c->failed = WN_OK;
	c->end = ops + count;
	for (c->at = ops; c->at < c->end && !c->failed; c->at++) {
		c->at->run(c, c->at);
		reset(c);
	}
	return c->failed;
}
