package tensor

import (
	"errors"
	"fmt"
	"sync"
)

// Shadowed is d, with every op run a second time by its Reference on host copies of what it reads, and report called with the first
// value of each output on which the two differ too much. The device's results stay as they are. It is as slow as the Reference.
//
// Weights are compared with their original form, which Load keeps. Ops that share a layout, plan or cache are rebound for the time of
// a run, so one op runs at a time over all queues of the device.
func Shadowed(d Device, report func(Mismatch)) Device {
	s := &shadow{weights: map[place]Mat{}, report: report}
	s.Device, s.step = d, s.run
	return s
}

// place is where a loaded weight begins.
type place struct {
	buf Buffer
	off int
}

type shadow struct {
	stepped
	report func(Mismatch)

	running sync.Mutex // held for a run
	mu      sync.Mutex // guards weights
	weights map[place]Mat
}

// Load keeps the host form of the weight, which must outlive the device's.
func (s *shadow) Load(w Mat) (Mat, error) {
	m, err := s.Device.Load(w)
	if err == nil {
		s.mu.Lock()
		s.weights[place{m.Buf, m.Off}] = w
		s.mu.Unlock()
	}
	return m, err
}

// Reload is refused: there would be no host form that lasts.
func (s *shadow) Reload(Mat, Mat) error {
	return errors.New("tensor: a shadowed device keeps its weights")
}

// Stack is refused likewise.
func (s *shadow) Stack(Mat, int) (Mat, error) {
	return Mat{}, fmt.Errorf("%w: a shadowed device keeps its weights", ErrStack)
}

// Free forgets the weights that lie in the buffer.
func (s *shadow) Free(b Buffer) {
	s.mu.Lock()
	for p := range s.weights {
		if p.buf == b {
			delete(s.weights, p)
		}
	}
	s.mu.Unlock()
	s.Device.Free(b)
}

// run copies the operands, runs the op on the device, then on the copies, and compares.
func (s *shadow) run(q Queue, op Op) error {
	s.running.Lock()
	defer s.running.Unlock()
	if err := q.Sync(); err != nil {
		return err
	}
	in, out := op.Operands()
	copies := s.copies(q, append(append([]*Mat(nil), in...), out...))
	q.Run(op)
	if err := q.Sync(); err != nil {
		return err
	}
	have := make([][]byte, len(out))
	for i, m := range out {
		if m.Present() {
			have[i] = readMat(q, *m)
		}
	}
	defer rebind(copies)()
	op.Reference()
	for i, m := range out {
		if !m.Present() {
			continue
		}
		if miss, differ := Compare(op, m, have[i]); differ {
			s.report(miss)
		}
	}
	return q.Sync()
}

// span is a run of a buffer's bytes that some operands cover.
type span struct{ lo, hi int }

// copies gives each operand its twin in host memory. Operands that share memory share it in the copy too.
func (s *shadow) copies(q Queue, ms []*Mat) map[*Mat]Mat {
	twins, spans := map[*Mat]Mat{}, map[Buffer]span{}
	s.mu.Lock()
	for _, m := range ms {
		if !m.Present() {
			continue
		}
		if w, ok := s.weights[place{m.Buf, m.Off}]; ok {
			twins[m] = w.Slice(0, m.Rows)
			continue
		}
		c, ok := spans[m.Buf]
		if !ok {
			c = span{m.Off, m.Off}
		}
		spans[m.Buf] = span{min(c.lo, m.Off), max(c.hi, m.Off+m.Bytes())}
	}
	s.mu.Unlock()
	memory := map[Buffer]*Memory{}
	for buf, c := range spans {
		b := make([]byte, c.hi-c.lo)
		q.Read(b, buf, c.lo)
		memory[buf] = NewMemory(b)
	}
	for _, m := range ms {
		if _, ok := twins[m]; ok || !m.Present() {
			continue
		}
		t := *m
		t.Buf, t.Off = memory[m.Buf], m.Off-spans[m.Buf].lo
		twins[m] = t
	}
	return twins
}

// rebind points operands at their twins; the result points them back.
func rebind(twins map[*Mat]Mat) (restore func()) {
	old := make(map[*Mat]Mat, len(twins))
	for m, t := range twins {
		old[m], *m = *m, t
	}
	return func() {
		for m, o := range old {
			*m = o
		}
	}
}
