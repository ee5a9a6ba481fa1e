//go:build linux && cgo && (amd64 || arm64)

#define WN_FILE "unpack_kernel.h"
#include "variants.h"
