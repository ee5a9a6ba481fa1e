//go:build linux && cgo && (amd64 || arm64)

#define WN_FILE "flexprefill_kernel.h"
#include "variants.h"
