package compress_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/winnow-llm/winnow/compress"
)

func TestWanda(t *testing.T) {
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		row   []float32
		norms []float64
		share float64
		want  []int
	}{
		"magnitude":       {[]float32{4, -1, 3, 2}, []float64{1, 1, 1, 1}, 0.5, []int{1, 3}},
		"norms decide":    {[]float32{4, -1, 3, 2}, []float64{0.1, 9, 1, 2}, 0.5, []int{0, 2}},
		"floor":           {[]float32{4, -1, 3}, []float64{1, 1, 1}, 0.66, []int{1}},
		"nothing":         {[]float32{4, -1, 3}, []float64{1, 1, 1}, 0.33, nil},
		"none asked":      {[]float32{0, 0}, []float64{1, 1}, 0, nil},
		"all":             {[]float32{4, 5}, []float64{1, 1}, 1, []int{0, 1}},
		"ties, leftmost":  {[]float32{2, 2, 2, 2}, []float64{1, 1, 1, 1}, 0.5, []int{0, 1}},
		"ties, zeros":     {[]float32{2, 0, 2, 0}, []float64{0, 1, 0, 1}, 0.5, []int{1, 3}},
		"no number":       {[]float32{nan, 1}, []float64{1, 1}, 0.5, []int{1}},
		"no number times": {[]float32{float32(math.Inf(1)), 1}, []float64{0, 1}, 0.5, []int{1}},
	} {
		zero := slices.Repeat([]bool{true}, len(c.row))
		compress.Wanda(zero, c.row, c.norms, c.share)
		var got []int
		for i, z := range zero {
			if z {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestWandaCounts holds every row to its count, and the weights that stay to scores no lower than those that go.
func TestWandaCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 1))
	for cols := 1; cols < 70; cols++ {
		for _, share := range []float64{0, 0.01, 0.25, 0.5, 0.9, 0.999, 1} {
			row, norms, zero := make([]float32, cols), make([]float64, cols), make([]bool, cols)
			for i := range row {
				row[i], norms[i] = float32(r.IntN(5)-2), float64(r.IntN(4))
			}
			compress.Wanda(zero, row, norms, share)
			n, gone, stays := 0, 0.0, math.Inf(1)
			for i, z := range zero {
				if s := math.Abs(float64(row[i])) * norms[i]; z {
					n, gone = n+1, max(gone, s)
				} else {
					stays = min(stays, s)
				}
			}
			if n != int(share*float64(cols)) || n > 0 && gone > stays {
				t.Errorf("%d columns, share %v: %d zeros, %v goes and %v stays", cols, share, n, gone, stays)
			}
		}
	}
}

func TestOutliers(t *testing.T) {
	for name, c := range map[string]struct {
		times float64
		in    [][]float64
		want  float64
	}{
		"one of four": {2, [][]float64{{1, 1}, {1, 9}}, 25},
		"none":        {5, [][]float64{{1, 1, 1}}, 0},
		"at the mean": {1, [][]float64{{2, 2}}, 0},
		"nothing":     {5, nil, 0},
		"zeros":       {5, [][]float64{{0, 0}}, 0},
	} {
		if got := compress.Outliers(c.times, slices.Values(c.in)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestShares(t *testing.T) {
	for name, c := range map[string]struct {
		share, lambda float64
		in, want      []float64
	}{
		"alike":   {0.5, 0.08, []float64{3, 3}, []float64{0.5, 0.5}},
		"apart":   {0.5, 0.08, []float64{0, 2, 4}, []float64{0.58, 0.5, 0.42}},
		"uneven":  {0.5, 0.1, []float64{0, 0, 0, 8}, []float64{0.55, 0.55, 0.55, 0.35}},
		"flat":    {0.5, 0, []float64{0, 2, 4}, []float64{0.5, 0.5, 0.5}},
		"at zero": {0.05, 0.08, []float64{0, 1}, []float64{0.13, 0.01}},
		"at one":  {0.95, 0.08, []float64{0, 1}, []float64{0.99, 0.87}},
		"none":    {0, 0, []float64{0, 1}, []float64{0, 0}},
		"empty":   {0.5, 0.08, nil, nil},
	} {
		got := compress.Shares(c.share, c.lambda, c.in)
		near := func(a, b float64) bool { return math.Abs(a-b) < 1e-12 }
		if !slices.EqualFunc(got, c.want, near) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
