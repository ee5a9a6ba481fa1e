//go:build linux && cgo && (amd64 || arm64)

#include "sample.h"

#define WN_FILE "sample_kernel.h"
#include "variants.h"
