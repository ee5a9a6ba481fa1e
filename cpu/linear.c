//go:build linux && cgo && (amd64 || arm64)

#define WN_WEIGHTS
#define WN_FILE "linear_kernel.h"
#include "linear.h"
#include "variants.h"
