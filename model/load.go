package model

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/store"
	"github.com/winnow-llm/winnow/tensor"
)

// DType says in which numbers a model computes.
type DType string

// Native keeps the file's formats and lets the device round activations where its kernels do; Float32 widens every weight and the
// cache to F32, so that nothing is rounded beyond float32 arithmetic.
const (
	Native  DType = "native"
	Float32 DType = "f32"
)

// Options are what a caller decides about a model it loads.
type Options struct {
	DType        DType  // "" = Native
	KVType       string // how keys and values are cached: auto, f32, f16, q8_0, q4_0, mustafar-50 or mustafar-70; "" = auto. See KV
	Limits       Limits
	Rope         RopeScaling  // by which sequences may be longer
	Overlay      *moe.Overlay // which experts there are; nil = those of the checkpoint. Its bits say nothing here: formats stay the file's
	ForceOverlay bool         // take an overlay that was made for other tensors
	Apart        bool         // load each expert by itself, so that models of one mapping have in common what both have; see tensor.Shared
	ExpertBytes  int64        // of the device's memory for experts: others are read when tokens choose them; 0 = all are loaded. See resident
	Sparse       []Selection  // which selectors requests can be served by, beside reading everything
	Heads        *Heads       // of this model: the pattern by which the selector duo goes; nil = there is none
	Gates        []*Gates     // of this model, at most one of a kind: what selectors of these names score with
}

// Load brings a checkpoint onto its device. The checkpoint must stay open as long as the model: a device may read weights where
// they are mapped.
func Load(c *store.Checkpoint, place Placement, opt Options) (*Model, error) {
	spec, arch, err := describe(c)
	if err != nil {
		return nil, err
	}
	if err := opt.change(c, &spec); err != nil {
		return nil, inFile(c, err)
	}
	if opt.DType != "" && opt.DType != Native && opt.DType != Float32 {
		return nil, fmt.Errorf("%w: dtype %q, want %q or %q", ErrAssumption, opt.DType, Native, Float32)
	}
	l := &loader{c: c, arch: arch, opt: opt, device: place.Device, rows: opt.Limits.Rows, blocks: "blk"}
	m := l.model(spec)
	l.fail(m.queue.Sync())
	if l.err != nil {
		m.Close()
		return nil, inFile(c, l.err)
	}
	return m, nil
}

// inFile names the checkpoint, unless the error does already.
func inFile(c *store.Checkpoint, err error) error {
	var named *store.FileError
	if errors.As(err, &named) {
		return err
	}
	return fmt.Errorf("%s: %w", c.Path, err)
}

// loader turns tensors of a checkpoint into matrices on a device. Like the model it makes it owns what it allocates; the first
// failure sticks.
type loader struct {
	c      *store.Checkpoint
	arch   *architecture
	opt    Options
	device tensor.Device
	queue  tensor.Queue
	rows   int    // rows a step
	blocks string // what names of layers begin with: blk, or mtp
	owned  []tensor.Buffer
	err    error

	resident *resident // nil where all experts are loaded
	gated    map[GateKind]*loadedGates
}

// fail keeps the first failure.
func (l *loader) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

// alloc makes a zeroed matrix on the device.
func (l *loader) alloc(f *quant.Format, rows, cols int) tensor.Mat {
	if l.err != nil {
		return tensor.Mat{}
	}
	m, err := tensor.NewMat(l.device, f, rows, cols)
	if err != nil {
		l.fail(err)
		return m
	}
	l.owned = append(l.owned, m.Buf)
	return m
}

// upload copies a host matrix to the device in its format's own layout.
func (l *loader) upload(m tensor.Mat) tensor.Mat {
	out := l.alloc(m.Format, m.Rows, m.Cols)
	if l.err == nil {
		out.Name = m.Name
		l.queue.Write(out.Buf, out.Off, m.Raw())
	}
	return out
}

// verify checks the shapes that buffers are sized by, so that a description which its tensors do not bear out allocates nothing.
func (l *loader) verify(s *Spec) {
	l.host("token_embd.weight", s.Vocab, s.Dim)
	for i, ls := range s.Layers {
		l.host(fmt.Sprintf("blk.%d.attn_q.weight", i), ls.Heads*ls.HeadDim, s.Dim)
		l.host(fmt.Sprintf("blk.%d.attn_k.weight", i), ls.KVHeads*ls.HeadDim, s.Dim)
		switch {
		case ls.Router == nil:
			l.host(fmt.Sprintf("blk.%d.ffn_gate.weight", i), ls.Width, s.Dim)
		default:
			l.verifyExperts(&ls, i, s.Dim)
		}
	}
}

// weight loads the matrix that multiplies: rows outputs by cols inputs.
func (l *loader) weight(name string, rows, cols int) tensor.Mat {
	return l.load(l.host(name, rows, cols))
}

// load hands a host matrix to the device, widened first when everything is. What a device has copied need not stay in memory twice.
func (l *loader) load(m tensor.Mat) tensor.Mat {
	if l.err != nil {
		return m
	}
	file := m
	if l.opt.DType == Float32 {
		m = widened(m)
	}
	out, err := l.device.Load(m)
	if err != nil {
		l.fail(fmt.Errorf("load %s: %w", m, err))
		return out
	}
	l.owned = append(l.owned, out.Buf)
	if out.Buf != file.Buf {
		l.c.Release(file.Raw())
	}
	return out
}

// vector uploads one row of F32 in plain order: a norm's weight or a bias.
func (l *loader) vector(name string, n int) tensor.Mat {
	m := l.host(name, 1, n)
	if l.err != nil {
		return m
	}
	return l.upload(widened(m))
}

// host finds a tensor in the file and checks its shape; dimensions beyond the last fold into rows.
func (l *loader) host(name string, rows, cols int) tensor.Mat {
	return l.part(span{name, rows, 0, rows}, cols)
}

// part is some rows of a tensor that host would find; the others are not touched.
func (l *loader) part(at span, cols int) tensor.Mat {
	data, format := l.bytes(at, cols)
	if l.err != nil {
		return tensor.Mat{}
	}
	m := tensor.HostMat(at.name, format, at.hi-at.lo, cols, aligned(data))
	if len(data) > 0 && &m.Raw()[0] == &data[0] && !l.c.Packed(l.arch.inFile(l.c, at.name)) {
		m.Buf = tensor.NewMapped(data)
	}
	return m
}

// bytes are those of part, as they lie in the checkpoint, and their format.
func (l *loader) bytes(at span, cols int) ([]byte, *quant.Format) {
	if l.err != nil {
		return nil, nil
	}
	file := l.arch.inFile(l.c, at.name)
	t, err := l.c.Tensor(file)
	if err != nil {
		l.fail(err)
		return nil, nil
	}
	r, c := 1, 1
	if n := len(t.Shape); n > 0 {
		c = t.Shape[n-1]
		for _, d := range t.Shape[:n-1] {
			r *= d
		}
	}
	if r != at.rows || c != cols || t.Format.Decode == nil {
		l.fail(fmt.Errorf("%w: tensor %q is %s %v, want %d rows of %d", ErrSpec, file, t.Format, t.Shape, at.rows, cols))
		return nil, nil
	}
	size := t.Format.RowBytes(cols)
	return t.Data[at.lo*size : at.hi*size], t.Format
}

// widened is a host matrix in F32.
func widened(m tensor.Mat) tensor.Mat {
	if m.Format == quant.F32 || !m.Present() {
		return m
	}
	out := make([]float32, m.Rows*m.Cols)
	m.Format.Decode(out, m.Raw())
	w := tensor.FromF32(m.Rows, m.Cols, out)
	w.Name = m.Name
	return w
}

// aligned is b at an address that 4-byte numbers may be read from: b itself, or a copy where a file is careless.
func aligned(b []byte) []byte {
	if len(b) == 0 || uintptr(unsafe.Pointer(&b[0]))%4 == 0 {
		return b
	}
	words := make([]uint32, (len(b)+3)/4)
	out := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(b))
	copy(out, b)
	return out
}
