package attention

import (
	"math"
	"slices"
	"testing"
)

// ofOne is rows of one value.
func ofOne(v ...float64) (rows [][]float64) {
	for _, x := range v {
		rows = append(rows, []float64{x})
	}
	return rows
}

// Keys and queries of one value, strides of two, blocks of two strides. Query rows 6 and 7 make the last stride; its scores are
// (q7*k[2j] + q6*k[2j+1]) / 2.
func TestXAttentionScoresAntidiagonals(t *testing.T) {
	o := SelectXAttention{Groups: Groups{Scale: 1, Size: 4}, Stride: 2, Mean: 1, Unit: 4}
	k := ofOne(2, 0, 0, 4, 0, 0, 2, 2)
	have := o.masses(ofOne(1, 2), k)
	// Scores: 2*2/2 = 2, 1*4/2 = 2, 0, (2*2 + 1*2)/2 = 3.
	e2, e3 := math.Exp(2), math.Exp(3)
	total := 2*e2 + 1 + e3
	for b, want := range []float64{2 * e2 / total, (1 + e3) / total} {
		if math.Abs(float64(have[b])-want) > 1e-6 {
			t.Errorf("block %d has mass %v, want %v", b, have[b], want)
		}
	}
	// Two query strides: the first sees three key strides, of which its scores are 0, and the mean counts both.
	have = o.masses(ofOne(0, 0, 1, 2), k)
	for b, want := range []float64{(2.0/3 + 2*e2/total) / 2, (1.0/3 + (1+e3)/total) / 2} {
		if math.Abs(float64(have[b])-want) > 1e-6 {
			t.Errorf("of two strides, block %d has mass %v, want %v", b, have[b], want)
		}
	}
}

// Two query strides count as their mean, which sees what the last of them sees: (q7+q5)/2 meets k[2j], and (q6+q4)/2 meets k[2j+1].
func TestXAttentionScoresMeansOfQueries(t *testing.T) {
	o := SelectXAttention{Groups: Groups{Scale: 1, Size: 4}, Stride: 2, Mean: 2, Unit: 4}
	have := o.masses(ofOne(0, 1, 2, 3), ofOne(2, 0, 0, 4, 0, 0, 2, 2))
	// Scores: 2*2/2 = 2, 1*4/2 = 2, 0, (2*2 + 1*2)/2 = 3.
	e2, e3 := math.Exp(2), math.Exp(3)
	total := 2*e2 + 1 + e3
	for b, want := range []float64{2 * e2 / total, (1 + e3) / total} {
		if math.Abs(float64(have[b])-want) > 1e-6 {
			t.Errorf("block %d has mass %v, want %v", b, have[b], want)
		}
	}
}

func TestXAttentionChooses(t *testing.T) {
	masses := []float32{0.25, 0.125, 0.5, 0.0625, 0.0625}
	for _, c := range []struct {
		cut   int
		gamma float32
		want  []int32
	}{
		{0, 0.5, []int32{2}},
		{0, 0.75, []int32{0, 2}},
		{0, 0.8, []int32{0, 1, 2}},
		{2, 0.5, []int32{0, 2}}, // 0.25 and more
		{4, 0.5, []int32{0, 1, 2}},
		{8, 0.5, []int32{0, 1, 2, 3, 4}},
	} {
		o := SelectXAttention{Cut: c.cut}
		if have := o.chosen(masses, c.gamma); !slices.Equal(have, c.want) {
			t.Errorf("cut %d, gamma %v: %v, want %v", c.cut, c.gamma, have, c.want)
		}
	}
}
