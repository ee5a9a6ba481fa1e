package engine

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// What those who catch up get follows what rows and layers cost: fewer layers at a time after slow parts, fewer rows where one layer is too
// long already, never none of either.
func TestPace(t *testing.T) {
	p := pace{most: 512}
	if p.rows() != stride || p.layers(64) != 1 {
		t.Errorf("before anything is known: %d rows, %d layers", p.rows(), p.layers(64))
	}
	for range 60 {
		p.plain(20 * ms)
	}
	if p.alone < 18*ms || p.alone > 22*ms {
		t.Errorf("after steps of 20 ms they take %v", p.alone)
	}
	p.alone = 20 * ms // so that a part may take 70 ms
	for i, test := range []struct {
		took         time.Duration
		rows, layers int // of the part that took it
		wantRows     int
		wantLayers   int // of a step of 64 rows
	}{
		{64 * ms, 64, 10, 128, 10}, // 0.1 ms a row and layer
		{64 * ms, 64, 10, 128, 10},
		{32 * ms, 64, 10, 128, 12},
		{time.Hour, 64, 10, 128, 7}, // counts as four times as slow
		{64 * ms, 64, 1, 128, 4},
		{64 * ms, 8, 1, 128, 2},
		{64 * ms, 8, 1, 85, 1},
		{640 * ms, 8, 1, 48, 1},
		{time.Hour, 8, 1, 27, 1},
		{time.Hour, 8, 1, 15, 1},
		{time.Hour, 8, 1, 9, 1},
		{time.Hour, 8, 1, 8, 1},
	} {
		p.part(test.took, test.rows, test.layers)
		if r, l := p.rows(), p.layers(64); r != test.wantRows || l != test.wantLayers {
			t.Errorf("part %d: %d rows, %d layers, want %d and %d; %v a row and layer", i, r, l, test.wantRows, test.wantLayers, p.cost)
		}
	}
	if small := (&pace{most: 5}); small.rows() != 5 {
		t.Errorf("%d rows of a step of 5", small.rows())
	}
}

func TestPaceSpare(t *testing.T) {
	for alone, want := range map[time.Duration]time.Duration{
		0: 100 * ms, 2 * ms: 7 * ms, 20 * ms: 70 * ms, 40 * ms: 60 * ms, 80 * ms: 80 * ms, time.Second: time.Second,
	} {
		if p := (pace{alone: alone}); p.spare() != want {
			t.Errorf("beside steps of %v a part may take %v, want %v", alone, p.spare(), want)
		}
	}
}
