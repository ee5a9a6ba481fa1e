package compress

import (
	"slices"
	"time"

	"github.com/winnow-llm/winnow/moe"
	"github.com/winnow-llm/winnow/tensor"
)

// timedRows are as many as a median is taken of.
const timedRows = 64

// Time is how long a device takes for the router and for its shortlist, one row at a time as a token is decoded: medians over some rows.
func (l *LayerShortlist) Time(d tensor.Device, rows []float32) (router, shortlist time.Duration, err error) {
	b := &bench{device: d, queue: d.Queue(), dim: l.Gate.W.Cols}
	defer b.free()
	n, k := l.Gate.Spec.Experts, l.Gate.Spec.K
	w := l.Gate.W
	if w, b.err = d.Load(w); b.err == nil {
		b.owned = append(b.owned, w.Buf)
	}
	f32 := func(v []float32) tensor.Mat {
		if v == nil {
			return tensor.Mat{}
		}
		return b.place(tensor.FromF32(1, len(v), v))
	}
	route := &moe.Route{
		X: f32(make([]float32, b.dim)), W: w, Bias: f32(l.Gate.Bias), Select: f32(l.Gate.Select), Phys: b.place(tensor.FromI32(1, n, moe.EveryExpert(n).Phys)),
		Logits: f32(make([]float32, n)), IDs: b.place(tensor.FromI32(1, k, make([]int32, k))), Weights: f32(make([]float32, k)),
		N: b.place(tensor.FromI32(1, 1, []int32{1})), Spec: l.Gate.Spec,
	}
	short := l.Shortlist.Op(l.Gate, tensor.FromF32(1, b.dim, make([]float32, b.dim)))
	in, out := short.Operands()
	for _, m := range slices.Concat(in, out) {
		if m.Present() {
			*m = b.place(*m)
		}
	}
	router, shortlist = b.median(route, route.X, rows), b.median(short, short.X, rows)
	return router, shortlist, b.err
}

// bench runs ops on rows; the first failure sticks.
type bench struct {
	device tensor.Device
	queue  tensor.Queue
	dim    int
	owned  []tensor.Buffer
	err    error
}

// place is a host matrix on the device.
func (b *bench) place(m tensor.Mat) tensor.Mat {
	if b.err != nil {
		return m
	}
	out, err := tensor.NewMat(b.device, m.Format, m.Rows, m.Cols)
	if err != nil {
		b.err = err
		return m
	}
	b.owned = append(b.owned, out.Buf)
	b.queue.Write(out.Buf, out.Off, m.Raw())
	return out
}

// median is the middle time of an op that reads x, over the first rows.
func (b *bench) median(op tensor.Op, x tensor.Mat, rows []float32) time.Duration {
	var all []time.Duration
	for row := range slices.Chunk(rows[:min(len(rows), timedRows*b.dim)], b.dim) {
		if b.err != nil {
			return 0
		}
		b.queue.Write(x.Buf, x.Off, tensor.FromF32(1, b.dim, row).Raw())
		if b.err = b.queue.Sync(); b.err != nil {
			return 0
		}
		begun := time.Now()
		b.queue.Run(op)
		b.err = b.queue.Sync()
		all = append(all, time.Since(begun))
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func (b *bench) free() {
	for _, buf := range b.owned {
		b.device.Free(buf)
	}
}
