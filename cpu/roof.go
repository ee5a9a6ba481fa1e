//go:build linux && cgo && (amd64 || arm64)

package cpu

/*
#include <stdlib.h>
#include "cpu.h"
#include "roof.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"time"
	"unsafe"
)

// roofs are the kinds of arithmetic that kernels are measured against.
var roofs = []struct {
	name string
	kind int
}{
	{PeakF32, C.WN_ROOF_F32},
	{PeakInt16, C.WN_ROOF_I16},
	{PeakInt8, C.WN_ROOF_I8},
	{PeakBF16, C.WN_ROOF_BF16},
}

// Peaks measures what a device with these options computes at most, in some 30 ms for each kind of arithmetic that the variant has on this
// machine. The threads are its own, so other work should rest meanwhile.
func Peaks(o Options) ([]Peak, error) {
	if o.Variant == "go" {
		return plainPeaks(o.Threads), nil
	}
	v, err := choose(o.Variant)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return plainPeaks(o.Threads), nil
	}
	if o.Threads <= 0 {
		o.Threads = physicalCores(runtime.GOMAXPROCS(0))
	}
	ctx := C.wn_open(C.int(o.Threads))
	if ctx == nil {
		return nil, fmt.Errorf("cpu: cannot start %d threads", o.Threads)
	}
	defer C.wn_close(ctx)
	var all []Peak
	for _, r := range roofs {
		if rate := peak(ctx, v, r.kind, 8*o.Threads); rate > 0 {
			all = append(all, Peak{r.name, rate})
		}
	}
	return all, nil
}

// peak is the best rate of a few passes of some milliseconds. The passes that find out how many steps those take are the warm-up.
func peak(ctx *C.wn_ctx, v *C.wn_variant, kind, items int) (best float64) {
	const pass, passes = 2 * time.Millisecond, 12
	steps := 1 << 10
	for n := 0; n < passes; {
		done, took := roofPass(ctx, v, [3]int{kind, steps, items})
		if done == 0 {
			return 0
		}
		if took < pass {
			steps *= 2
			continue
		}
		best = max(best, float64(done)/took.Seconds()/1e9)
		n++
	}
	return best
}

// roofPass runs a kind, steps and items once and says how many operations it was.
func roofPass(ctx *C.wn_ctx, v *C.wn_variant, d [3]int) (done int64, took time.Duration) {
	var op C.wn_op
	room := C.calloc(1, C.sizeof_int64_t)
	defer C.free(room)
	op.run, op.p[0] = v.kernels.roof, room
	for i, n := range d {
		op.d[i] = C.int64_t(n)
	}
	started := time.Now()
	if C.wn_execute(ctx, &op, 1) != C.WN_OK {
		panic("winnow: bug: cpu: a roof needs nothing that can be missing")
	}
	took = time.Since(started)
	return *(*int64)(unsafe.Pointer(room)), took
}
