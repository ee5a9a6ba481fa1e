// What the kernels of this folder share: descriptors of operations, the pool of threads, scratch memory.
#ifndef WN_CPU_H
#define WN_CPU_H

#include <stdint.h>
#include <stddef.h>

typedef struct wn_ctx wn_ctx;
typedef struct wn_op wn_op;
typedef void wn_run(wn_ctx *ctx, const wn_op *op);

// One operation, ready to run. What the pointers and numbers mean is said beside the kernel, in the op's .c file. Pointers lead to
// memory outside the Go heap, and a null pointer is an absent operand.
struct wn_op {
	wn_run *run;
	void *p[24];
	int64_t d[20];
	float f[8];
};

// The variants of a machine, the best first.
#ifdef __x86_64__
#define WN_VARIANTS(X) X(amx) X(avx512) X(avx2)
#else
#define WN_VARIANTS(X) X(dotprod) X(neon)
#endif

// Every operation that has a kernel. X(add, avx2) stands for wn_add_avx2, compiled from add.c. Those with weights of integer formats
// are apart: a variant may have its own of these alone.
#define WN_OPS(X, variant) WN_OTHER_OPS(X, variant) WN_WEIGHT_OPS(X, variant)
#define WN_WEIGHT_OPS(X, variant) X(ffn, variant) X(linear, variant) X(roof, variant)
#define WN_OTHER_OPS(X, variant) \
	X(add, variant) X(angles, variant) X(append, variant) X(attend, variant) X(count, variant) X(dispatch, variant) \
	X(embed, variant) X(gate_keys, variant) X(gate_queries, variant) X(gather, variant) X(glu, variant) \
	X(key_bounds, variant) X(move_tiles, variant) X(norm, variant) X(probe, variant) X(prune, variant) X(rope, variant) X(route, variant) X(sample, variant) \
	X(route_tree, variant) X(select_anchor, variant) X(select_flexprefill, variant) X(select_minference, variant) \
	X(select_pages, variant) X(select_quest, variant) X(select_ranges, variant) X(select_s2, variant) X(select_window, variant) \
	X(select_xattention, variant) X(sum, variant) X(tally, variant) X(unpack, variant)

#define WN_DECLARE_OP(op, variant) wn_run wn_##op##_##variant;
#define WN_DECLARE(variant) WN_OPS(WN_DECLARE_OP, variant)
WN_VARIANTS(WN_DECLARE)
#undef WN_DECLARE
#undef WN_DECLARE_OP

typedef struct wn_kernels {
#define WN_FIELD(op, variant) wn_run *op;
	WN_OPS(WN_FIELD, )
#undef WN_FIELD
} wn_kernels;

typedef struct wn_variant {
	const char *name;
	const char *(*lacks)(void);
	wn_kernels kernels;
} wn_variant;

#define WN_COUNT(variant) +1
enum { WN_VARIANT_COUNT = WN_VARIANTS(WN_COUNT) };
#undef WN_COUNT
extern const wn_variant wn_variants[WN_VARIANT_COUNT];

// wn_lacks names a feature that this machine lacks for a variant, "" when it has them all.
const char *wn_lacks(const wn_variant *v);

// What can go wrong while a list runs.
enum { WN_OK, WN_NO_MEMORY, WN_TOO_MANY_ROWS, WN_NO_SUCH_ROW };

// A context runs lists of operations, one list at a time, on the calling thread and threads-1 threads of its own.
wn_ctx *wn_open(int threads);
void wn_close(wn_ctx *ctx);
// wn_pin keeps a worker, from 1 to threads-1, on a set of CPUs, a cpu_set_t of so many bytes. It returns 0 or an errno.
int wn_pin(wn_ctx *ctx, int worker, const void *cpus, size_t bytes);
// wn_execute runs count operations in order and returns WN_OK or the first failure, after which nothing more has run.
int wn_execute(wn_ctx *ctx, const wn_op *ops, int64_t count);

// What follows is for kernels.

// A job is called once for each item of wn_parallel. worker is in [0, wn_threads), and no two calls at a time share it.
typedef void wn_job(void *arg, int64_t item, int worker);

// wn_parallel calls job for items 0 to items, hi excluded, on all threads, and returns when all are done. Items should take some
// 2 us or more. Each thread begins with a run of neighbours, in ascending order, and then takes what others have left.
void wn_parallel(wn_ctx *ctx, int64_t items, wn_job *job, void *arg);
int wn_threads(const wn_ctx *ctx);

// wn_scratch gives 64-byte aligned, uninitialised memory that lasts until the operation returns. NULL when there is none: the
// operation returns at once, and the list fails. Only the calling thread of the operation may use it.
void *wn_scratch(wn_ctx *ctx, int64_t bytes);

// wn_live reads how many rows are in use: *n, or most where n is absent. More than most fails the list and gives 0.
int64_t wn_live(wn_ctx *ctx, const void *n, int64_t most);

// wn_check_rows says whether all count numbers of rows are in [0, most). If not, the list fails and the operation returns.
int wn_check_rows(wn_ctx *ctx, const int32_t *rows, int64_t count, int64_t most);

// wn_following is how many operations come after op in the list, which are op[1], op[2] and so on; wn_skip says that the
// operation that runs has done the next count of them too.
int64_t wn_following(const wn_ctx *ctx, const wn_op *op);
void wn_skip(wn_ctx *ctx, int64_t count);

// WN_VALUES is how much of simple work per value an item takes.
enum { WN_VALUES = 8192 };

static inline int64_t wn_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t wn_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t wn_parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

#endif
