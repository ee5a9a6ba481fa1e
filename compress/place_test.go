package compress

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPlaceOfTheNotes(t *testing.T) {
	c := Cluster{Slots: 16, Groups: 4, Nodes: 2, Devices: 8}
	for _, l := range []struct {
		load []float64
		want []int
	}{
		{[]float64{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86}, []int{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1}},
		{[]float64{20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}, []int{7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}},
	} {
		if got, err := Place(l.load, c); err != nil || !slices.Equal(got, l.want) {
			t.Errorf("%v, want %v (%v)", got, l.want, err)
		}
	}
}

func TestPlaceHoldsEveryExpert(t *testing.T) {
	for _, c := range []Cluster{{8, 1, 1, 1}, {8, 1, 1, 8}, {12, 4, 2, 4}, {16, 3, 2, 4}, {24, 8, 4, 8}} {
		n := 8
		if c.Groups == 3 {
			n = 9
		}
		load := make([]float64, n)
		for e := range load {
			load[e] = float64(e * e)
		}
		got, err := Place(load, c)
		if err != nil || len(got) != c.Slots {
			t.Fatalf("%+v: %v %v", c, got, err)
		}
		for e := range n {
			if !slices.Contains(got, e) {
				t.Errorf("%+v: expert %d has no slot in %v", c, e, got)
			}
		}
	}
}

func TestPlaceRefuses(t *testing.T) {
	load := []float64{1, 2, 3, 4}
	for _, c := range []Cluster{{}, {3, 1, 1, 1}, {4, 3, 1, 1}, {4, 1, 2, 3}, {6, 1, 1, 4}, {4, 0, 1, 1}, {4, 1, -1, 1}, {1 << 40, 1, 1, 1}} {
		if _, err := Place(load, c); !errors.Is(err, ErrPlan) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, bad := range []float64{-1, math.NaN(), math.Inf(1)} {
		if _, err := Place([]float64{bad}, Cluster{1, 1, 1, 1}); !errors.Is(err, ErrPlan) {
			t.Errorf("load %v: %v", bad, err)
		}
	}
}

func TestImproveEndsWhereNoSwapHelps(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		n := 12
		o := Objective{Load: 1, Apart: 0.01 * float64(seed%4), Loads: make([]float64, n), Together: make([][]int64, n)}
		device := make([]int, n)
		for e := range n {
			o.Loads[e], o.Together[e], device[e] = float64(rnd.IntN(100)), make([]int64, n), e%3
			for f := range e {
				o.Together[e][f] = rnd.Int64N(50)
				o.Together[f][e] = rnd.Int64N(50) // not read
			}
		}
		before := slices.Clone(device)
		got := o.Improve(device)
		if !slices.Equal(device, before) || !slices.Equal(got, o.Improve(device)) {
			t.Fatalf("seed %d: the given placement changes, or another comes out", seed)
		}
		if o.Cost(got) > o.Cost(device) {
			t.Errorf("seed %d: cost %v becomes %v", seed, o.Cost(device), o.Cost(got))
		}
		for d := range 3 {
			if count := len(slices.DeleteFunc(slices.Clone(got), func(x int) bool { return x != d })); count != 4 {
				t.Errorf("seed %d: %d experts on device %d", seed, count, d)
			}
		}
		for i := range n {
			for j := range i {
				other := slices.Clone(got)
				other[i], other[j] = got[j], got[i]
				if o.Cost(other) < o.Cost(got)-1e-6 {
					t.Errorf("seed %d: swapping %d and %d lowers %v to %v", seed, j, i, o.Cost(got), o.Cost(other))
				}
			}
		}
	}
	if got := (Objective{}).Improve(nil); len(got) != 0 {
		t.Error(got)
	}
}

func TestImproveBringsPairsTogether(t *testing.T) {
	o := Objective{Load: 1, Apart: 1, Loads: []float64{1, 1, 1, 1}, Together: [][]int64{{0, 0, 9, 0}, {0, 0, 0, 9}, {9, 0, 0, 0}, {0, 9, 0, 0}}}
	if got := o.Improve([]int{0, 0, 1, 1}); !slices.Equal(got, []int{1, 0, 1, 0}) && !slices.Equal(got, []int{0, 1, 0, 1}) {
		t.Error(got)
	}
}
