//go:build linux && cgo && (amd64 || arm64)

#include "roof.h"

#define WN_WEIGHTS
#define WN_FILE "roof_kernel.h"
#include "variants.h"
