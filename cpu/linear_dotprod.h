// Inputs as two signed bytes each, x = 16 * high + low, which meet signed codes four products a lane. Codes go up to 255: what meets the
// bytes is the code less 128, and begin makes up for it.

// take stores a block of rounded inputs, and sums each half.
WN_INLINE void WN(take)(wn_rounded *x, v16i first, v16i second, int32_t *sum) {
	v16i half[2] = {first, second};
	for (int h = 0; h < 2; h++) {
		int16x8_t a = vmovn_high_s32(vmovn_s32(half[h].q[0]), half[h].q[1]), b = vmovn_high_s32(vmovn_s32(half[h].q[2]), half[h].q[3]);
		int16x8_t high[2] = {vrshrq_n_s16(a, 4), vrshrq_n_s16(b, 4)};
		vst1q_s8(x->high + 16 * h, vmovn_high_s16(vmovn_s16(high[0]), high[1]));
		vst1q_s8(x->low + 16 * h, vmovn_high_s16(vmovn_s16(vmlsq_n_s16(a, high[0], 16)), vmlsq_n_s16(b, high[1], 16)));
		sum[h] = vaddlvq_s16(a) + vaddlvq_s16(b);
	}
}

// A register of sums in the making: what high bytes have given and what low ones have.
typedef struct WN(parts) {
	int32x4_t high, low;
} WN(parts);

WN_INLINE WN(parts) WN(begin)(int32_t low) { return (WN(parts)){vdupq_n_s32(0), vdupq_n_s32(low)}; }
WN_INLINE int32x4_t WN(end)(WN(parts) s) { return vaddq_s32(s.low, vshlq_n_s32(s.high, 4)); }

// add adds, for four rows, the products with columns 4*k to 4*k+3.
WN_INLINE void WN(add)(WN(parts) *s, uint8x16_t codes, const wn_rounded *x, const int k) {
	s->high = vdotq_laneq_s32(s->high, vreinterpretq_s8_u8(codes), vld1q_s8(x->high + k / 4 * 16), k % 4);
	s->low = vdotq_laneq_s32(s->low, vreinterpretq_s8_u8(codes), vld1q_s8(x->low + k / 4 * 16), k % 4);
}

// wide is how many of the four registers of a line go through a block at once, so that the sums of R rows stay in registers.
WN_INLINE int WN(wide)(const int R) { return R > 2 ? 2 : 4; }

// nibbles multiplies 32 columns of 4-bit codes with R rows of x.
WN_INLINE void WN(nibbles)(const int R, const uint8_t *lines, const wn_rounded *const *x, int64_t b, v16i *sum) {
	const int wide = WN(wide)(R);
#pragma GCC unroll 2
	for (int at = 0; at < 4; at += wide) {
		WN(parts) s[4][4];
		for (int r = 0; r < R; r++)
			for (int t = 0; t < wide; t++) s[r][t] = WN(begin)(0);
#pragma GCC unroll 4
		for (int i = 0; i < 4; i++) {
#pragma GCC unroll 4
			for (int t = 0; t < wide; t++) {
				uint8x16_t line = vld1q_u8(lines + 64 * i + 16 * (at + t));
				uint8x16_t first = vandq_u8(line, vdupq_n_u8(15)), second = vshrq_n_u8(line, 4);
#pragma GCC unroll 4
				for (int r = 0; r < R; r++) {
					WN(add)(&s[r][t], first, &x[r][b], 2 * i);
					WN(add)(&s[r][t], second, &x[r][b], 2 * i + 1);
				}
			}
		}
		for (int r = 0; r < R; r++)
			for (int t = 0; t < wide; t++) sum[r].q[at + t] = WN(end)(s[r][t]);
	}
}

// codes multiplies count lines of 8-bit codes with R rows of x from column first of the block.
WN_INLINE void WN(codes)(const int R, const int count, const uint8_t *lines, const wn_rounded *const *x, int64_t b, const int first, v16i *sum) {
	const int wide = WN(wide)(R);
#pragma GCC unroll 2
	for (int at = 0; at < 4; at += wide) {
		WN(parts) s[4][4];
		for (int r = 0; r < R; r++) {
			int32_t less = count == 8 ? x[r][b].by128 : 4 * x[r][b].by32[first / 16]; // 128 times the sum of what is multiplied
			for (int t = 0; t < wide; t++) s[r][t] = WN(begin)(less);
		}
#pragma GCC unroll 8
		for (int i = 0; i < count; i++) {
#pragma GCC unroll 4
			for (int t = 0; t < wide; t++) {
				uint8x16_t line = veorq_u8(vld1q_u8(lines + 64 * i + 16 * (at + t)), vdupq_n_u8(128));
#pragma GCC unroll 4
				for (int r = 0; r < R; r++) WN(add)(&s[r][t], line, &x[r][b], first / 4 + i);
			}
		}
		for (int r = 0; r < R; r++)
			for (int t = 0; t < wide; t++) sum[r].q[at + t] = WN(end)(s[r][t]);
	}
}
