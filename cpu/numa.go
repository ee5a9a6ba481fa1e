//go:build linux && cgo && (amd64 || arm64)

package cpu

// #include "cpu.h"
import "C"

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// node is a part of the machine whose cores reach its memory faster than that of other parts.
type node struct {
	number int
	cpus   unix.CPUSet // that the process may run on; at least one
}

const mostNodes = 1024 // the most that Linux is built for

// nodes reads which nodes the process may run on from /sys/devices/system/node. Machines that know no nodes have none.
func nodes(sys fs.FS, allowed *unix.CPUSet) (out []node, err error) {
	online, err := readList(sys, "online", mostNodes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, number := range online {
		cpus, listErr := readList(sys, fmt.Sprintf("node%d/cpulist", number), 8*int(unsafe.Sizeof(unix.CPUSet{})))
		if listErr != nil {
			return nil, listErr
		}
		n := node{number: number}
		for _, cpu := range cpus {
			if allowed.IsSet(cpu) {
				n.cpus.Set(cpu)
			}
		}
		if n.cpus.Count() > 0 { // others have memory alone, or belong to other processes
			out = append(out, n)
		}
	}
	return out, err
}

// readList reads a file like "0-3,8", of ascending numbers below most.
func readList(sys fs.FS, name string, most int) (out []int, err error) {
	f, err := sys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 16<<10))
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return nil, nil
	}
	last := -1
	for _, part := range strings.Split(text, ",") {
		first, end, isRange := strings.Cut(part, "-")
		if !isRange {
			end = first
		}
		lo, loErr := strconv.Atoi(first)
		hi, hiErr := strconv.Atoi(end)
		if loErr != nil || hiErr != nil || lo <= last || hi < lo || hi >= most {
			return nil, fmt.Errorf("%s: %.40q is no list of ascending numbers below %d", name, text, most)
		}
		for n := lo; n <= hi; n++ {
			out = append(out, n)
		}
		last = hi
	}
	return out, nil
}

// distribute spreads memory over nodes page by page, so that no node's memory alone has to feed all threads, and keeps each worker on
// one node. The thread of who calls belongs to Go and stays free.
func (d *device) distribute(over []node) {
	if len(over) < 2 {
		return
	}
	d.heap.nodes = over
	for i := 1; i < d.options.Threads; i++ {
		n := &over[i%len(over)]
		if code := C.wn_pin(d.ctx, C.int(i), unsafe.Pointer(&n.cpus), C.size_t(unsafe.Sizeof(n.cpus))); code != 0 {
			d.once(fmt.Sprintf("cpu: threads are not kept on their nodes: %v", unix.Errno(code)))
		}
	}
	d.once(fmt.Sprintf("cpu: memory and threads are distributed over %d nodes", len(over)))
}

// interleave has the pages of fresh memory lie on nodes in turn.
func interleave(b []byte, over []node) error {
	const policy = 3 // MPOL_INTERLEAVE
	const word = 8 * int(unsafe.Sizeof(uint(0)))
	var mask [mostNodes / word]uint
	for _, n := range over {
		mask[n.number/word] |= 1 << (n.number % word)
	}
	// One bit more than there are: the system takes one off.
	_, _, code := unix.Syscall6(unix.SYS_MBIND, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), policy,
		uintptr(unsafe.Pointer(&mask)), mostNodes+1, 0)
	if code != 0 {
		return code
	}
	return nil
}
