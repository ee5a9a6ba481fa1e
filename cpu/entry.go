//go:build linux && cgo && (amd64 || arm64)

package cpu

// #include "cpu.h"
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/tensor"
)

// entry is a descriptor being filled: pointers and numbers one after the other, as the kernel's comment lists them.
type entry struct {
	kernels *C.wn_kernels // of the device's variant
	c       *C.wn_op
	q       *queue
	p, d, f int // pointers, integers and floats filled in
}

// runs sets the kernel.
func (e *entry) runs(k *C.wn_run) { e.c.run = k }

// operands appends the address of row 0 of each matrix, null for those that are absent.
func (e *entry) operands(mats ...tensor.Mat) {
	for i := range mats {
		e.pointer(address(&mats[i]))
	}
}

func (e *entry) pointer(p unsafe.Pointer) {
	e.c.p[e.p] = p
	e.p++
}

// address is where a matrix of the device starts.
func address(m *tensor.Mat) unsafe.Pointer {
	if !m.Present() {
		return nil
	}
	b, ok := m.Buf.(*memory)
	if !ok {
		panic("winnow: bug: cpu: " + m.String() + " is not in the device's memory") // unlike Sprintf, this leaves m on the stack
	}
	return b.at(m.Off)
}

// numbers appends integers.
func (e *entry) numbers(n ...int) {
	for _, v := range n {
		e.c.d[e.d] = C.int64_t(v)
		e.d++
	}
}

// floats appends factors.
func (e *entry) floats(f ...float32) {
	for _, v := range f {
		e.c.f[e.f] = C.float(v)
		e.f++
	}
}

// tiles appends what the kernels of all selectors take, see tiles.h: the tiles of a step, the plan, the policy that is served and the own knob.
func (e *entry) tiles(l *attention.Layout, p *attention.Plan, serves int, knob float32) {
	t := &l.Tiles
	blocks, keys := 0, 0
	if p.Blocks.Present() {
		blocks, keys = p.BlockRoom(), p.KeyRoom()
	}
	e.operands(t.First, t.N, t.Policy, t.Knob, l.Pos, p.Sink, p.Local, p.BlockAt, p.BlockN, p.Blocks, p.KeyAt, p.KeyN, p.Keys)
	e.numbers(t.Policy.Rows, serves, p.Groups, blocks, keys)
	e.floats(knob)
}

// keep copies values from the Go heap to where they stay until the list has run.
func (e *entry) keep(v []int32) unsafe.Pointer {
	p := e.room(4 * len(v))
	copy(unsafe.Slice((*int32)(p), len(v)), v)
	return p
}

// room is memory that lasts until the list has run.
func (e *entry) room(size int) unsafe.Pointer {
	at := e.q.used
	if size > listBytes/2 || at+size > listBytes {
		panic(fmt.Sprintf("winnow: bug: cpu: an op keeps %d bytes", size))
	}
	e.q.used += (size + 7) &^ 7
	return unsafe.Pointer(&e.q.kept[at])
}
