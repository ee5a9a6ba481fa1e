//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is a buffer outside the Go heap, which C descriptors may point to. It starts at a multiple of 64.
type memory struct {
	bytes []byte
	chunk *chunk // where it lies
}

func (m *memory) Len() int     { return len(m.bytes) }
func (m *memory) Host() []byte { return m.bytes }

// at is the address of byte off, which may be the end.
func (m *memory) at(off int) unsafe.Pointer {
	if off < 0 || off > len(m.bytes) {
		panic(fmt.Sprintf("winnow: bug: cpu: byte %d of a buffer of %d", off, len(m.bytes)))
	}
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(m.bytes)), off)
}

// chunk is one mapping that buffers are cut from, front to back; it is unmapped when the last of them is freed.
type chunk struct {
	mapped []byte
	used   int // bytes given out
	live   int // buffers not yet freed
}

// Buffers share chunks, so that small ones stand on large pages too: streaming weights from those is a quarter faster.
const (
	chunkBytes = 32 << 20
	hugePage   = 2 << 20 // where pages are of 4 KiB; elsewhere no more than a rounding
)

// heap hands out memory. The zero heap is ready.
type heap struct {
	nodes []node            // that chunks are spread over; none = as the system likes
	say   func(line string) // told once where they are not

	mu      sync.Mutex
	current *chunk
}

// alloc gives zeroed memory. It is never given out twice: what is freed goes back to the system.
func (h *heap) alloc(bytes int) (*memory, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	size := (bytes + 63) &^ 63
	c := h.current
	if c == nil || size > len(c.mapped)-c.used {
		alone := size >= chunkBytes/2 // a large buffer has a chunk to itself, and the rest of the current one stays in use
		want := chunkBytes
		if alone {
			want = size
		}
		var err error
		if c, err = mapChunk(want); err != nil {
			return nil, fmt.Errorf("%d bytes of memory: %w", bytes, err)
		}
		h.spread(c)
		if !alone {
			h.retire()
			h.current = c
		}
	}
	m := &memory{bytes: c.mapped[c.used : c.used+bytes : c.used+bytes], chunk: c}
	c.used += size
	c.live++
	return m, nil
}

// spread distributes a fresh chunk over the nodes. Only speed depends on it.
func (h *heap) spread(c *chunk) {
	if len(h.nodes) == 0 {
		return
	}
	if err := interleave(c.mapped, h.nodes); err != nil {
		h.say(fmt.Sprintf("cpu: memory is not distributed over nodes: %v", err))
		h.nodes = nil
	}
}

// retire stops cutting from the current chunk.
func (h *heap) retire() {
	if c := h.current; c != nil && c.live == 0 {
		c.unmap()
	}
	h.current = nil
}

func (h *heap) free(m *memory) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.chunk == nil {
		panic("winnow: bug: cpu: a buffer is freed twice")
	}
	c, bytes := m.chunk, m.bytes
	m.bytes, m.chunk = nil, nil
	if c.live--; c.live == 0 && c != h.current {
		c.unmap()
		return
	}
	c.empty(bytes)
}

// empty gives the pages that only a freed buffer was on back to the system, while others keep the chunk: those of a model that is unloaded
// lie beside another's.
func (c *chunk) empty(bytes []byte) {
	if len(bytes) == 0 {
		return
	}
	page := os.Getpagesize()
	from := int(uintptr(unsafe.Pointer(&bytes[0])) - uintptr(unsafe.Pointer(&c.mapped[0])))
	to := (from + len(bytes)) &^ (page - 1)
	if from = (from + page - 1) &^ (page - 1); from < to {
		_ = unix.Madvise(c.mapped[from:to], unix.MADV_DONTNEED) // refused, it costs memory only
	}
}

func mapChunk(size int) (*chunk, error) {
	size = (size + hugePage - 1) &^ (hugePage - 1)
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // only speed depends on it: kernels without large pages refuse
	return &chunk{mapped: b}, nil
}

func (c *chunk) unmap() {
	if err := unix.Munmap(c.mapped); err != nil {
		panic(fmt.Sprintf("winnow: bug: cpu: unmap %d bytes: %v", len(c.mapped), err))
	}
	c.mapped = nil
}
