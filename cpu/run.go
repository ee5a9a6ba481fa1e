//go:build linux && cgo && (amd64 || arm64)

package cpu

/*
#include <stdlib.h>
#include "cpu.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"unsafe"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
)

// kernels is the table op -> kernel.
var kernels = table(
	on(fillAdd),
	on(fillAngles),
	on(fillAppend),
	on(fillAttend),
	on(fillCount),
	on(fillDispatch),
	on(fillEmbed),
	on(fillFFN),
	on(fillGLU),
	on(fillGateKeys),
	on(fillGateQueries),
	on(fillGather),
	on(fillKeyBounds),
	on(fillLinear),
	on(fillMoveTiles),
	on(fillNorm),
	on(fillProbe),
	on(fillPrune),
	on(fillRope),
	on(fillRoute),
	on(fillRouteTree),
	on(fillSample),
	on(fillSelectAnchor),
	on(fillSelectFlexPrefill),
	on(fillSelectMInference),
	on(fillSelectPages),
	on(fillSelectQuest),
	on(fillSelectRanges),
	on(fillSelectS2),
	on(fillSelectWindow),
	on(fillSelectXAttention),
	on(fillSum),
	on(fillTally),
	on(fillUnpack),
	byReference[*moe.RouteDSelect]("no published language model routes so, and what it reads is small"),
	byReference[*moe.RouteHash]("a few layers of few models route so, and the table itself costs nothing"),
	byReference[*moe.RouteShortlist]("no model has one unless asked for: the router it stands for is a hundredth of a step"),
)

// kernel fills the descriptor of an op. An op without fill runs by its Reference, for the reason given.
type kernel struct {
	op   reflect.Type
	fill func(*entry, tensor.Op)
	why  string
}

func on[T tensor.Op](fill func(*entry, T)) kernel {
	return kernel{op: reflect.TypeFor[T](), fill: func(e *entry, op tensor.Op) { fill(e, op.(T)) }}
}

func byReference[T tensor.Op](why string) kernel { return kernel{op: reflect.TypeFor[T](), why: why} }

func table(list ...kernel) map[reflect.Type]kernel {
	t := make(map[reflect.Type]kernel, len(list))
	for _, k := range list {
		t[k.op] = k
	}
	return t
}

const (
	listOps   = 1024    // ops in a list; a longer one runs in parts
	listBytes = 1 << 20 // what the ops of a list keep beside their descriptors; one op keeps at most half of it
)

// queue collects descriptors and runs the list when somebody wants to see a result: a decode step is one call into C.
type queue struct {
	d       *device
	mu      sync.Mutex // After reaches in from another goroutine
	ops     []C.wn_op  // in C memory
	count   int        // descriptors in use
	kept    []byte     // in C memory
	used    int        // bytes of kept in use
	entry   entry      // the descriptor being filled
	failure error      // sticks until Sync
}

func newQueue(d *device) *queue {
	ops, kept := C.calloc(listOps, C.sizeof_wn_op), C.calloc(1, listBytes)
	q := &queue{d: d, ops: unsafe.Slice((*C.wn_op)(ops), listOps), kept: unsafe.Slice((*byte)(kept), listBytes)}
	runtime.AddCleanup(q, func(p [2]unsafe.Pointer) { C.free(p[0]); C.free(p[1]) }, [2]unsafe.Pointer{ops, kept})
	return q
}

// Run appends the op's descriptor to the list. Its operands are read now, so a wrapper may rebind them afterwards.
func (q *queue) Run(op tensor.Op) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, ok := kernels[reflect.TypeOf(op)]
	if k.fill == nil {
		if !ok {
			q.d.once(fmt.Sprintf("cpu: %T has no kernel and runs in plain Go", op))
		}
		if q.flush(); q.failure == nil {
			op.Reference()
		}
		return
	}
	if q.count == len(q.ops) || q.used > listBytes/2 {
		q.flush()
	}
	c := &q.ops[q.count]
	*c = C.wn_op{}
	q.entry = entry{kernels: q.d.kernels, c: c, q: q}
	k.fill(&q.entry, op)
	if c.run == nil {
		panic(fmt.Sprintf("winnow: bug: cpu: the kernel of %T names no function", op))
	}
	q.count++
}

// flush runs the list.
func (q *queue) flush() {
	count := q.count
	q.count, q.used = 0, 0
	if count == 0 || q.failure != nil {
		return
	}
	d := q.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx == nil {
		q.failure = errors.New("cpu: the device is closed")
		return
	}
	switch C.wn_execute(d.ctx, &q.ops[0], C.int64_t(count)) {
	case C.WN_OK:
	case C.WN_NO_MEMORY:
		q.failure = errors.New("cpu: no memory left for an operation's scratch")
	case C.WN_TOO_MANY_ROWS:
		panic("winnow: bug: cpu: more rows in use than an operand has")
	case C.WN_NO_SUCH_ROW:
		panic("winnow: bug: cpu: an id is no row of its matrix")
	default:
		panic("winnow: bug: cpu: unknown result of a list")
	}
}

// Write waits for the list: its ops may still read what is there.
func (q *queue) Write(dst tensor.Buffer, off int, src []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.flush(); q.failure == nil {
		copy(dst.Host()[off:off+len(src)], src)
	}
}

func (q *queue) Read(dst []byte, src tensor.Buffer, off int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.flush(); q.failure == nil {
		copy(dst, src.Host()[off:off+len(dst)])
	}
}

// Replay builds anew each time: filling a descriptor is as cheap as finding a recorded one.
func (q *queue) Replay(_ string, build func()) { build() }

// After runs the other queue's list, so that what follows comes after it.
func (q *queue) After(other tensor.Queue) {
	o, ok := other.(*queue)
	if !ok || o == q {
		panic(fmt.Sprintf("winnow: bug: cpu: a queue waits for %T", other))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flush()
}

func (q *queue) Sync() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.flush()
	err := q.failure
	q.failure = nil
	return err
}
