//go:build linux && cgo && (amd64 || arm64)

#define WN_WEIGHTS
#define WN_FILE "ffn_kernel.h"
#include "ffn.h"
#include "variants.h"
