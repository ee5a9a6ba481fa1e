//go:build linux && cgo && amd64

#define WN_FILE "window_kernel.h"
#include "variants.h"
