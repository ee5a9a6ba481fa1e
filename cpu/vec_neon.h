// The vectors of vec.h, each four registers of 128 bits.

typedef struct v16f { float32x4_t q[4]; } v16f;
typedef struct v16i { int32x4_t q[4]; } v16i;

#define WN_EACH(type, op) ((type){{op(x.q[0]), op(x.q[1]), op(x.q[2]), op(x.q[3])}})
#define WN_EACH2(type, op) ((type){{op(x.q[0], y.q[0]), op(x.q[1], y.q[1]), op(x.q[2], y.q[2]), op(x.q[3], y.q[3])}})
#define WN_EACH3(type, op) \
	((type){{op(x.q[0], y.q[0], z.q[0]), op(x.q[1], y.q[1], z.q[1]), op(x.q[2], y.q[2], z.q[2]), op(x.q[3], y.q[3], z.q[3])}})

WN_INLINE v16f v_set(float x) { return (v16f){{vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}}; }
WN_INLINE v16f v_zero(void) { return v_set(0); }
WN_INLINE v16f v_load(const float *p) { return (v16f){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}}; }
WN_INLINE void v_store(float *p, v16f x) {
	vst1q_f32(p, x.q[0]), vst1q_f32(p + 4, x.q[1]), vst1q_f32(p + 8, x.q[2]), vst1q_f32(p + 12, x.q[3]);
}
// load4 and store4 are for a register what v_load_n and v_store_n are for the whole; n may be outside of 0 to 4.
WN_INLINE float32x4_t WN(load4)(const float *p, int64_t n) {
	float32x4_t x = vdupq_n_f32(0);
	if (n >= 4) return vld1q_f32(p);
	if (n >= 1) x = vld1q_lane_f32(p, x, 0);
	if (n >= 2) x = vld1q_lane_f32(p + 1, x, 1);
	if (n >= 3) x = vld1q_lane_f32(p + 2, x, 2);
	return x;
}
WN_INLINE void WN(store4)(float *p, float32x4_t x, int64_t n) {
	if (n >= 4) {
		vst1q_f32(p, x);
		return;
	}
	if (n >= 1) vst1q_lane_f32(p, x, 0);
	if (n >= 2) vst1q_lane_f32(p + 1, x, 1);
	if (n >= 3) vst1q_lane_f32(p + 2, x, 2);
}
WN_INLINE v16f v_load_n(const float *p, int64_t n) {
	if (n >= 16) return v_load(p);
	return (v16f){{WN(load4)(p, n), WN(load4)(p + 4, n - 4), WN(load4)(p + 8, n - 8), WN(load4)(p + 12, n - 12)}};
}
WN_INLINE void v_store_n(float *p, v16f x, int64_t n) {
	if (n >= 16) {
		v_store(p, x);
		return;
	}
	WN(store4)(p, x.q[0], n), WN(store4)(p + 4, x.q[1], n - 4), WN(store4)(p + 8, x.q[2], n - 8), WN(store4)(p + 12, x.q[3], n - 12);
}
WN_INLINE v16f v_add(v16f x, v16f y) { return WN_EACH2(v16f, vaddq_f32); }
WN_INLINE v16f v_sub(v16f x, v16f y) { return WN_EACH2(v16f, vsubq_f32); }
WN_INLINE v16f v_mul(v16f x, v16f y) { return WN_EACH2(v16f, vmulq_f32); }
WN_INLINE v16f v_div(v16f x, v16f y) { return WN_EACH2(v16f, vdivq_f32); }
WN_INLINE v16f v_fma(v16f y, v16f z, v16f x) { return WN_EACH3(v16f, vfmaq_f32); }
WN_INLINE v16f v_fnma(v16f y, v16f z, v16f x) { return WN_EACH3(v16f, vfmsq_f32); }
// FMAX and FMIN would give NaN where either is, and tell the zeros apart.
#define WN_MAX(u, v) vbslq_f32(vcgtq_f32(u, v), u, v)
#define WN_MIN(u, v) vbslq_f32(vcltq_f32(u, v), u, v)
WN_INLINE v16f v_max(v16f x, v16f y) { return WN_EACH2(v16f, WN_MAX); }
WN_INLINE v16f v_min(v16f x, v16f y) { return WN_EACH2(v16f, WN_MIN); }
#undef WN_MAX
#undef WN_MIN
WN_INLINE v16f v_abs(v16f x) { return WN_EACH(v16f, vabsq_f32); }
WN_INLINE v16f v_round(v16f x) { return WN_EACH(v16f, vrndnq_f32); }
WN_INLINE v16f v_floats(v16i x) { return WN_EACH(v16f, vcvtq_f32_s32); }
WN_INLINE v16i v_ints(v16f x) { return WN_EACH(v16i, vcvtnq_s32_f32); }
#define WN_SCALE2(u, v) vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(u), vshlq_n_s32(v, 23)))
WN_INLINE v16f v_scale2(v16f x, v16f n) {
	v16i y = v_ints(n);
	return WN_EACH2(v16f, WN_SCALE2);
}
#undef WN_SCALE2
WN_INLINE v16f v_load_f16(const void *p) {
	float16x8_t a = vreinterpretq_f16_u8(vld1q_u8(p)), b = vreinterpretq_f16_u8(vld1q_u8((const uint8_t *)p + 16));
	return (v16f){{vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a), vcvt_f32_f16(vget_low_f16(b)), vcvt_high_f32_f16(b)}};
}
WN_INLINE void v_store_f16(void *p, v16f x) {
	vst1q_u8(p, vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.q[0]), x.q[1])));
	vst1q_u8((uint8_t *)p + 16, vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.q[2]), x.q[3])));
}
WN_INLINE float v_one_f16(const void *p) {
	__fp16 h;
	memcpy(&h, p, 2);
	return h;
}
WN_INLINE v16i v_int_u8(const void *p) {
	uint8x16_t c = vld1q_u8(p);
	int16x8_t a = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(c))), b = vreinterpretq_s16_u16(vmovl_high_u8(c));
	return (v16i){{vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a), vmovl_s16(vget_low_s16(b)), vmovl_high_s16(b)}};
}
WN_INLINE v16f v_load_u8(const void *p) { return v_floats(v_int_u8(p)); }
WN_INLINE v16f v_load_bf16(const void *p) {
	uint16x8_t a = vld1q_u16(p), b = vld1q_u16((const uint16_t *)p + 8);
	return (v16f){{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(a), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(a, 16)),
		vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(b), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(b, 16))}};
}
WN_INLINE v16i v_int_i8(const void *p) {
	int8x16_t c = vld1q_s8(p);
	int16x8_t a = vmovl_s8(vget_low_s8(c)), b = vmovl_high_s8(c);
	return (v16i){{vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a), vmovl_s16(vget_low_s16(b)), vmovl_high_s16(b)}};
}
WN_INLINE v16f v_load_i8(const void *p) { return v_floats(v_int_i8(p)); }
WN_INLINE v16f v_load_kept(const void *p, unsigned mask) {
	uint16_t from[16], t[16] = {0};
	memcpy(from, p, sizeof from);
	for (const uint16_t *x = from; mask; mask &= mask - 1) t[__builtin_ctz(mask)] = *x++;
	return v_load_f16(t);
}
WN_INLINE v16f v_load_i4(const void *p, int n) {
	uint8x16_t u = vandq_u8(vshlq_u8(vld1q_u8(p), vdupq_n_s8((int8_t)-n)), vdupq_n_u8(15));
	int8x16_t c = vsubq_s8(vreinterpretq_s8_u8(u), vdupq_n_s8(8));
	int16x8_t a = vmovl_s8(vget_low_s8(c)), b = vmovl_high_s8(c);
	return v_floats((v16i){{vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a), vmovl_s16(vget_low_s16(b)), vmovl_high_s16(b)}});
}
#define WN_EVEN(u) vreinterpretq_f32_s32(vshlq_n_s32(u, 16))
#define WN_ODD(u) vreinterpretq_f32_s32(vandq_s32(u, vdupq_n_s32((int32_t)0xffff0000)))
WN_INLINE v16f v_even_bf16(v16i x) { return WN_EACH(v16f, WN_EVEN); }
WN_INLINE v16f v_odd_bf16(v16i x) { return WN_EACH(v16f, WN_ODD); }
#undef WN_EVEN
#undef WN_ODD
WN_INLINE v16i v_int_set(int32_t x) { return (v16i){{vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x)}}; }
WN_INLINE v16i v_int_zero(void) { return v_int_set(0); }
WN_INLINE v16i v_int_load(const void *p) {
	const uint8_t *b = p;
	return (v16i){{vreinterpretq_s32_u8(vld1q_u8(b)), vreinterpretq_s32_u8(vld1q_u8(b + 16)),
		vreinterpretq_s32_u8(vld1q_u8(b + 32)), vreinterpretq_s32_u8(vld1q_u8(b + 48))}};
}
WN_INLINE v16i v_int_add(v16i x, v16i y) { return WN_EACH2(v16i, vaddq_s32); }
WN_INLINE v16i v_int_sub(v16i x, v16i y) { return WN_EACH2(v16i, vsubq_s32); }
WN_INLINE v16i v_int_mul(v16i x, v16i y) { return WN_EACH2(v16i, vmulq_s32); }
WN_INLINE v16i v_int_or(v16i x, v16i y) { return WN_EACH2(v16i, vorrq_s32); }
#define WN_BITS(u) \
	vreinterpretq_s32_u8(vandq_u8((n < 0 ? vreinterpretq_u8_s32(u) >> -n : vreinterpretq_u8_s32(u) << n), vdupq_n_u8(mask)))
WN_INLINE v16i v_bits(v16i x, const int n, const uint8_t mask) { return WN_EACH(v16i, WN_BITS); }
#undef WN_BITS
#define WN_LOOKUP(u) vreinterpretq_s32_u8(vqtbl1q_u8(t, vreinterpretq_u8_s32(u)))
WN_INLINE v16i v_lookup(const uint8_t *table, v16i x) {
	uint8x16_t t = vld1q_u8(table);
	return WN_EACH(v16i, WN_LOOKUP);
}
#undef WN_LOOKUP
// Shifts by 0 have no instruction; gcc's operator leaves them out.
#define WN_CODES4(u) vreinterpretq_s32_u16(vandq_u16(vreinterpretq_u16_s32(u) >> n, vdupq_n_u16(0x000f)))
#define WN_CODES8(u) vreinterpretq_s32_u16(vandq_u16(vreinterpretq_u16_s32(u) >> n, vdupq_n_u16(0x00ff)))
WN_INLINE v16i v_codes4(v16i x, const int n) { return WN_EACH(v16i, WN_CODES4); }
WN_INLINE v16i v_codes8(v16i x, const int n) { return WN_EACH(v16i, WN_CODES8); }
#undef WN_CODES4
#undef WN_CODES8
WN_INLINE int32x4_t WN(dot4)(int32x4_t acc, int32x4_t codes, int32x4_t words) {
	int16x8_t c = vreinterpretq_s16_s32(codes), w = vreinterpretq_s16_s32(words);
	return vaddq_s32(acc, vpaddq_s32(vmull_s16(vget_low_s16(c), vget_low_s16(w)), vmull_high_s16(c, w)));
}
WN_INLINE v16i v_dot(v16i x, v16i y, v16i z) { return WN_EACH3(v16i, WN(dot4)); }
WN_INLINE void v_store_i16(int16_t *p, v16i x) {
	const uint8x16_t order = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
	int16x8_t a = vmovn_high_s32(vmovn_s32(x.q[0]), x.q[1]), b = vmovn_high_s32(vmovn_s32(x.q[2]), x.q[3]);
	vst1q_s16(p, vreinterpretq_s16_u8(vqtbl1q_u8(vreinterpretq_u8_s16(a), order)));
	vst1q_s16(p + 8, vreinterpretq_s16_u8(vqtbl1q_u8(vreinterpretq_u8_s16(b), order)));
}

#undef WN_EACH
#undef WN_EACH2
#undef WN_EACH3
