//go:build linux && cgo && (amd64 || arm64)

#define WN_FILE "lanes_kernel.h"
#include "variants.h"
