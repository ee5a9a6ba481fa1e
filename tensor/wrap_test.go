package tensor

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/winnow-llm/winnow/quant"
)

// odd is a device that adds wrongly from the value at index from on, and fails to gather. Its memory cannot be seen by the host.
type odd struct {
	Device
	from int
}

type hidden struct{ bytes []byte }

func (h *hidden) Len() int     { return len(h.bytes) }
func (h *hidden) Host() []byte { return nil }

func (d odd) Alloc(bytes int) (Buffer, error) { return &hidden{make([]byte, bytes)}, nil }
func (d odd) Free(Buffer)                     {}
func (d odd) Queue() Queue                    { return &oddQueue{from: d.from} }

// Load keeps weights backwards, so that only the original form says what they are.
func (d odd) Load(w Mat) (Mat, error) {
	b := slices.Clone(w.Raw())
	slices.Reverse(b)
	w.Buf, w.Off = &hidden{b}, 0
	return w, nil
}

type oddQueue struct {
	from  int
	after []Queue
	err   error
}

var errGather = errors.New("no gathering today")

func (q *oddQueue) Write(dst Buffer, off int, src []byte) { copy(dst.(*hidden).bytes[off:], src) }
func (q *oddQueue) Read(dst []byte, src Buffer, off int)  { copy(dst, src.(*hidden).bytes[off:]) }
func (q *oddQueue) Replay(string, func())                 {} // repeats something it recorded long ago
func (q *oddQueue) After(other Queue)                     { q.after = append(q.after, other) }

func (q *oddQueue) Sync() error {
	err := q.err
	q.err = nil
	return err
}

func (q *oddQueue) Run(op Op) {
	in, out := op.Operands()
	for _, m := range append(in, out...) {
		if h, ok := m.Buf.(*hidden); ok {
			defer func(old Mat) { *m = old }(*m)
			m.Buf = NewMemory(h.bytes)
		}
	}
	switch o := op.(type) {
	case *Gather:
		q.err = errGather
	case *Linear:
		slices.Reverse(o.W.Buf.Host())
		o.Reference()
		slices.Reverse(o.W.Buf.Host())
	case *Add:
		o.Reference()
		for i := q.from; i < len(o.Y.F32()); i++ {
			o.Y.F32()[i] += 0.5
		}
	default:
		op.Reference()
	}
}

// put copies a host matrix to the device.
func put(t *testing.T, d Device, q Queue, host Mat) Mat {
	t.Helper()
	m, err := NewMat(d, host.Format, host.Rows, host.Cols)
	if err != nil {
		t.Fatal(err)
	}
	q.Write(m.Buf, m.Off, host.Raw())
	return m
}

func TestShadowedFindsTheFirstDifference(t *testing.T) {
	var found []Mismatch
	d := Shadowed(odd{Reference(), 2}, func(m Mismatch) { found = append(found, m) })
	q := d.Queue()
	x, y := put(t, d, q, FromF32(1, 4, []float32{1, 2, 3, 4})), put(t, d, q, FromF32(1, 4, []float32{10, 20, 30, 40}))
	q.Run(&Add{X: x, Y: y})
	if err := q.Sync(); err != nil {
		t.Fatal(err)
	}
	want := Mismatch{Op: "tensor.Add", Operand: "Y", Index: 2, Have: 33.5, Want: 33, Bound: Roundoff * 44}
	if len(found) != 1 || found[0] != want {
		t.Errorf("found %v, want %v", found, want)
	}
	got := FromF32(1, 4, make([]float32, 4))
	q.Read(got.Raw(), y.Buf, y.Off)
	if !slices.Equal(got.F32(), []float32{11, 22, 33.5, 44.5}) {
		t.Errorf("the device's result has become %v", got.F32())
	}
}

func TestShadowedKnowsWeights(t *testing.T) {
	var found []Mismatch
	d := Shadowed(odd{Reference(), 99}, func(m Mismatch) { found = append(found, m) })
	q := d.Queue()
	w := FromF32(2, 2, []float32{1, 2, 3, 4})
	w.Name = "w"
	loaded, err := d.Load(w)
	if err != nil {
		t.Fatal(err)
	}
	x, y := put(t, d, q, FromF32(1, 2, []float32{5, 6})), put(t, d, q, FromF32(1, 2, []float32{0, 0}))
	op := &Linear{X: x, W: loaded, Y: y}
	q.Run(op)
	if err := q.Sync(); err != nil || len(found) > 0 {
		t.Errorf("%v, found %v", err, found)
	}
	if op.W.Buf != loaded.Buf || op.Y.Buf != y.Buf {
		t.Error("operands are not back where they were")
	}
	d.Free(loaded.Buf)
	if n := len(d.(*shadow).weights); n != 0 {
		t.Errorf("%d weights are kept after Free", n)
	}
}

func TestFailureSticksUntilSync(t *testing.T) {
	ran := 0
	d := Observed(odd{Reference(), 99}, func(Op, func(Mat) []byte) { ran++ })
	q := d.Queue()
	x, y := put(t, d, q, FromF32(1, 1, []float32{1})), put(t, d, q, FromF32(1, 1, []float32{2}))
	q.Run(&Gather{X: x, Rows: x, Y: y})
	q.Run(&Add{X: x, Y: y})
	if ran != 0 {
		t.Error("an op has run after one that failed")
	}
	if err := q.Sync(); !errors.Is(err, errGather) {
		t.Errorf("Sync gives %v", err)
	}
	q.Run(&Add{X: x, Y: y})
	if err := q.Sync(); err != nil || ran != 1 {
		t.Errorf("after Sync: %v, %d ops", err, ran)
	}
}

func TestObservedReadsOperands(t *testing.T) {
	var sums []float32
	d := Observed(odd{Reference(), 99}, func(op Op, read func(Mat) []byte) {
		if add, ok := op.(*Add); ok {
			sums = append(sums, HostMat("", quant.F32, 1, 2, read(add.Y)).F32()...)
		}
	})
	q := d.Queue()
	x, y := put(t, d, q, FromF32(1, 2, []float32{1, 2})), put(t, d, q, FromF32(1, 2, []float32{10, 20}))
	q.Replay("step", func() { q.Run(&Add{X: x, Y: y}) })
	q.Replay("step", func() { q.Run(&Add{X: x, Y: y}) })
	if want := []float32{11, 22, 12, 24}; !slices.Equal(sums, want) {
		t.Errorf("seen %v, want %v: recorded work must be seen too", sums, want)
	}
}

func TestTracedMeasuresEachOp(t *testing.T) {
	var spans []Span
	d := Traced(Reference(), func(s Span) { spans = append(spans, s) })
	q := d.Queue()
	op := &Add{X: FromF32(2, 3, make([]float32, 6)), Y: FromF32(2, 3, make([]float32, 6))}
	before := time.Now()
	q.Run(op)
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	s := spans[0]
	if bytes, flops := op.Cost(); s.Op != "tensor.Add" || s.Bytes != bytes || s.Flops != flops {
		t.Errorf("span %+v", s)
	}
	if s.Start.Before(before) || s.Duration < 0 || s.Duration > time.Since(before) {
		t.Errorf("span from %v for %v", s.Start, s.Duration)
	}
}

// A span names the format of the weights, and its counts are those of the op's shape: 5 rows of 64 numbers times 3 rows of two blocks of Q4_0, which
// are 18 bytes each.
func TestTracedKnowsWeights(t *testing.T) {
	var spans []Span
	q := Traced(Reference(), func(s Span) { spans = append(spans, s) }).Queue()
	w := Mat{Rows: 3, Cols: 64, Format: quant.Q4_0, Name: "w", Buf: NewMemory(make([]byte, 3*2*18))}
	bias := FromF32(1, 3, make([]float32, 3))
	bias.Name = "b"
	q.Run(&Linear{X: FromF32(8, 64, make([]float32, 8*64)), W: w, B: bias, Y: FromF32(8, 3, make([]float32, 8*3)), N: FromI32(1, 1, []int32{5})})
	q.Run(&Add{X: bias, Y: FromF32(1, 3, make([]float32, 3))})
	if len(spans) != 2 || spans[0].Weights != quant.Q4_0 || spans[1].Weights != nil {
		t.Fatalf("%+v", spans)
	}
	if s := spans[0]; s.Bytes != 3*2*18+5*(64+3)*4 || s.Flops != 2*5*3*64 {
		t.Errorf("%d bytes and %d operations", s.Bytes, s.Flops)
	}
}

// A wrapped queue waits for the device's own queue behind another wrapped one.
func TestAfterUnwraps(t *testing.T) {
	d := Observed(odd{Reference(), 0}, func(Op, func(Mat) []byte) {})
	a, b := d.Queue(), d.Queue()
	a.After(b)
	if have := a.(*steppedQueue).within.(*oddQueue).after; len(have) != 1 || have[0] != b.(*steppedQueue).within {
		t.Errorf("waits for %v", have)
	}
}

func TestOperandNames(t *testing.T) {
	type plan struct{ Offset Mat }
	type bank struct{ Gate Mat }
	type op struct {
		Add
		Plan  *plan
		Banks []bank
		Pages []Mat
	}
	o := op{Plan: &plan{}, Banks: make([]bank, 2), Pages: make([]Mat, 2)}
	for _, c := range []struct {
		m    *Mat
		want string
	}{
		{&o.Y, "Add.Y"}, {&o.Plan.Offset, "Plan.Offset"}, {&o.Banks[1].Gate, "Banks[1].Gate"}, {&o.Pages[1], "Pages[1]"}, {&Mat{}, ""},
	} {
		if have := OperandName(&o, c.m); have != c.want {
			t.Errorf("%q, want %q", have, c.want)
		}
	}
}
