package compress_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/compress"
)

func TestDSnoT(t *testing.T) {
	for name, c := range map[string]struct {
		zero []bool
		row  []float32
		c    compress.Columns
		want []bool
	}{
		"the likelier grows": { // both zeros lower a mean error of 5 to 1, at -1 for the weight that goes; the second's inputs vary less
			[]bool{true, true, false, false}, []float32{2, 2, -1, 9},
			compress.Columns{Mean: []float64{1, 1, 1, 1}, Variance: []float64{4, 0.1, 0.1, 1}, Norm: []float64{1, 1, 1, 1}},
			[]bool{true, false, true, false},
		},
		"the lowest of those that help goes": { // the last has the lowest score, and would add to the error
			[]bool{true, false, false, false}, []float32{3, -2, -4, 1},
			compress.Columns{Mean: []float64{1, 1, 1, 1}, Variance: []float64{1, 1, 1, 1}, Norm: []float64{1, 1, 1, 1}},
			[]bool{false, true, false, false},
		},
		"of a negative error": {
			[]bool{true, false, false, false}, []float32{3, -2, -4, 1},
			compress.Columns{Mean: []float64{-1, -1, -1, -1}, Variance: []float64{1, 1, 1, 1}, Norm: []float64{1, 1, 1, 1}},
			[]bool{false, true, false, false},
		},
		"the variance costs more": { // the mean error would become 0
			[]bool{true, false}, []float32{1, -1},
			compress.Columns{Mean: []float64{1, 0.1}, Variance: []float64{1, 9}, Norm: []float64{1, 1}},
			[]bool{true, false},
		},
		"no mean, no error": {
			[]bool{true, false}, []float32{1, -1},
			compress.Columns{Mean: []float64{0, 0}, Variance: []float64{1, 1}, Norm: []float64{1, 1}},
			[]bool{true, false},
		},
	} {
		got := slices.Clone(c.zero)
		compress.DSnoT(got, c.row, c.c)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Rows keep their number of zeros, none has a higher expected error than before, and the outputs of all together have a lower one.
func TestDSnoTLowersTheError(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 5))
	const rows = 20
	for _, cols := range []int{8, 60, 200} {
		inputs := make([][]float32, 90)
		means := make([]float64, cols)
		for j := range means {
			means[j] = r.NormFloat64()
		}
		for i := range inputs {
			for j := range cols {
				inputs[i] = append(inputs[i], float32(means[j]+r.NormFloat64()*(0.2+float64(j%3))))
			}
		}
		c := columnsOf(inputs)
		expected := func(zero []bool, row []float32) float64 {
			mean, variance := 0.0, 0.0
			for j, z := range zero {
				if w := float64(row[j]); z {
					mean, variance = mean+w*c.Mean[j], variance+w*w*c.Variance[j]
				}
			}
			return mean*mean + variance
		}
		narrow, w := weights(r, rows*cols)
		before := wanda(narrow, c, 0.5, asIs)
		moved := 0
		after := wanda(narrow, c, 0.5, func(zero []bool, row []float32) {
			was := slices.Clone(zero)
			compress.DSnoT(zero, row, c)
			n := 0
			for j := range zero {
				if zero[j] {
					n++
				}
				if zero[j] != was[j] {
					moved++
				}
			}
			if n != cols/2 {
				t.Errorf("%d columns: %d zeros", cols, n)
			}
			if a, b := expected(zero, row), expected(was, row); a > b {
				t.Errorf("%d columns: expected error %v, was %v", cols, a, b)
			}
		})
		if a, b := outputError(inputs, w, after), outputError(inputs, w, before); moved == 0 || !(a < b) {
			t.Errorf("%d columns: error %v after %d moves, was %v", cols, a, moved, b)
		}
	}
}
