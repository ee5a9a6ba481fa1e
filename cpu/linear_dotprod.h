// Inputs as two signed bytes each, x = 16 * high + low, which meet signed codes four products a lane. Where codes go up to 255, what meets the
// bytes is the code less 128, and begin makes up for it.

// take stores a block of rounded inputs, and sums each half.
WN_INLINE void WN(take)(wn_rounded *x, int64_t span, v16i first, v16i second, int32_t *sum) {
	(void)span;
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

// quarter is four rows of columns 4*m to 4*m+3 of 32, as line has them for all 16.
WN_INLINE uint8x16_t WN(quarter)(const int kind, const uint8_t *lines, const int m, const int t) {
	const int bits = wn_code_bits(kind);
	if (bits == 8) return vld1q_u8(lines + 64 * m + 16 * t);
	uint8x16_t nibbles = vld1q_u8(lines + 64 * (m / 2) + 16 * t);
	uint8x16_t codes = m % 2 ? vshrq_n_u8(nibbles, 4) : vandq_u8(nibbles, vdupq_n_u8(15));
	if (bits == 5) {
		uint8x16_t fifth = vld1q_u8(lines + 256 + 16 * t);
		codes = vorrq_u8(codes, vandq_u8(m > 4 ? fifth >> (m - 4) : fifth << (4 - m), vdupq_n_u8(0x10)));
	}
	if (bits == 6) {
		uint8x16_t top = vld1q_u8(lines + 256 + 64 * (m / 4) + 16 * t);
		codes = vorrq_u8(codes, vandq_u8(m % 4 > 2 ? top >> (2 * (m % 4) - 4) : top << (4 - 2 * (m % 4)), vdupq_n_u8(0x30)));
	}
	return wn_levels(kind) ? vqtbl1q_u8(vld1q_u8(wn_levels(kind)), codes) : codes;
}

// codes multiplies count lines of 4 columns of 32 with R rows of x, from line first.
WN_INLINE void WN(codes)(const int kind, const int R, const int count, const uint8_t *lines, const wn_rounded *const *x, int64_t b,
	const int first, v16i *sum) {
	const int wide = WN(wide)(R), less = wn_offset(kind) == 128;
#pragma GCC unroll 2
	for (int at = 0; at < 4; at += wide) {
		WN(parts) s[4][4];
		for (int r = 0; r < R; r++)
			for (int t = 0; t < wide; t++) s[r][t] = WN(begin)(less ? x[r][b].by128 : 0);
#pragma GCC unroll 8
		for (int i = 0; i < count; i++) {
#pragma GCC unroll 4
			for (int t = 0; t < wide; t++) {
				uint8x16_t line = WN(quarter)(kind, lines, first + i, at + t);
				if (less) line = veorq_u8(line, vdupq_n_u8(128));
#pragma GCC unroll 4
				for (int r = 0; r < R; r++) WN(add)(&s[r][t], line, &x[r][b], first + i);
			}
		}
		for (int r = 0; r < R; r++)
			for (int t = 0; t < wide; t++) sum[r].q[at + t] = WN(end)(s[r][t]);
	}
}

// sum_group multiplies group g of 32 columns with R rows of x.
WN_INLINE void WN(sum_group)(const int kind, const int R, const uint8_t *lines, const wn_rounded *const *x, int64_t b, const int g, v16i *sum) {
	const int count = wn_group_cols(kind) / 4;
	if (WN(plain)(kind)) {
		WN(nibbles)(R, lines, x, b, sum);
	} else {
		WN(codes)(kind, R, count, lines, x, b, count * g, sum);
	}
}

// sums32 multiplies 32 columns with R rows of x.
WN_INLINE void WN(sums32)(const int kind, const int R, const uint8_t *lines, const wn_rounded *const *x, int64_t b, v16i *sum) {
	WN(sum_group)(kind, R, lines, x, b, 0, sum);
}
