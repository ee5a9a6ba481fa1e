package compress_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/compress"
)

// related are rows of inputs whose columns go together in part, and whose mean is not 0: columns follow from a third as many hidden values.
func related(r *rand.Rand, rows, cols int) [][]float32 {
	hidden := max(1, cols/3)
	mix := make([]float64, hidden*cols)
	for i := range mix {
		mix[i] = r.NormFloat64()
	}
	out := make([][]float32, rows)
	for i := range out {
		out[i] = make([]float32, cols)
		for h := range hidden {
			v := r.NormFloat64() + 0.5
			for j := range cols {
				out[i][j] += float32(v * mix[h*cols+j])
			}
		}
		for j := range cols {
			out[i][j] += float32(0.3 * r.NormFloat64())
		}
	}
	return out
}

// seen is the Hessian of inputs.
func seen(cols int, inputs [][]float32) *compress.Hessian {
	h := compress.NewHessian(cols)
	h.Add(inputs...)
	return h
}

// columnsOf is what is known of the columns of inputs.
func columnsOf(inputs [][]float32) compress.Columns {
	n := len(inputs[0])
	c := compress.Columns{Norm: make([]float64, n), Mean: make([]float64, n), Variance: make([]float64, n)}
	for _, x := range inputs {
		for j, v := range x {
			c.Mean[j] += float64(v) / float64(len(inputs))
			c.Norm[j] += float64(v) * float64(v)
		}
	}
	for j := range c.Norm {
		c.Variance[j] = c.Norm[j]/float64(len(inputs)) - c.Mean[j]*c.Mean[j]
		c.Norm[j] = math.Sqrt(c.Norm[j])
	}
	return c
}

// outputError is the squared difference of what two matrices give for inputs.
func outputError(inputs [][]float32, a, b []float64) float64 {
	cols, sum := len(inputs[0]), 0.0
	for _, x := range inputs {
		for at := 0; at < len(a); at += cols {
			d := 0.0
			for j, v := range x {
				d += float64(v) * (a[at+j] - b[at+j])
			}
			sum += d * d
		}
	}
	return sum
}

// weights are random ones, the same in float32 and in float64.
func weights(r *rand.Rand, n int) ([]float32, []float64) {
	narrow, wide := make([]float32, n), make([]float64, n)
	for i := range narrow {
		narrow[i] = float32(r.NormFloat64())
		wide[i] = float64(narrow[i])
	}
	return narrow, wide
}

// wanda is a matrix with the zeros that Wanda chooses, row by row, and that repair then exchanges.
func wanda(w []float32, c compress.Columns, share float64, repair func(zero []bool, row []float32)) []float64 {
	zero, out := make([]bool, len(c.Norm)), make([]float64, len(w))
	for at := 0; at < len(w); at += len(zero) {
		row := w[at:][:len(zero)]
		compress.Wanda(zero, row, c.Norm, share)
		repair(zero, row)
		for j, v := range row {
			if !zero[j] {
				out[at+j] = float64(v)
			}
		}
	}
	return out
}

func asIs([]bool, []float32) {}

// SparseGPT leaves a smaller error than Wanda on the inputs that it saw, up to half of the weights, and exactly as many zeros, whatever the width is
// to its blocks.
func TestSparseGPTIsBetterThanWanda(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	const rows = 7
	for _, cols := range []int{2, 5, 40, 127, 128, 129, 300} {
		inputs := related(r, 2*cols+3, cols)
		for _, share := range []float64{0.2, 0.4, 0.5, 0.75, 0.99} {
			narrow, w := weights(r, rows*cols)
			got := slices.Clone(w)
			if err := compress.SparseGPT(got, seen(cols, inputs), share); err != nil {
				t.Fatal(err)
			}
			zeros := 0
			for _, v := range got {
				if v == 0 {
					zeros++
				}
			}
			if want := rows * int(share*float64(cols)); zeros != want {
				t.Errorf("%d columns, share %v: %d zeros, want %d", cols, share, zeros, want)
			}
			mine, other := outputError(inputs, w, got), outputError(inputs, w, wanda(narrow, columnsOf(inputs), share, asIs))
			if zeros > 0 && cols > 5 && share <= 0.5 && !(mine < 0.8*other) {
				t.Errorf("%d columns, share %v: error %v, Wanda's %v", cols, share, mine, other)
			}
		}
	}
}

// Of columns that are always alike one weight takes over the other's part; of columns that have nothing in common none does, the smallest products
// go, and columns that were always 0 go first.
func TestSparseGPTByHand(t *testing.T) {
	alike := []float64{1, 3}
	if err := compress.SparseGPT(alike, seen(2, [][]float32{{1, 1}, {-2, -2}, {3, 3}}), 0.5); err != nil {
		t.Fatal(err)
	}
	if alike[0] != 0 || math.Abs(alike[1]-4) > 0.02 {
		t.Errorf("%v, want 0 and nearly 4", alike)
	}
	apart := []float64{1, 3, -2, 9, 5, 0.5, 1, -7}
	if err := compress.SparseGPT(apart, seen(4, [][]float32{{8, 0, 0, 0}, {0, 2, 0, 0}, {0, 0, 1, 0}}), 0.5); err != nil {
		t.Fatal(err)
	}
	if want := []float64{1, 3, -2, 0, 5, 0, 0, 0}; !slices.Equal(apart, want) {
		t.Errorf("%v, want %v", apart, want)
	}
	blind := []float64{4, -1, 3, 2}
	if err := compress.SparseGPT(blind, compress.NewHessian(4), 0.5); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(blind, []float64{0, 0, 3, 2}) {
		t.Errorf("of inputs that were all 0: %v", blind)
	}
}

// The inverse that SparseGPT works with is that of the sums: pruning a single weight costs w² / 2 [H⁻¹], and moves the others by the column of H⁻¹.
func TestSparseGPTAgainstElimination(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 2))
	const n = 6
	inputs := related(r, 30, n)
	h := make([][]float64, n)
	for i := range h {
		h[i] = make([]float64, 2*n)
		h[i][n+i] = 1
		for j := range n {
			for _, x := range inputs {
				h[i][j] += float64(x[i]) * float64(x[j])
			}
		}
	}
	mean := 0.0
	for i := range h {
		mean += h[i][i] / n
	}
	for i := range h {
		h[i][i] += 0.01 * mean
	}
	for i := range h {
		p := h[i][i]
		for j := range h[i] {
			h[i][j] /= p
		}
		for k := range h {
			if f := h[k][i]; k != i {
				for j := range h[k] {
					h[k][j] -= f * h[i][j]
				}
			}
		}
	}
	w := []float64{1e-3, 5, -4, 6, 7, -5} // the first goes, and all others can make up for it
	got := slices.Clone(w)
	if err := compress.SparseGPT(got, seen(n, inputs), 1.0/n); err != nil {
		t.Fatal(err)
	}
	for j := range w {
		want := w[j] - w[0]*h[0][n+j]/h[0][n]
		if math.Abs(got[j]-want) > 1e-12 {
			t.Errorf("weight %d: %v, want %v", j, got[j], want)
		}
	}
}

// Sums do not depend on how inputs come, to the bit; nor do the zeros.
func TestHessianInPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	inputs := related(r, 23, 17)
	_, w := weights(r, 3*17)
	whole, pieces := seen(17, inputs), compress.NewHessian(17)
	for at, n := 0, 1; at < len(inputs); at, n = at+n, n+1 {
		pieces.Add(inputs[at:min(at+n, len(inputs))]...)
	}
	a, b := slices.Clone(w), slices.Clone(w)
	if err := compress.SparseGPT(a, whole, 0.5); err != nil {
		t.Fatal(err)
	}
	if err := compress.SparseGPT(b, pieces, 0.5); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a, b) {
		t.Errorf("%v\n%v", a, b)
	}
}

func TestHessianOfNoNumbers(t *testing.T) {
	for _, v := range []float64{math.Inf(1), math.NaN()} {
		w := []float64{1, 2}
		if err := compress.SparseGPT(w, seen(2, [][]float32{{1, 2}, {float32(v), 1}}), 0.5); err == nil || !slices.Equal(w, []float64{1, 2}) {
			t.Errorf("inputs with %v: %v, %v", v, w, err)
		}
	}
}
