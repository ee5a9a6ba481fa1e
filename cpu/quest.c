//go:build linux && cgo && (amd64 || arm64)

#define WN_FILE "quest_kernel.h"
#include "variants.h"
