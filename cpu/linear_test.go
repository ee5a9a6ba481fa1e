//go:build linux && cgo && (amd64 || arm64)

package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// scales are the offsets of the binary16 numbers in a block: what random bytes must not fill.
var scales = map[*quant.Format][]int{quant.Q4_0: {0}, quant.Q4_1: {0, 2}, quant.Q8_0: {0}, quant.Q4_K: {0, 2}, quant.Q5_K: {0, 2}, quant.Q6_K: {208},
	quant.Q5_0: {0}, quant.Q5_1: {0, 2}, quant.IQ4_NL: {0}, quant.Q3_K: {108}, quant.IQ4_XS: {0}}

// randomWeight makes a matrix in which every code, scale and sign occurs.
func randomWeight(r *rand.Rand, f *quant.Format, rows, cols int) tensor.Mat {
	b := make([]byte, rows*f.RowBytes(cols))
	if f.Block == 1 {
		v := normal(r, rows*cols)
		f.Encode(b, v)
		return tensor.HostMat("w", f, rows, cols, b)
	}
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for at := 0; at < len(b); at += f.Bytes {
		for _, off := range scales[f] {
			binary.LittleEndian.PutUint16(b[at+off:], quant.F32ToF16(float32(r.NormFloat64())/64))
		}
		if f == quant.MXFP4 {
			b[at] = 120 + b[at]%4
		}
	}
	return tensor.HostMat("w", f, rows, cols, b)
}

func normal(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func norm(v []float32) (sum float64) {
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

var allFormats = []*quant.Format{quant.F32, quant.F16, quant.BF16, quant.Q4_0, quant.Q4_1, quant.Q8_0, quant.Q4_K, quant.Q5_K, quant.Q6_K,
	quant.Q5_0, quant.Q5_1, quant.IQ4_NL, quant.MXFP4, quant.Q3_K, quant.IQ4_XS}

func TestLinearAtGuardPages(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, v := range variants(t) {
		for _, e := range []end{front, back} {
			for _, f := range allFormats {
				t.Run(fmt.Sprintf("%s %s %s", v, e, f), func(t *testing.T) { atGuardPages(t, r, guarded(t, v, 3, e), f) })
			}
		}
	}
}

func atGuardPages(t *testing.T, r *rand.Rand, d *device, f *quant.Format) {
	q := d.Queue()
	for _, blocks := range []int{1, 2, 5} {
		cols := f.Block * blocks
		if f.Block == 1 {
			cols = []int{1, 515, 48}[blocks/2]
		}
		for _, rows := range []int{1, 2, 15, 16, 17, 70} {
			w := randomWeight(r, f, rows, cols)
			packed, bias := loaded(t, d, w), f32(t, d, 1, rows, normal(r, rows))
			for _, n := range []int{0, 1, 2, 3, 4, 5, 8, 9, 15, 29} {
				op := tensor.Linear{X: f32(t, d, n, cols, normal(r, n*cols)), W: packed, Y: f32(t, d, n, rows, nil), N: count(t, d, n)}
				if n%2 == 1 {
					op.B = bias
				}
				q.Run(&op)
				finish(t, q)
				compare(t, fmt.Sprintf("%d x %d, %d rows", rows, cols, n), op, w)
			}
		}
	}
}

// compare holds a product against its meaning.
func compare(t *testing.T, what string, op tensor.Linear, w tensor.Mat) {
	t.Helper()
	got := slices.Clone(op.Y.F32())
	op.W = w
	op.Reference()
	row := make([]float32, w.Cols)
	for j := range w.Rows {
		w.RowF32(row, j)
		long := norm(row)
		for i := range op.X.Rows {
			x := norm(op.X.F32()[i*w.Cols : (i+1)*w.Cols])
			diff := math.Abs(float64(got[i*w.Rows+j]) - float64(op.Y.F32()[i*w.Rows+j]))
			if limit := tensor.Tolerance(w.Format)*long*x + 1e-6*math.Abs(float64(op.Y.F32()[i*w.Rows+j])); !(diff <= limit) {
				t.Fatalf("%s: y[%d,%d] = %g, want %g, off by %g of %g", what, i, j, got[i*w.Rows+j], op.Y.F32()[i*w.Rows+j], diff, limit)
			}
		}
	}
}

// A row's bits do not depend on the batch, the threads or the variant.
func TestLinearRowStandsAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, f := range allFormats {
		short := max(f.Block*3, 576+f.Block*3%2)
		if f.Block == 256 {
			short = 768
		}
		standsAlone(t, r, randomWeight(r, f, 200, short), 37)
		standsAlone(t, r, randomWeight(r, f, 40, 2304), 210) // more columns and rows than AMX takes at a time
	}
}

func standsAlone(t *testing.T, r *rand.Rand, w tensor.Mat, n int) {
	t.Helper()
	rows, cols, f := w.Rows, w.Cols, w.Format
	x := normal(r, n*cols)
	var want []float32
	for _, v := range variants(t) {
		for _, threads := range []int{1, 2, 5} {
			d := open(t, v, threads)
			q := d.Queue()
			packed := loaded(t, d, w)
			all := tensor.Linear{X: f32(t, d, n, cols, x), W: packed, Y: f32(t, d, n, rows, nil)}
			q.Run(&all)
			one := tensor.Linear{X: f32(t, d, 1, cols, x[5*cols:6*cols]), W: packed, Y: f32(t, d, 1, rows, nil)}
			q.Run(&one)
			finish(t, q)
			if want == nil {
				want = slices.Clone(all.Y.F32())
			}
			if !slices.Equal(all.Y.F32(), want) {
				t.Errorf("%s, %s, %d threads: other bits than %s with one thread", f, v, threads, variants(t)[0])
			}
			if !slices.Equal(one.Y.F32(), want[5*rows:6*rows]) {
				t.Errorf("%s, %s, %d threads: a row alone has other bits than in the batch", f, v, threads)
			}
		}
	}
}

func BenchmarkLinear(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, v := range variants(b) {
		for _, f := range allFormats {
			for _, shape := range [][3]int{{576, 1536, 1}, {4096, 4096, 1}, {4096, 4096, 64}} {
				for _, threads := range []int{1, 2} {
					b.Run(fmt.Sprintf("%s/%s/%dx%dx%d/threads=%d", v, f, shape[0], shape[1], shape[2], threads), func(b *testing.B) {
						benchLinear(b, open(b, v, threads), r, f, shape)
					})
				}
			}
		}
	}
}

// spent is the processor time of the process, in seconds.
func spent() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// benchLinear streams through as many copies of the matrix as do not fit a cache, like a decode step.
func benchLinear(b *testing.B, d *device, r *rand.Rand, f *quant.Format, shape [3]int) {
	rows, cols, n := shape[0], shape[1], shape[2]
	w := randomWeight(r, f, rows, cols)
	copies := 1
	if n == 1 {
		copies = 1 + (160<<20)/w.Bytes()
	}
	x, y := f32(b, d, n, cols, normal(r, n*cols)), f32(b, d, n, rows, nil)
	var ops []*tensor.Linear
	for range copies {
		ops = append(ops, &tensor.Linear{X: x, W: loaded(b, d, w), Y: y})
	}
	q := d.Queue()
	b.ResetTimer()
	start := spent()
	for range b.N {
		for _, o := range ops {
			q.Run(o)
		}
		finish(b, q)
	}
	bytes, flops := ops[0].Cost()
	seconds := b.Elapsed().Seconds() / float64(b.N*copies)
	if d.options.Threads == 1 { // a busy machine does not disturb it
		b.ReportMetric(float64(flops)*float64(b.N*copies)/(spent()-start)/1e9, "GOP/cpu-s")
	}
	b.ReportMetric(float64(bytes)/seconds/1e9, "GB/s")
	b.ReportMetric(float64(flops)/seconds/1e9, "GOP/s")
	b.StopTimer()
	for _, o := range ops {
		d.Free(o.W.Buf)
	}
}
