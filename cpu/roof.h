// What a machine computes at most: kinds of arithmetic whose rate is measured with operands in registers.
#ifndef WN_ROOF_H
#define WN_ROOF_H

// WN_ROOFS lists them. X(F32, f32) is WN_ROOF_F32, which roof_kernel.h runs as roof_f32.
#define WN_ROOFS(X) \
	X(F32, f32)   /* floats, fused product and sum */ \
	X(I16, i16)   /* codes of weights with inputs of a word or two bytes, as the products with integer formats do */ \
	X(I8, i8)     /* codes with inputs of 8 bits */ \
	X(BF16, bf16) /* pairs of bfloat16 into floats, where the machine has an instruction for it */

#define WN_ROOF_NAME(name, run) WN_ROOF_##name,
enum { WN_ROOFS(WN_ROOF_NAME) WN_ROOF_COUNT };
#undef WN_ROOF_NAME

#endif
