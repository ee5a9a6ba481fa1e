// Package tensortest holds the cases of the dense operations: one list for conformance, as fuzz seeds and for benchmarks. A device that
// passes Run computes what the references mean.
package tensortest

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/winnow-llm/winnow/quant"
	"github.com/winnow-llm/winnow/tensor"
)

// Case is one op on operands drawn from a seed.
type Case struct {
	Name string
	Rows int // rows of the batch
	Make func(w *World) Trial
}

// Trial is an op with operands in host memory, ready to run; weights have names.
type Trial struct {
	Op    tensor.Op
	ByRow []*tensor.Mat // outputs that hold the same number of rows for each row of the batch
}

// World is what a case draws its operands from. Whatever rows of the batch are asked for, the numbers of each row are the same.
type World struct {
	*rand.Rand
	Total  int   // rows of the whole batch
	Picked []int // the rows asked for, in this order
}

// Spare is how many rows beyond those in use the matrices of a batch have. Nothing may read or write them.
const Spare = 2

// NewWorld is the world of a case's seed with some of its rows.
func (c Case) NewWorld(seed uint64, picked []int) *World {
	return &World{rand.New(rand.NewPCG(seed, uint64(len(c.Name)))), c.Rows, picked}
}

// All is every row of the batch.
func (c Case) All() []int {
	rows := make([]int, c.Rows)
	for i := range rows {
		rows[i] = i
	}
	return rows
}

// Floats is a host matrix of normal values.
func (w *World) Floats(rows, cols int) tensor.Mat {
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(w.NormFloat64())
	}
	return tensor.FromF32(rows, cols, v)
}

// Batch is a host matrix of normal values with each rows a row of the batch. Spare rows are NaN.
func (w *World) Batch(each, cols int) tensor.Mat { return w.Pick(w.Floats(w.Total*each, cols)) }

// Pick takes the picked rows' parts of a matrix that holds the whole batch, and adds spare rows: NaN, or -1 for integers.
func (w *World) Pick(whole tensor.Mat) tensor.Mat {
	size := whole.Bytes() / w.Total
	raw := make([]byte, 0, size*(len(w.Picked)+Spare))
	for _, i := range w.Picked {
		raw = append(raw, whole.Raw()[i*size:(i+1)*size]...)
	}
	raw = append(raw, junk(size*Spare)...)
	return tensor.HostMat("", whole.Format, whole.Rows/w.Total*(len(w.Picked)+Spare), whole.Cols, raw)
}

// junk is NaN as F32 and F16, and -1 as I32.
func junk(bytes int) []byte { return slices.Repeat([]byte{0xff, 0xff, 0xff, 0xff}, bytes/4) }

// Output is a matrix for results with each rows a row of the batch, full of what no op computes.
func (w *World) Output(f *quant.Format, each, cols int) tensor.Mat {
	rows := each * (len(w.Picked) + Spare)
	return tensor.HostMat("", f, rows, cols, junk(rows*f.RowBytes(cols)))
}

// Count is the number of rows in use.
func (w *World) Count() tensor.Mat { return tensor.FromI32(1, 1, []int32{int32(len(w.Picked))}) }

// Ints is a host matrix of the whole batch with values in [0, below).
func (w *World) Ints(cols, below int) tensor.Mat {
	v := make([]int32, w.Total*cols)
	for i := range v {
		v[i] = w.Int32N(int32(below))
	}
	return tensor.FromI32(w.Total, cols, v)
}

// Weight is a host matrix in any format, with values of ordinary size.
func (w *World) Weight(f *quant.Format, rows, cols int) tensor.Mat {
	raw := make([]byte, rows*f.RowBytes(cols))
	if f.Block == 1 && f.Encode != nil {
		f.Encode(raw, w.Floats(rows, cols).F32())
		return tensor.HostMat("w", f, rows, cols, raw)
	}
	some := blocks(f) // encoders that search take too long, and use fewer codes than there are
	for b := range slices.Chunk(raw, f.Bytes) {
		copy(b, some[w.IntN(len(some))])
	}
	return tensor.HostMat("w", f, rows, cols, raw)
}

var drawn sync.Map // *quant.Format -> [][]byte

// blocks are some blocks of a format: bytes at random that decode to ordinary values.
func blocks(f *quant.Format) [][]byte {
	if some, ok := drawn.Load(f); ok {
		return some.([][]byte)
	}
	r := rand.New(rand.NewPCG(uint64(f.Bytes), uint64(f.Block)))
	some, values := make([][]byte, 0, 64), make([]float32, f.Block)
	for len(some) < cap(some) {
		b := make([]byte, f.Bytes)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Decode(values, b)
		var top float64
		for _, v := range values {
			top = max(top, math.Abs(float64(v)))
		}
		if top > 0.1 && top < 2 {
			some = append(some, b)
		}
	}
	drawn.Store(f, some)
	return some
}

// Formats are the formats a weight can have.
func Formats() []*quant.Format {
	var fs []*quant.Format
	for _, name := range quant.Names() {
		if f := quant.ByName(name); f.Decode != nil {
			fs = append(fs, f)
		}
	}
	return fs
}
