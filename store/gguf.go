package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/winnow-llm/winnow/quant"
)

// Layout: a GGUF file, all numbers little-endian, a string being its length as u64 and its bytes:
//
//	"GGUF", u32 version, u64 tensors, u64 keys
//	keys times:    string key, u32 type, value (an array: u32 element type, u64 count, elements)
//	tensors times: string name, u32 dims, u64 of each dim, fastest first, u32 type, u64 offset from the data section
//	data section:  from the next multiple of general.alignment (32 when absent); so is each tensor in it
const (
	ggufMinKey    = 8 + 1 + 4 + 1         // bytes of the smallest key-value
	ggufMinTensor = 8 + 1 + 4 + 8 + 4 + 8 // bytes of the smallest tensor description
	ggufMaxKey    = 1<<16 - 1             // bytes of a key, by the specification
	ggufMaxName   = 256                   // bytes of a tensor name; the specification allows 64
	ggufMaxDims   = 4

	ggufAlignment = "general.alignment"

	ggufBool, ggufString, ggufArray = 7, 8, 9 // value types; those of numbers are in ggufNumbers

	maxInt = uint64(math.MaxInt) // what a slice can hold
)

// ggufTensor is one tensor description, checked on its own, not yet against the data section.
type ggufTensor struct {
	name         string
	shape        []int // slowest first
	kind         uint32
	offset, size uint64 // bytes; size 0 for a type we know nothing about
}

func readGGUF(file string, data []byte) (*Checkpoint, error) {
	r := &ggufReader{file: file, data: data}
	tensors, keys := r.header()
	meta, order := r.keys(keys)
	align := r.alignment(meta)
	infos := r.tensors(tensors, align)
	if r.err != nil {
		return nil, r.err
	}
	c := newCheckpoint(file, GGUF)
	c.Meta, c.Keys, c.Parts = meta, order, []Part{{File: file}}
	for _, t := range infos {
		c.Parts[0].Names = append(c.Parts[0].Names, t.name)
	}
	var section []byte // empty where a file without weights ends before it
	if start := (uint64(r.off) + align - 1) &^ (align - 1); start < uint64(len(data)) {
		section = data[start:]
	}
	if err := placeTensors(c, infos, section); err != nil {
		return nil, err
	}
	return c, nil
}

// placeTensors checks that each tensor lies within the data section and that no two share bytes.
func placeTensors(c *Checkpoint, infos []ggufTensor, section []byte) error {
	slices.SortStableFunc(infos, func(a, b ggufTensor) int { return cmp.Compare(a.offset, b.offset) })
	var last ggufTensor
	for _, t := range infos {
		e := &FileError{File: c.Path, Part: quoted("tensor", t.name), Err: ErrFormat}
		room := uint64(len(section))
		if t.offset > room || t.size > room-t.offset {
			e.Limit = fmt.Sprintf("%d bytes from byte %d on reach past the %d bytes of weights in the file", t.size, t.offset, room)
			return e
		}
		if t.offset < last.offset+last.size {
			e.Limit = fmt.Sprintf("starts at byte %d of the weights, inside %s", t.offset, quoted("tensor", last.name))
			return e
		}
		last = t
		if why := unreadable(t.kind); why != "" {
			e.Limit, e.Err = why, ErrUnsupported
			c.add(t.name, Tensor{}, t.size, e)
			continue
		}
		end := t.offset + t.size
		c.add(t.name, Tensor{t.name, quant.ByName(ggufTypes[t.kind].name), t.shape, section[t.offset:end:end]}, t.size, nil)
	}
	return nil
}

// ggufReader walks the description of a file. The first failure sticks; what is read after it is zero.
type ggufReader struct {
	file string
	data []byte
	off  int    // the next byte
	part string // what is being read, for errors
	err  error
}

func (r *ggufReader) fail(sentinel error, limit string, args ...any) {
	if r.err == nil {
		r.err = &FileError{r.file, r.part, int64(r.off), fmt.Sprintf(limit, args...), sentinel}
	}
}

func (r *ggufReader) left() uint64 { return uint64(len(r.data) - r.off) }

// take gives the next n bytes; nil when the file ends before or has failed already.
func (r *ggufReader) take(n uint64) []byte {
	if r.err == nil && n > r.left() {
		r.fail(ErrFormat, "needs %d bytes where the file has %d left", n, r.left())
	}
	if r.err != nil {
		return nil
	}
	b := r.data[r.off:][:n:n]
	r.off += int(n)
	return b
}

func (r *ggufReader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *ggufReader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// name reads a key or tensor name of 1 to limit bytes: printable UTF-8, since it ends up in errors and maps.
func (r *ggufReader) name(limit uint64) string {
	n := r.u64()
	if r.err == nil && (n == 0 || n > limit) {
		r.fail(ErrFormat, "name of %d bytes, 1 to %d are allowed", n, limit)
	}
	s := string(r.take(n))
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		r.fail(ErrFormat, "%s is not printable UTF-8", quoted("name", s))
	}
	return s
}

// header reads the fixed start. Counts are held against the bytes left before anything is made for them.
func (r *ggufReader) header() (tensors, keys uint64) {
	r.part = "header"
	magic := string(r.take(4))
	switch {
	case r.err != nil:
		return 0, 0
	case magic == "FUGG":
		r.fail(ErrUnsupported, "big-endian GGUF")
	case magic != "GGUF":
		r.fail(ErrFormat, "starts with %q, a GGUF file with \"GGUF\"", magic)
	}
	switch v := r.u32(); {
	case r.err != nil:
	case v == 0:
		r.fail(ErrFormat, "version 0")
	case v == 1:
		r.fail(ErrUnsupported, "GGUF version 1, 2 and 3 are read")
	case v&0xffff == 0:
		r.fail(ErrUnsupported, "big-endian GGUF (version %#x)", v)
	case v > 3:
		r.fail(ErrUnsupported, "GGUF version %d, 2 and 3 are read", v)
	}
	tensors, keys = r.u64(), r.u64()
	if r.err == nil && keys > r.left()/ggufMinKey {
		r.fail(ErrFormat, "%d keys do not fit in the %d bytes left", keys, r.left())
	}
	if r.err == nil && tensors > (r.left()-keys*ggufMinKey)/ggufMinTensor {
		r.fail(ErrFormat, "%d tensors do not fit in the %d bytes left", tensors, r.left())
	}
	return tensors, keys
}

func (r *ggufReader) keys(n uint64) (meta Meta, order []string) {
	meta = Meta{}
	for i := uint64(0); i < n && r.err == nil; i++ {
		r.part = fmt.Sprintf("key %d of %d", i+1, n)
		key := r.name(ggufMaxKey)
		r.part = quoted("key", key)
		if meta.Has(key) {
			r.fail(ErrFormat, "appears twice")
		}
		meta[key] = r.value()
		order = append(order, key)
	}
	return meta, order
}

// alignment reads the key that says how the rest of the file is laid out: to multiples of how many bytes.
func (r *ggufReader) alignment(meta Meta) uint64 {
	if r.err != nil {
		return 1
	}
	r.part = quoted("key", ggufAlignment)
	align, why := alignmentOf(meta)
	if why != "" {
		r.fail(ErrFormat, "%s", why)
	}
	return align
}

// alignmentOf is what general.alignment says, or else means; why says what is wrong with it.
func alignmentOf(meta Meta) (align uint64, why string) {
	n, ok := uint32(32), true
	if meta.Has(ggufAlignment) {
		n, ok = meta[ggufAlignment].(uint32)
	}
	switch {
	case !ok:
		return 1, fmt.Sprintf("has type %T, should have uint32", meta[ggufAlignment])
	case n < 8 || n&(n-1) != 0:
		return 1, fmt.Sprintf("%d is not a power of two from 8 on", n)
	}
	return uint64(n), ""
}

func (r *ggufReader) tensors(n, align uint64) []ggufTensor {
	var out []ggufTensor
	seen := map[string]bool{}
	for i := uint64(0); i < n && r.err == nil; i++ {
		r.part = fmt.Sprintf("tensor %d of %d", i+1, n)
		t := ggufTensor{name: r.name(ggufMaxName)}
		r.part = quoted("tensor", t.name)
		if seen[t.name] {
			r.fail(ErrFormat, "appears twice")
		}
		seen[t.name] = true
		dims := r.dims()
		t.kind, t.offset = r.u32(), r.u64()
		t.size = r.bytes(t.kind, dims)
		for _, d := range slices.Backward(dims) {
			t.shape = append(t.shape, int(d))
		}
		if t.offset%align != 0 {
			r.fail(ErrFormat, "offset %d is not a multiple of the alignment %d", t.offset, align)
		}
		out = append(out, t)
	}
	return out
}

// dims reads a shape, fastest dimension first; each is at least 1 and the product fits an int.
func (r *ggufReader) dims() []uint64 {
	n := r.u32()
	if r.err == nil && (n == 0 || n > ggufMaxDims) {
		r.fail(ErrFormat, "%d dimensions, 1 to %d are allowed", n, ggufMaxDims)
	}
	var dims []uint64
	values := uint64(1)
	for i := uint32(0); i < n && r.err == nil; i++ {
		d := r.u64()
		if r.err == nil && (d == 0 || d > maxInt/values) {
			r.fail(ErrFormat, "dimension %d of %d values: the tensor must have from 1 to %d in all", i, d, maxInt)
			return nil
		}
		values *= d
		dims = append(dims, d)
	}
	return dims
}

// bytes is the size of a tensor; 0 when its type is none that GGUF defines, since then only asking for it is an error.
func (r *ggufReader) bytes(kind uint32, dims []uint64) uint64 {
	t, ok := ggufTypes[kind]
	if r.err != nil || !ok {
		return 0
	}
	if dims[0]%t.block != 0 {
		r.fail(ErrFormat, "rows of %d values are no whole number of %s blocks of %d", dims[0], t.name, t.block)
		return 0
	}
	blocks := dims[0] / t.block
	for _, d := range dims[1:] {
		blocks *= d
	}
	if blocks > maxInt/t.bytes {
		r.fail(ErrFormat, "%d blocks of %d bytes exceed the address space", blocks, t.bytes)
		return 0
	}
	return blocks * t.bytes
}
