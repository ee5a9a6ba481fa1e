// FFN: p = x, y, hidden, out, offset, token, place, weight, n, banks; d = most rows, dim, width, k, experts, banks, most
// dispatched rows.
//
// Four phases, each one work list over all active experts: round the rows of x; gate, up and their unit, rounded; down; add up. An item of a product
// is some 16-row tiles of one expert with all its rows, so weights are read once. Where spans of 256 would leave too few items, what gate and up give
// is rounded in a phase of its own.

// expert is one that has rows: where its weights are in its bank, and which dispatched rows are its.
typedef struct WN(expert) {
	const wn_bank *bank;
	int64_t slot, from, to; // dispatched rows from to to
	int64_t first, chunk; // its first item in the phase, and the outputs that an item takes: whole spans of what is rounded then
} WN(expert);

typedef struct WN(ffn_job) {
	const wn_op *op;
	int64_t rows, dim, width, k, dispatched;
	WN(expert) *expert;
	int64_t experts; // active ones
	// By dispatched row: its x, plain and rounded by 32 and by 256; its hidden row, plain and rounded; the product with up; the output.
	const void **plain, **rounded[2];
	wn_rounded **hidden_rounded;
	float **hidden, **up, **out;
	wn_rounded *x16[2], *hidden16;
	int late; // whether hidden rows are rounded once they are all there
	char *room; // each of room_bytes, a worker
	int64_t room_bytes;
} WN(ffn_job);

// blocks are floats to round, as blocks of 32.
typedef struct WN(blocks) {
	const float *x;
	wn_rounded *out;
	int64_t count, span;
} WN(blocks);

static void WN(round_item)(void *arg, int64_t item, int worker) {
	const WN(blocks) *b = arg;
	(void)worker;
	int64_t lo = item * (WN_VALUES / 32), n = wn_min(b->count - lo, WN_VALUES / 32);
	WN(wn_round)(b->x + 32 * lo, 32 * n, b->span, b->out + lo);
}

static void WN(round_rows)(wn_ctx *ctx, const float *x, int64_t values, int64_t span, wn_rounded *out) {
	WN(blocks) b = {x, out, values / 32, span};
	wn_parallel(ctx, wn_parts(b.count, WN_VALUES / 32), WN(round_item), &b);
}

// find lists the active experts, and says by which spans inputs of gate and up, and of down, are read rounded: 32, 256 or their sum.
static void WN(find)(WN(ffn_job) *j, const int32_t *offset, int64_t *spans_x, int64_t *spans_hidden) {
	const wn_bank *banks = j->op->p[9];
	for (int64_t e = 0; e < j->op->d[4]; e++) {
		if (offset[e] == offset[e + 1]) continue;
		for (int64_t b = 0; b < j->op->d[5]; b++) {
			if (banks[b].slot[e] < 0) continue;
			j->expert[j->experts++] = (WN(expert)){banks + b, banks[b].slot[e], offset[e], offset[e + 1], 0, 0};
			*spans_x |= wn_span(banks[b].gate.kind) | wn_span(banks[b].up.kind);
			*spans_hidden |= wn_span(banks[b].down.kind);
			break;
		}
	}
}

// prepare lays out scratch and pointers. 0 when there is no memory.
static int WN(prepare)(wn_ctx *ctx, WN(ffn_job) *j, int64_t spans_x, int64_t spans_hidden) {
	int64_t n = j->dispatched, blocks = j->dim / 32, hidden_blocks = j->width / 32;
	const int32_t *token = j->op->p[5];
	void **p = wn_scratch(ctx, 7 * n * sizeof *p);
	float *up = wn_scratch(ctx, n * j->width * sizeof *up);
	for (int s = 0; s < 2; s++) j->x16[s] = wn_scratch(ctx, spans_x & (s ? 256 : 32) ? j->rows * blocks * sizeof *j->x16[s] : 0);
	j->hidden16 = wn_scratch(ctx, spans_hidden ? n * hidden_blocks * sizeof *j->hidden16 : 0);
	j->room_bytes = spans_x || spans_hidden ? (WN(wn_room)(wn_max(j->dim, j->width)) + 63) / 64 * 64 : 0;
	j->room = wn_scratch(ctx, wn_threads(ctx) * j->room_bytes);
	if (!p || !up || !j->x16[0] || !j->x16[1] || !j->hidden16 || !j->room || !wn_check_rows(ctx, token, n, j->rows)) return 0;
	j->plain = (const void **)p, j->rounded[0] = j->plain + n, j->rounded[1] = j->plain + 2 * n, j->hidden_rounded = (wn_rounded **)(p + 3 * n);
	j->hidden = (float **)(p + 4 * n), j->up = j->hidden + n, j->out = j->up + n;
	for (int64_t i = 0; i < n; i++) {
		j->plain[i] = (const float *)j->op->p[0] + token[i] * j->dim;
		for (int s = 0; s < 2; s++) j->rounded[s][i] = j->x16[s] + token[i] * blocks;
		j->hidden[i] = (float *)j->op->p[2] + i * j->width;
		j->hidden_rounded[i] = j->hidden16 + i * hidden_blocks;
		j->up[i] = up + i * j->width;
		j->out[i] = (float *)j->op->p[3] + i * j->dim;
	}
	return 1;
}

// spread cuts each expert's outputs into chunks and numbers the items; down says for which phase.
static int64_t WN(spread)(WN(ffn_job) *j, int down, int threads) {
	int64_t outputs = down ? j->dim : j->width, items = 0;
	for (int64_t i = 0; i < j->experts; i++) {
		WN(expert) *e = j->expert + i;
		const wn_weights *w = down ? &e->bank->down : &e->bank->gate;
		int64_t rows = e->to - e->from, unit = down || j->late ? 32 : wn_max(32, wn_span(e->bank->down.kind));
		e->chunk = unit * wn_parts(16 * wn_grain(w, WN(wn_rate)(w->kind, rows), rows, wn_parts(outputs, 16) * j->experts, threads), unit);
		e->first = items;
		items += wn_parts(outputs, e->chunk);
	}
	return items;
}

// expert_of finds whose item it is: the last expert whose first item is not past it.
static const WN(expert) *WN(expert_of)(const WN(ffn_job) *j, int64_t item) {
	int64_t lo = 0, hi = j->experts;
	while (hi - lo > 1) {
		int64_t mid = (lo + hi) / 2;
		if (j->expert[mid].first <= item) {
			lo = mid;
		} else {
			hi = mid;
		}
	}
	return j->expert + lo;
}

// inputs are the rows of x as weights of a kind read them.
static const void *const *WN(inputs)(const WN(ffn_job) *j, int64_t kind) {
	return wn_rounds(kind) ? j->rounded[wn_span(kind) == 256] : j->plain;
}

static void WN(gate_up_item)(void *arg, int64_t item, int worker) {
	const WN(ffn_job) *j = arg;
	const WN(expert) *e = WN(expert_of)(j, item);
	int64_t lo = (item - e->first) * e->chunk, hi = wn_min(lo + e->chunk, j->width), base = e->slot * j->width;
	const wn_weights *gate = &e->bank->gate, *up = &e->bank->up;
	wn_gated g = {.gate = {gate, WN(inputs)(j, gate->kind) + e->from, j->hidden + e->from, e->to - e->from, base, NULL, j->room + worker * j->room_bytes, NULL, 0}};
	g.up = up, g.x = WN(inputs)(j, up->kind) + e->from, g.through = j->up + e->from, g.span = wn_span(e->bank->down.kind);
	if (g.span && !j->late) g.rounded = j->hidden_rounded + e->from;
	WN(wn_multiply_gated)(&g, base + lo, base + hi);
}

// late_item rounds a hidden row.
static void WN(late_item)(void *arg, int64_t row, int worker) {
	const WN(ffn_job) *j = arg;
	(void)worker;
	int64_t i = 0;
	while (i < j->experts && j->expert[i].to <= row) i++;
	int64_t span = i < j->experts ? wn_span(j->expert[i].bank->down.kind) : 0;
	if (span) WN(wn_round)(j->hidden[row], j->width, span, j->hidden_rounded[row]);
}

static void WN(down_item)(void *arg, int64_t item, int worker) {
	const WN(ffn_job) *j = arg;
	const WN(expert) *e = WN(expert_of)(j, item);
	int64_t lo = (item - e->first) * e->chunk, hi = wn_min(lo + e->chunk, j->dim), base = e->slot * j->dim;
	const wn_weights *w = &e->bank->down;
	const void *const *x = wn_rounds(w->kind) ? (const void *const *)j->hidden_rounded : (const void *const *)j->hidden;
	wn_product p = {w, x + e->from, j->out + e->from, e->to - e->from, base, NULL, j->room + worker * j->room_bytes, NULL, 0};
	WN(wn_multiply)(&p, base + lo, base + hi);
}

// Rows are added up in the order of their choices, each product rounded before it is added, as the Reference does.
static void WN(combine_item)(void *arg, int64_t row, int worker) {
	const WN(ffn_job) *j = arg;
	(void)worker;
	const int32_t *place = (const int32_t *)j->op->p[6] + row * j->k;
	const float *weight = (const float *)j->op->p[7] + row * j->k;
	float *y = (float *)j->op->p[1] + row * j->dim;
	for (int64_t i = 0; i < j->dim; i += 16) {
		v16f sum = v_zero();
		for (int64_t s = 0; s < j->k; s++)
			if (place[s] >= 0) sum = v_add(sum, v_mul(v_set(weight[s]), v_load_n(j->out[place[s]] + i, j->dim - i)));
		v_store_n(y + i, sum, j->dim - i);
	}
}

void WN(wn_ffn)(wn_ctx *ctx, const wn_op *op) {
	const int32_t *offset = op->p[4];
	WN(ffn_job) j = {.op = op, .rows = wn_live(ctx, op->p[8], op->d[0]), .dim = op->d[1], .width = op->d[2], .k = op->d[3]};
	if (j.rows == 0) return;
	j.dispatched = wn_live(ctx, offset + op->d[4], op->d[6]);
	j.expert = wn_scratch(ctx, op->d[4] * sizeof *j.expert);
	int64_t spans_x = 0, spans_hidden = 0;
	if (!j.expert) return;
	WN(find)(&j, offset, &spans_x, &spans_hidden);
	if (!WN(prepare)(ctx, &j, spans_x, spans_hidden)) return;
	if (spans_x & 32) WN(round_rows)(ctx, op->p[0], j.rows * j.dim, 32, j.x16[0]);
	if (spans_x & 256) WN(round_rows)(ctx, op->p[0], j.rows * j.dim, 256, j.x16[1]);
	j.late = spans_hidden & 256 && j.width / 256 * j.experts < 4 * wn_threads(ctx);
	int64_t items = WN(spread)(&j, 0, wn_threads(ctx));
	wn_parallel(ctx, items, WN(gate_up_item), &j);
	if (j.late) wn_parallel(ctx, j.dispatched, WN(late_item), &j);
	items = WN(spread)(&j, 1, wn_threads(ctx));
	wn_parallel(ctx, items, WN(down_item), &j);
	wn_parallel(ctx, j.rows, WN(combine_item), &j);
}
