//go:build linux && cgo && (amd64 || arm64)

#define WN_FILE "prune_kernel.h"
#include "variants.h"
