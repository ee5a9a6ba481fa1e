package tensortest

import (
	"bytes"
	"fmt"

	"github.com/winnow-llm/winnow/tensor"
)

// Placed is an op whose operands have been moved to a device.
type Placed struct {
	Queue tensor.Queue

	device tensor.Device
	op     tensor.Op
	moved  map[tensor.Buffer]tensor.Buffer // host -> device
	size   map[tensor.Buffer]int           // bytes between the fences of a device buffer
	owned  []tensor.Buffer
	fence  []byte // stands before and behind every buffer, and must stay as it is
}

// Place moves the operands of an op, which lie in host memory, to the device: weights, which have names, by Load, the others byte for
// byte, with room around them that nothing may write to. Operands that share memory go on sharing it.
func Place(d tensor.Device, op tensor.Op) (*Placed, error) {
	return place(d, op, bytes.Repeat([]byte{0xa5}, 256))
}

// PlaceTight is Place without room around the operands, for devices that guard their buffers themselves.
func PlaceTight(d tensor.Device, op tensor.Op) (*Placed, error) { return place(d, op, nil) }

func place(d tensor.Device, op tensor.Op, fence []byte) (*Placed, error) {
	p := &Placed{Queue: d.Queue(), device: d, op: op, fence: fence, moved: map[tensor.Buffer]tensor.Buffer{}, size: map[tensor.Buffer]int{}}
	in, out := op.Operands()
	done := map[*tensor.Mat]bool{}
	for _, m := range append(append([]*tensor.Mat(nil), in...), out...) {
		if !m.Present() || done[m] {
			continue
		}
		done[m] = true
		var err error
		if m.Name != "" {
			err = p.load(m)
		} else {
			err = p.move(m)
		}
		if err != nil {
			p.Free()
			return nil, fmt.Errorf("place %s: %w", tensor.OperandName(op, m), err)
		}
	}
	return p, p.Queue.Sync()
}

func (p *Placed) load(m *tensor.Mat) error {
	w, err := p.device.Load(*m)
	if err != nil {
		return err
	}
	if w.Buf != m.Buf {
		p.owned = append(p.owned, w.Buf)
	}
	*m = w
	return nil
}

func (p *Placed) move(m *tensor.Mat) error {
	if p.moved[m.Buf] == nil {
		host := m.Buf.Host()
		buf, err := p.device.Alloc(len(host) + 2*len(p.fence))
		if err != nil {
			return err
		}
		p.Queue.Write(buf, 0, p.fence)
		p.Queue.Write(buf, len(p.fence), host)
		p.Queue.Write(buf, len(p.fence)+len(host), p.fence)
		p.moved[m.Buf], p.size[buf], p.owned = buf, len(host), append(p.owned, buf)
	}
	m.Buf, m.Off = p.moved[m.Buf], m.Off+len(p.fence)
	return nil
}

// Read is the bytes of an operand.
func (p *Placed) Read(m tensor.Mat) []byte {
	b := make([]byte, m.Bytes())
	p.Queue.Read(b, m.Buf, m.Off)
	return b
}

// Inputs is the bytes of what the op may not write: its inputs that are no weights and share no memory with an output.
func (p *Placed) Inputs() map[*tensor.Mat][]byte {
	in, out := p.op.Operands()
	written := map[tensor.Buffer]bool{}
	for _, m := range out {
		written[m.Buf] = true
	}
	all := map[*tensor.Mat][]byte{}
	for _, m := range in {
		if m.Present() && m.Name == "" && !written[m.Buf] {
			all[m] = p.Read(*m)
		}
	}
	return all
}

// Changed names an input that is not as before, or an operand beside whose memory something has been written; "" when all is well.
func (p *Placed) Changed(before map[*tensor.Mat][]byte) string {
	for m, b := range before {
		if !bytes.Equal(b, p.Read(*m)) {
			return tensor.OperandName(p.op, m)
		}
	}
	fence := make([]byte, len(p.fence))
	in, out := p.op.Operands()
	for _, m := range append(append([]*tensor.Mat(nil), in...), out...) {
		if !m.Present() || m.Name != "" {
			continue
		}
		for _, at := range []int{0, len(fence) + p.size[m.Buf]} {
			p.Queue.Read(fence, m.Buf, at)
			if !bytes.Equal(fence, p.fence) {
				return tensor.OperandName(p.op, m)
			}
		}
	}
	return ""
}

// Free gives the memory back.
func (p *Placed) Free() {
	for _, b := range p.owned {
		p.device.Free(b)
	}
}
