package tensor

import (
	"errors"
	"fmt"

	"github.com/winnow-llm/winnow/quant"
)

// ErrStack refuses a Stack of weights whose rows do not fill whole pieces of a device's layout.
var ErrStack = errors.New("tensor: such weights cannot be stacked")

// Op is one computation, as data: what it reads, what it writes and a few fixed numbers. What changes from step to step is
// in the matrices it reads, so that a prepared op is run again and again and a recorded graph of ops stays true.
//
// Most ops carry a matrix N, 1 x 1 of I32: how many of their rows are in use. Rows beyond are neither read nor written.
type Op interface {
	// Reference computes the op in plain Go on host memory. It is the op's meaning: slow, obvious, one thread.
	Reference()
	// Operands lists what the op reads and writes; an operand that is both stands in both lists. A wrapping device may rebind them
	// for the time of a run. Absent operands (zero Mats) are listed too.
	Operands() (in, out []*Mat)
	// Cost is the memory traffic, in bytes, and the arithmetic, in operations, that no implementation can avoid.
	Cost() (bytes, flops int64)
}

// Device is where memory lives. Its methods may be called from any goroutine.
type Device interface {
	Name() string
	// Alloc gives zeroed memory. It fails when the device has none left.
	Alloc(bytes int) (Buffer, error)
	Free(Buffer)
	// Load brings a weight, which lies in host memory in its format's layout, into the device's own layout. The result is for
	// ops of this device only and owns its memory or shares w's, which must therefore outlive it.
	Load(w Mat) (Mat, error)
	// Reload brings a weight to where another one was: dst is what Load made of a weight of the same shape and format, or so many whole
	// rows of Stack's. It does not need w afterwards, and no op that reads dst may be under way.
	Reload(dst, w Mat) error
	// Stack gives room for n weights like w, one behind another, each to be filled by Reload: of n*w.Rows rows. It fails with
	// ErrStack where the device cannot tell such weights apart by their rows.
	Stack(w Mat, n int) (Mat, error)
	Queue() Queue
}

// Queue is where a device works, in order. One goroutine uses it at a time.
//
// Run returns nothing: the first failure sticks, later work is skipped, and Sync reports it.
type Queue interface {
	Write(dst Buffer, off int, src []byte)
	Read(dst []byte, src Buffer, off int) // waits for what writes src
	Run(op Op)                            // enqueues
	Replay(key string, build func())      // calls build, or repeats what it enqueued the last time under key
	After(q Queue)                        // what follows waits for all that q was given
	Sync() error                          // waits; returns the first failure and clears it
}

// NewMat allocates a zeroed rows x cols matrix on a device.
func NewMat(d Device, f *quant.Format, rows, cols int) (Mat, error) {
	m := Mat{Rows: rows, Cols: cols, Format: f}
	buf, err := d.Alloc(m.Bytes())
	if err != nil {
		return Mat{}, fmt.Errorf("allocate %s on %s: %w", m, d.Name(), err)
	}
	m.Buf = buf
	return m, nil
}

// Reference is the device that runs every op by its Reference method, on the caller's goroutine.
func Reference() Device { return reference{} }

type reference struct{}

func (reference) Name() string                    { return "go" }
func (reference) Alloc(bytes int) (Buffer, error) { return NewMemory(make([]byte, bytes)), nil }
func (reference) Free(Buffer)                     {}
func (reference) Load(w Mat) (Mat, error)         { return w, nil }
func (reference) Reload(dst, w Mat) error         { copy(dst.Raw(), w.Raw()); return nil }
func (reference) Queue() Queue                    { return referenceQueue{} }

// Stack is n host matrices in a row.
func (r reference) Stack(w Mat, n int) (Mat, error) { return NewMat(r, w.Format, n*w.Rows, w.Cols) }

// referenceQueue does everything at once, so there is nothing to wait for and nothing that can fail.
type referenceQueue struct{}

func (referenceQueue) Write(dst Buffer, off int, src []byte) { copy(dst.Host()[off:off+len(src)], src) }
func (referenceQueue) Read(dst []byte, src Buffer, off int)  { copy(dst, src.Host()[off:off+len(dst)]) }
func (referenceQueue) Run(op Op)                             { op.Reference() }
func (referenceQueue) Replay(_ string, build func())         { build() }
func (referenceQueue) After(Queue)                           {}
func (referenceQueue) Sync() error                           { return nil }

// Live is the number of rows in use: the value of n, or most where n is absent or the host cannot see it.
func Live(n Mat, most int) int {
	if !n.Present() || n.Buf.Host() == nil {
		return most
	}
	if v := int(n.I32()[0]); v <= most {
		return v
	}
	panic(fmt.Sprintf("winnow: bug: tensor: %d rows in use of %d", n.I32()[0], most))
}
