// MoveTiles: p = tiles, moves, n; d = moves, bytes of a tile, tiles. An item is a move.

static void WN(move_item)(void *arg, int64_t item, int worker) {
	const wn_op *op = arg;
	uint8_t *tiles = op->p[0];
	const int32_t *move = (const int32_t *)op->p[1] + 2 * item;
	(void)worker;
	memcpy(tiles + move[1] * op->d[1], tiles + move[0] * op->d[1], op->d[1]);
}

void WN(wn_move_tiles)(wn_ctx *ctx, const wn_op *op) {
	int64_t moves = wn_live(ctx, op->p[2], op->d[0]);
	if (wn_check_rows(ctx, op->p[1], 2 * moves, op->d[2])) wn_parallel(ctx, moves, WN(move_item), (void *)op);
}
