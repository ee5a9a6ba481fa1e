//go:build linux && cgo && (amd64 || arm64)

#define WN_FILE "ranges_kernel.h"
#include "variants.h"
