// Package tensor holds matrices, the devices that keep them, and the dense operations between them.
//
// Every tensor is a matrix: further dimensions fold into rows. An operation is data (see Op); a Queue of a Device runs it.
package tensor

import (
	"fmt"
	"unsafe"

	"github.com/winnow-llm/winnow/quant"
)

// Buffer is a run of memory of one device.
type Buffer interface {
	Len() int     // bytes
	Host() []byte // the memory itself where the host can reach it, else nil
}

// Mat is a matrix: a view of rows x cols numbers in a buffer, stored row after row without gaps. The zero Mat stands for
// an operand that is absent.
//
// Layout: row i starts Off + i*Format.RowBytes(Cols) bytes into Buf. A weight that a device has loaded is the exception: its
// bytes are that device's own affair (see Device.Load).
type Mat struct {
	Rows, Cols int
	Format     *quant.Format
	Buf        Buffer // memory of one device
	Off        int    // bytes from the start of Buf to row 0
	Name       string // a weight's name in the checkpoint; "" for activations
}

// Present says whether the operand is there at all.
func (m Mat) Present() bool { return m.Buf != nil }

// RowBytes is the size of one row, in bytes.
func (m Mat) RowBytes() int { return m.Format.RowBytes(m.Cols) }

// Bytes is the size of the matrix, in bytes.
func (m Mat) Bytes() int { return m.Rows * m.RowBytes() }

// Slice is the view of rows lo to hi, hi excluded. It shares m's memory.
func (m Mat) Slice(lo, hi int) Mat {
	if lo < 0 || hi < lo || hi > m.Rows {
		panic(fmt.Sprintf("winnow: bug: tensor: rows %d:%d of %s", lo, hi, m))
	}
	m.Off += lo * m.RowBytes()
	m.Rows = hi - lo
	return m
}

// Reshape is the same memory read as rows x cols; the number of values stays.
func (m Mat) Reshape(rows, cols int) Mat {
	if rows*cols != m.Rows*m.Cols || !m.Format.Fits(cols) {
		panic(fmt.Sprintf("winnow: bug: tensor: %s read as %d x %d", m, rows, cols))
	}
	m.Rows, m.Cols = rows, cols
	return m
}

// Raw is the matrix's bytes in host memory. It panics when the device keeps them elsewhere.
func (m Mat) Raw() []byte {
	h := m.Buf.Host()
	if h == nil {
		panic("winnow: bug: tensor: " + m.String() + " is not in host memory")
	}
	return h[m.Off : m.Off+m.Bytes()]
}

// F32 is the matrix's values in host memory, in place, row after row.
func (m Mat) F32() []float32 { return view[float32](m, quant.F32) }

// I32 is the matrix's values in host memory, in place, row after row.
func (m Mat) I32() []int32 { return view[int32](m, quant.I32) }

func view[T any](m Mat, f *quant.Format) []T {
	if m.Format != f {
		panic("winnow: bug: tensor: " + m.String() + " read as " + f.Name)
	}
	raw := m.Raw()
	if len(raw) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&raw[0])), len(raw)/int(unsafe.Sizeof(*new(T))))
}

// RowF32 decodes row i into dst, which holds Cols values.
func (m Mat) RowF32(dst []float32, i int) {
	if m.Format == quant.F32 {
		copy(dst, m.F32()[i*m.Cols:(i+1)*m.Cols])
		return
	}
	b := m.RowBytes()
	m.Format.Decode(dst[:m.Cols], m.Raw()[i*b:(i+1)*b])
}

func (m Mat) String() string {
	if m.Format == nil {
		return "no matrix"
	}
	name := m.Name
	if name != "" {
		name += " "
	}
	return fmt.Sprintf("%s%d x %d %s", name, m.Rows, m.Cols, m.Format.Name)
}

// Memory is a Buffer of ordinary host memory.
type Memory struct {
	bytes  []byte
	mapped bool
}

// NewMemory wraps bytes, which stay the caller's: a mapped file, say.
func NewMemory(bytes []byte) *Memory {
	if bytes == nil {
		bytes = []byte{} // an empty matrix is in host memory too
	}
	return &Memory{bytes: bytes}
}

// NewMapped wraps bytes of a mapped file: whoever wraps the same ones again has the same weight, see Shared.
func NewMapped(bytes []byte) *Memory { return &Memory{bytes: bytes, mapped: true} }

// Mapped says whether NewMapped has made it.
func (b *Memory) Mapped() bool { return b.mapped }

// Len is the size in bytes.
func (b *Memory) Len() int { return len(b.bytes) }

// Host is the memory itself.
func (b *Memory) Host() []byte { return b.bytes }

// HostMat makes a matrix over bytes of host memory, which hold exactly rows x cols values of the format.
func HostMat(name string, f *quant.Format, rows, cols int, bytes []byte) Mat {
	m := Mat{Rows: rows, Cols: cols, Format: f, Buf: NewMemory(bytes), Name: name}
	if m.Bytes() != len(bytes) {
		panic(fmt.Sprintf("winnow: bug: tensor: %s over %d bytes", m, len(bytes)))
	}
	return m
}

// FromF32 makes a host matrix of F32 values; the slice is shared, not copied.
func FromF32(rows, cols int, v []float32) Mat {
	return HostMat("", quant.F32, rows, cols, bytesOf(v))
}

// FromI32 makes a host matrix of I32 values; the slice is shared, not copied.
func FromI32(rows, cols int, v []int32) Mat {
	return HostMat("", quant.I32, rows, cols, bytesOf(v))
}

func bytesOf[T float32 | int32](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v))
}
