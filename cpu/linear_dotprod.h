// Inputs as two bytes each, x = 256 * high + low with high signed and low not, which meet codes four products a lane. Codes go up to 255:
// what meets the signed bytes is the code less 128, and lift makes up for it.

// take stores a block of rounded inputs, and sums each half.
WN_INLINE void WN(take)(wn_q16 *x, v16i first, v16i second, int32_t *sum) {
	v16i half[2] = {first, second};
	for (int h = 0; h < 2; h++) {
		int16x8_t a = vmovn_high_s32(vmovn_s32(half[h].q[0]), half[h].q[1]), b = vmovn_high_s32(vmovn_s32(half[h].q[2]), half[h].q[3]);
		int8x16_t high = vshrn_high_n_s16(vshrn_n_s16(a, 8), b, 8);
		uint8x16_t low = vreinterpretq_u8_s8(vmovn_high_s16(vmovn_s16(a), b));
		vst1q_s8(x->high + 16 * h, high), vst1q_u8(x->low + 16 * h, low);
		int32_t highs = vaddlvq_s8(high);
		x->lift[h] = 128 * 256 * highs;
		sum[h] = 256 * highs + vaddlvq_u8(low);
	}
}

// A register of sums in the making: what high bytes have given and what low ones have.
typedef struct WN(parts) {
	int32x4_t high;
	uint32x4_t low;
} WN(parts);

WN_INLINE WN(parts) WN(begin)(int32_t low) { return (WN(parts)){vdupq_n_s32(0), vdupq_n_u32((uint32_t)low)}; }
WN_INLINE int32x4_t WN(end)(WN(parts) s) { return vaddq_s32(vreinterpretq_s32_u32(s.low), vshlq_n_s32(s.high, 8)); }

// add adds, for four rows, the products with columns 4*k to 4*k+3. less is the codes again, as they meet the high bytes.
WN_INLINE void WN(add)(WN(parts) *s, uint8x16_t codes, uint8x16_t less, const wn_q16 *x, const int k) {
	s->high = vdotq_laneq_s32(s->high, vreinterpretq_s8_u8(less), vld1q_s8(x->high + k / 4 * 16), k % 4);
	s->low = vdotq_laneq_u32(s->low, codes, vld1q_u8(x->low + k / 4 * 16), k % 4);
}

// wide is how many of the four registers of a line go through a block at once, so that the sums of R rows stay in registers.
WN_INLINE int WN(wide)(const int R) { return R > 2 ? 2 : 4; }

// nibbles multiplies 32 columns of 4-bit codes with R rows of x.
WN_INLINE void WN(nibbles)(const int R, const uint8_t *lines, const wn_q16 *const *x, int64_t b, v16i *sum) {
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
					WN(add)(&s[r][t], first, first, &x[r][b], 2 * i);
					WN(add)(&s[r][t], second, second, &x[r][b], 2 * i + 1);
				}
			}
		}
		for (int r = 0; r < R; r++)
			for (int t = 0; t < wide; t++) sum[r].q[at + t] = WN(end)(s[r][t]);
	}
}

// codes multiplies count lines of 8-bit codes with R rows of x from column first of the block.
WN_INLINE void WN(codes)(const int kind, const int R, const int count, const uint8_t *lines, const wn_q16 *const *x, int64_t b, const int first,
	v16i *sum) {
	(void)kind;
	const int wide = WN(wide)(R);
#pragma GCC unroll 2
	for (int at = 0; at < 4; at += wide) {
		WN(parts) s[4][4];
		for (int r = 0; r < R; r++) {
			const int32_t *lift = x[r][b].lift;
			for (int t = 0; t < wide; t++) s[r][t] = WN(begin)(count == 8 ? lift[0] + lift[1] : lift[first / 16]);
		}
#pragma GCC unroll 8
		for (int i = 0; i < count; i++) {
#pragma GCC unroll 4
			for (int t = 0; t < wide; t++) {
				uint8x16_t line = vld1q_u8(lines + 64 * i + 16 * (at + t)), less = veorq_u8(line, vdupq_n_u8(128));
#pragma GCC unroll 4
				for (int r = 0; r < R; r++) WN(add)(&s[r][t], line, less, &x[r][b], first / 4 + i);
			}
		}
		for (int r = 0; r < R; r++)
			for (int t = 0; t < wide; t++) sum[r].q[at + t] = WN(end)(s[r][t]);
	}
}
