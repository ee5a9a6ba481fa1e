package store

import (
	"encoding/binary"
	"math"
	"slices"
)

// ggufNumber reads the values of one numeric type.
type ggufNumber struct {
	size int
	one  func(b []byte) any        // the value at b
	many func(b []byte, n int) any // n of them, as a slice
}

func number[T any](size int, at func(b []byte) T) ggufNumber {
	return ggufNumber{size, func(b []byte) any { return at(b) }, func(b []byte, n int) any {
		out := make([]T, n)
		for i := range out {
			out[i] = at(b[i*size:])
		}
		return out
	}}
}

var ggufNumbers = map[uint32]ggufNumber{
	0:        number(1, func(b []byte) uint8 { return b[0] }),
	1:        number(1, func(b []byte) int8 { return int8(b[0]) }),
	2:        number(2, binary.LittleEndian.Uint16),
	3:        number(2, func(b []byte) int16 { return int16(binary.LittleEndian.Uint16(b)) }),
	4:        number(4, binary.LittleEndian.Uint32),
	5:        number(4, func(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) }),
	6:        number(4, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }),
	ggufBool: number(1, func(b []byte) bool { return b[0] != 0 }),
	10:       number(8, binary.LittleEndian.Uint64),
	11:       number(8, func(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) }),
	12:       number(8, func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }),
}

// value reads the type and the value of a key.
func (r *ggufReader) value() any {
	kind := r.u32()
	if r.err != nil {
		return nil
	}
	if kind == ggufArray {
		return r.array()
	}
	if kind == ggufString {
		return string(r.take(r.u64()))
	}
	num, ok := ggufNumbers[kind]
	if !ok {
		r.fail(ErrFormat, "unknown value type %d", kind)
		return nil
	}
	b := r.take(uint64(num.size))
	if b == nil || !r.bools(kind, b) {
		return nil
	}
	return num.one(b)
}

func (r *ggufReader) array() any {
	kind, n := r.u32(), r.u64()
	if r.err != nil {
		return nil
	}
	if kind == ggufString {
		return r.strings(n)
	}
	num, ok := ggufNumbers[kind]
	switch {
	case kind == ggufArray:
		r.fail(ErrUnsupported, "array of arrays")
	case !ok:
		r.fail(ErrFormat, "array of unknown value type %d", kind)
	case n > r.left()/uint64(num.size):
		r.fail(ErrFormat, "array of %d values of %d bytes where the file has %d bytes left", n, num.size, r.left())
	}
	if r.err != nil {
		return nil
	}
	b := r.take(n * uint64(num.size))
	if b == nil || !r.bools(kind, b) {
		return nil
	}
	return num.many(b, int(n))
}

// bools fails on a bool that is neither 0 nor 1.
func (r *ggufReader) bools(kind uint32, b []byte) bool {
	if kind == ggufBool && slices.ContainsFunc(b, func(v byte) bool { return v > 1 }) {
		r.fail(ErrFormat, "a bool is neither 0 nor 1")
	}
	return r.err == nil
}

// strings reads n strings into one piece of memory, which all of them share: a vocabulary has hundreds of thousands.
func (r *ggufReader) strings(n uint64) []string {
	if n > r.left()/8 {
		r.fail(ErrFormat, "array of %d strings where the file has %d bytes left", n, r.left())
		return nil
	}
	start := r.off
	for i := uint64(0); i < n && r.err == nil; i++ {
		r.take(r.u64())
	}
	if r.err != nil {
		return nil
	}
	raw := string(r.data[start:r.off])
	out, at := make([]string, n), 0
	for i := range out {
		size := int(binary.LittleEndian.Uint64(r.data[start+at:]))
		out[i] = raw[at+8:][:size]
		at += 8 + size
	}
	return out
}
