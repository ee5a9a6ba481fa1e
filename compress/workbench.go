package compress

import "github.com/winnow-llm/winnow/tensor"

// workbench is a device on which a few ops run by themselves. The first failure sticks.
type workbench struct {
	device tensor.Device
	queue  tensor.Queue
	owned  []tensor.Buffer
	err    error
}

func newWorkbench(d tensor.Device) *workbench { return &workbench{device: d, queue: d.Queue()} }

// place is a host matrix on the device, in plain order.
func (b *workbench) place(m tensor.Mat) tensor.Mat {
	out := b.alloc(m)
	if b.err == nil {
		b.queue.Write(out.Buf, out.Off, m.Raw())
	}
	return out
}

// alloc is a matrix on the device of the shape of another.
func (b *workbench) alloc(m tensor.Mat) tensor.Mat {
	if b.err != nil {
		return m
	}
	var out tensor.Mat
	if out, b.err = tensor.NewMat(b.device, m.Format, m.Rows, m.Cols); b.err != nil {
		return m
	}
	b.owned = append(b.owned, out.Buf)
	return out
}

// load is a host matrix as the device loads weights.
func (b *workbench) load(m tensor.Mat) tensor.Mat {
	if b.err != nil {
		return m
	}
	var out tensor.Mat
	if out, b.err = b.device.Load(m); b.err != nil {
		return m
	}
	b.owned = append(b.owned, out.Buf)
	return out
}

// free gives everything back.
func (b *workbench) free() {
	for _, buf := range b.owned {
		b.device.Free(buf)
	}
	b.owned = nil
}
