package attention

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// gaussian are rows of normal values.
func gaussian(r *rand.Rand, rows, dim int) [][]float64 {
	m := make([][]float64, rows)
	for i := range m {
		m[i] = make([]float64, dim)
		for d := range m[i] {
			m[i][d] = r.NormFloat64()
		}
	}
	return m
}

// words is what the paper says of 64 keys, blocks of 4, groups of 16, and an anchor of some rows of a block.
type words struct {
	q, k   [][]float64
	anchor func(nearby []float64) float64
	rows   []int
}

// list is that of a group.
func (w words) list(group int, theta float64) (keys []int32) {
	const block, size = 4, 16
	q, k := w.q, w.k
	score := func(q []float64, s int) (sum float64) {
		for d := range q {
			sum += q[d] * k[s][d]
		}
		return sum / math.Sqrt(float64(len(q)))
	}
	start := group * size
	for s := block; s < start-block; s++ {
		wanted := false
		for u := start; u < start+size; u += block {
			mean, anchors := make([]float64, len(k[0])), 0.0
			for t := u; t < u+block; t++ {
				var nearby []float64
				for key := 0; key <= t; key++ {
					if key < block || key >= start-block {
						nearby = append(nearby, score(q[t], key))
					}
				}
				if slices.Contains(w.rows, t-u) {
					anchors += w.anchor(nearby) / float64(len(w.rows))
				}
				for d := range mean {
					mean[d] += q[t][d] / block
				}
			}
			wanted = wanted || score(mean, s)+theta >= anchors
		}
		if wanted {
			keys = append(keys, int32(s))
		}
	}
	return keys
}

func TestAnchorFollowsThePaper(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	q, k := gaussian(r, 64, 8), gaussian(r, 64, 8)
	list := func(group int, theta float64) []int32 {
		a := anchored{q: q[16*group:][:16], k: k[:16*group+16], pos: 16 * group, block: 4, edge: 4, scale: 1 / math.Sqrt(8), every: 1}
		return a.wanted(theta, 1)
	}
	text := words{q, k, slices.Max[[]float64], []int{0, 1, 2, 3}}
	for group := 1; group < 4; group++ {
		var before []int32
		for _, theta := range []float64{math.Inf(-1), 0, 1, 1.5, 2, 3, math.Inf(1)} {
			have := list(group, theta)
			if want := text.list(group, theta); !slices.Equal(have, want) {
				t.Errorf("group %d, theta %v: %v, by the text %v", group, theta, have, want)
			}
			for _, key := range before {
				if !slices.Contains(have, key) {
					t.Errorf("group %d, theta %v: key %d is gone", group, theta, key)
				}
			}
			before = have
		}
		if len(list(group, math.Inf(-1))) != 0 || len(before) != 16*group-8 {
			t.Errorf("group %d: bounds of theta give %d keys of %d", group, len(before), 16*group-8)
		}
		if some := len(list(group, 1)); some == 0 || some == len(before) {
			t.Errorf("group %d: %d keys of %d show nothing", group, some, len(before))
		}
	}
}

// An anchor may be the logarithm of what the softmax nearby divides by, and that of every so many rows only.
func TestSoftAnchors(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	q, k := gaussian(r, 64, 8), gaussian(r, 64, 8)
	logarithm := func(scores []float64) float64 {
		var sum float64
		for _, s := range scores {
			sum += math.Exp(s)
		}
		return math.Log(sum)
	}
	for every, those := range map[int][]int{1: {0, 1, 2, 3}, 2: {1, 3}, 4: {2}} {
		for _, theta := range []float64{0.5, 1.5, 2.5, 3.5} {
			a := anchored{q: q[48:], k: k, pos: 48, block: 4, edge: 4, scale: 1 / math.Sqrt(8), soft: true, every: every}
			have, want := a.wanted(theta, 1), words{q, k, logarithm, those}.list(3, theta)
			if !slices.Equal(have, want) || theta == 2.5 && (len(want) == 0 || len(want) == 40) {
				t.Errorf("every %d, theta %v: %v, by the text %v", every, theta, have, want)
			}
		}
	}
}

// A key that the queries of one block look for is read, wherever it is.
func TestAnchorFindsTheNeedle(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for at := 4; at < 44; at++ {
		q, k := gaussian(r, 16, 8), gaussian(r, 64, 8)
		for d := range k[at] {
			k[at][d] *= 3
		}
		for i := 8; i < 12; i++ {
			copy(q[i], gaussian(r, 1, 8)[0])
			for d := range q[i] {
				q[i][d] = 0.1*q[i][d] + k[at][d]
			}
		}
		a := anchored{q: q, k: k, pos: 48, block: 4, edge: 4, scale: 1 / math.Sqrt(8), every: 1}
		if !slices.Contains(a.wanted(1, 1), int32(at)) {
			t.Errorf("key %d is not read", at)
		}
	}
}

// Where one key of a unit is wanted, all are read.
func TestAnchorReadsWholeUnits(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	a := anchored{q: gaussian(r, 16, 8), k: gaussian(r, 64, 8), pos: 48, block: 4, edge: 4, scale: 1 / math.Sqrt(8), every: 1}
	var want []int32
	for _, key := range a.wanted(0.5, 1) {
		if k := key / 4 * 4; !slices.Contains(want, k) {
			want = append(want, k, k+1, k+2, k+3)
		}
	}
	if have := a.wanted(0.5, 4); !slices.Equal(have, want) || len(want) == 0 || len(want) == 40 {
		t.Errorf("units %v, want %v", have, want)
	}
}
