package compress

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

func TestDendrogramOfTheNotes(t *testing.T) {
	rows := [][]float32{{0, 0}, {0, 1}, {3, 0}, {3, 0.5}}
	got := dendrogram(4, func(i, j int) float64 { return apart(rows[i], rows[j]) })
	if want := []merge{{2, 3, 0.5}, {0, 1, 1}, {0, 2, math.Sqrt(10)}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// plainDendrogram joins the closest pair of clusters, found anew every time.
func plainDendrogram(n int, distance func(i, j int) float64) []merge {
	sets := make([][]int, n)
	for i := range n {
		sets[i] = []int{i}
	}
	var out []merge
	for len(out) < n-1 {
		best := merge{Height: math.Inf(1)}
		for a := range n {
			for b := a + 1; b < n; b++ {
				if sets[a] == nil || sets[b] == nil {
					continue
				}
				height := math.Inf(-1)
				for _, i := range sets[a] {
					for _, j := range sets[b] {
						height = max(height, distance(min(i, j), max(i, j)))
					}
				}
				if height < best.Height {
					best = merge{a, b, height}
				}
			}
		}
		sets[best.A], sets[best.B] = append(sets[best.A], sets[best.B]...), nil
		out = append(out, best)
	}
	return out
}

func TestDendrogramEqualsThePlainOne(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		n := 1 + rnd.IntN(24)
		d := make([][]float64, n)
		for i := range d {
			d[i] = make([]float64, n)
			for j := range d[i] {
				if d[i][j] = rnd.NormFloat64(); seed%2 == 0 {
					d[i][j] = float64(rnd.IntN(4)) // many ties
				}
			}
		}
		distance := func(i, j int) float64 { return d[i][j] }
		got, want := dendrogram(n, distance), plainDendrogram(n, distance)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d, %d items:\n%v\n%v", seed, n, got, want)
		}
		for i := 1; i < len(got); i++ {
			if got[i].Height < got[i-1].Height {
				t.Fatalf("seed %d: heights fall: %v", seed, got)
			}
		}
	}
}

func TestClustersAreNested(t *testing.T) {
	merges := []merge{{2, 3, 1}, {0, 4, 2}, {0, 2, 3}}
	for steps, want := range []map[int][]int{
		{0: {0}, 1: {1}, 2: {2}, 3: {3}, 4: {4}}, {0: {0}, 1: {1}, 2: {2, 3}, 4: {4}}, {0: {0, 4}, 1: {1}, 2: {2, 3}}, {0: {0, 2, 3, 4}, 1: {1}},
	} {
		if got := clusters(5, merges[:steps]); !reflect.DeepEqual(got, want) {
			t.Errorf("%d steps: %v, want %v", steps, got, want)
		}
	}
}
