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
	b := newWorkbench(d)
	defer b.free()
	n, k, dim := l.Gate.Spec.Experts, l.Gate.Spec.K, l.Gate.W.Cols
	f32 := func(v []float32) tensor.Mat {
		if v == nil {
			return tensor.Mat{}
		}
		return b.place(tensor.FromF32(1, len(v), v))
	}
	route := &moe.Route{
		X: f32(make([]float32, dim)), W: b.load(l.Gate.W), Bias: f32(l.Gate.Bias), Select: f32(l.Gate.Select), Phys: b.place(tensor.FromI32(1, n, moe.EveryExpert(n).Phys)),
		Logits: f32(make([]float32, n)), IDs: b.place(tensor.FromI32(1, k, make([]int32, k))), Weights: f32(make([]float32, k)),
		N: b.place(tensor.FromI32(1, 1, []int32{1})), Spec: l.Gate.Spec,
	}
	short := l.Shortlist.Op(l.Gate, tensor.FromF32(1, dim, make([]float32, dim)))
	in, out := short.Operands()
	for _, m := range slices.Concat(in, out) {
		if m.Present() {
			*m = b.place(*m)
		}
	}
	router, shortlist = b.median(route, route.X, rows), b.median(short, short.X, rows)
	return router, shortlist, b.err
}

// median is the middle time of an op that reads x, over the first rows.
func (b *workbench) median(op tensor.Op, x tensor.Mat, rows []float32) time.Duration {
	dim := x.Cols
	var all []time.Duration
	for row := range slices.Chunk(rows[:min(len(rows), timedRows*dim)], dim) {
		if b.err != nil {
			return 0
		}
		b.queue.Write(x.Buf, x.Off, tensor.FromF32(1, dim, row).Raw())
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
