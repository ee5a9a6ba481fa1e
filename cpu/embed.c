//go:build linux && cgo && (amd64 || arm64)

#define WN_FILE "embed_kernel.h"
#include "pack.h"
#include "variants.h"
