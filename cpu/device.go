//go:build linux && cgo && (amd64 || arm64)

package cpu

/*
// Strict ISO C keeps gcc from fusing products and sums by itself: what is fused is written so.
#cgo CFLAGS: -O3 -std=c11 -Wall -Wextra -pthread
#cgo LDFLAGS: -lm -pthread
#include "cpu.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/winnow-llm/winnow/tensor"
)

// device runs lists of ops in C on its own threads. Its memory is outside the Go heap.
type device struct {
	name    string
	kernels *C.wn_kernels
	options Options
	heap    heap
	place   func(bytes int) (*memory, error) // where buffers come from; tests put guard pages around them
	said    sync.Map                         // lines that were logged
	keeper  keeper                           // of packed weights

	mu  sync.Mutex // held while ctx runs a list
	ctx *C.wn_ctx  // nil once closed
}

// New opens the device. What it gives is an io.Closer too, unless it is the reference device: Close ends its threads, after the last
// use of its queues.
func New(o Options) (tensor.Device, error) {
	if o.Variant == "go" {
		o.say("cpu: plain Go, as asked")
		return tensor.Reference(), nil
	}
	v, err := choose(o.Variant)
	if err != nil {
		return nil, err
	}
	if v == nil {
		o.say("cpu: plain Go, the machine lacks " + lacks(&C.wn_variants[len(C.wn_variants)-1]))
		return tensor.Reference(), nil
	}
	variant := C.GoString(v.name)
	if o.Threads <= 0 {
		o.Threads = physicalCores(runtime.GOMAXPROCS(0)) // which knows the quota of a container
	}
	d := &device{name: "cpu " + variant, kernels: &v.kernels, options: o, ctx: C.wn_open(C.int(o.Threads))}
	if d.ctx == nil {
		return nil, fmt.Errorf("cpu: cannot start %d threads", o.Threads)
	}
	d.heap.say = o.say
	d.place = d.heap.alloc
	d.keeper = keeper{packed: o.Packed, after: longPacking, say: o.say}
	o.say(fmt.Sprintf("cpu: %s kernels, %d threads", variant, o.Threads))
	if !o.OneNode {
		d.distribute(d.ownNodes())
	}
	return d, nil
}

// choose finds a variant, or the best one; none where the machine is too old for any.
func choose(name string) (*C.wn_variant, error) {
	var known string
	for i := range C.wn_variants {
		v := &C.wn_variants[i]
		own, missing := C.GoString(v.name), lacks(v)
		switch {
		case missing == "" && (name == "" || name == own):
			return v, nil
		case name == own:
			return nil, fmt.Errorf("cpu variant %q: this machine lacks %s", name, missing)
		}
		known += fmt.Sprintf("%q, ", own)
	}
	if name == "" {
		return nil, nil
	}
	return nil, fmt.Errorf(`cpu variant %q: want %s"go" or "" on %s`, name, known, runtime.GOARCH)
}

// lacks names a feature that this machine would need for a variant.
func lacks(v *C.wn_variant) string { return C.GoString(C.wn_lacks(v)) }

// Name is the variant: "cpu avx2".
func (d *device) Name() string { return d.name }

// Alloc gives zeroed memory outside the Go heap.
func (d *device) Alloc(bytes int) (tensor.Buffer, error) {
	m, err := d.place(bytes)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Free gives memory back. No op that uses it may be waiting in a queue.
func (d *device) Free(b tensor.Buffer) {
	m := b.(*memory)
	d.keeper.let(m)
	d.heap.free(m)
}

// Queue makes a queue. Queues of a device take turns.
func (d *device) Queue() tensor.Queue { return newQueue(d) }

// Close ends the device's threads.
func (d *device) Close() error {
	d.keeper.stop(func(*packedModel) bool { return true })
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil {
		return errors.New("cpu: the device is closed already")
	}
	C.wn_close(d.ctx)
	d.ctx = nil
	return nil
}

// once logs a line the first time.
func (d *device) once(line string) {
	if _, again := d.said.LoadOrStore(line, true); !again {
		d.options.say(line)
	}
}
