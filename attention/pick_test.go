package attention

import (
	"slices"
	"testing"
)

func TestPick(t *testing.T) {
	scores := []float32{1, 4, 2, 4, 0, 4}
	for k, want := range [][]int32{{}, {1}, {1, 3}, {1, 3, 5}, {1, 2, 3, 5}, {0, 1, 2, 3, 5}, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}} {
		if have := top(scores, k); !slices.Equal(have, want) {
			t.Errorf("the top %d of %v are %v, want %v", k, scores, have, want)
		}
	}
	for share, want := range map[float32][]int32{0: {}, 0.2: {1}, 0.5: {1, 3}, 0.8: {1, 3, 5}, 0.81: {1, 2, 3, 5}, 1: {0, 1, 2, 3, 5}} {
		if have := cover(scores, share); !slices.Equal(have, want) {
			t.Errorf("%v of %v are %v, want %v", share, scores, have, want)
		}
	}
}
