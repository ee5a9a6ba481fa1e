// What the descriptor of moe.FFN points to.
#ifndef WN_FFN_H
#define WN_FFN_H

#include "linear.h"

typedef struct wn_bank {
	wn_weights gate, up, down;
	const int32_t *slot; // one an expert; -1 = in another bank
} wn_bank;

#endif
