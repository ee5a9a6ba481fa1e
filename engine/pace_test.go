package engine

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// settled is a pace beside steps of so long, which take as long between parts.
func settled(alone time.Duration) pace {
	return pace{most: 512, alone: median{at: alone}, beside: median{at: alone}}
}

// What those who catch up get follows what rows and blocks cost: a part ends before a block that would take too long, blocks have fewer
// rows where one is too long already, never none.
func TestPace(t *testing.T) {
	p := pace{most: 512}
	if p.rows() != stride || p.more(1, 64, 0) || p.more(2, 64, 0) {
		t.Errorf("before anything is known a part has %d rows and goes on", p.rows())
	}
	if p.whole = true; p.rows() != 512 {
		t.Errorf("where experts are read for each chunk it has %d rows of 512", p.rows())
	}
	p = settled(20 * ms)
	left := p.spare()
	for i, block := range []struct {
		rows int
		took time.Duration
		want [2]time.Duration // of a row
	}{
		{64, 64 * ms, [2]time.Duration{ms, 0}}, // block 0, then 1, and so on
		{64, 32 * ms, [2]time.Duration{ms, ms / 2}},
		{64, 128 * ms, [2]time.Duration{ms + ms/4, ms / 2}},
		{8, time.Hour, [2]time.Duration{ms + ms/4, 875 * time.Microsecond}}, // counts as four times as slow
		{100, 0, [2]time.Duration{937501 * time.Nanosecond, 875 * time.Microsecond}},
	} {
		p.block(i, block.rows, block.took)
		for k := range p.cost {
			if d := p.cost[k] - block.want[k]; d < -2 || d > 2 {
				t.Errorf("after block %d a row costs %v, want %v", i, p.cost, block.want)
			}
		}
		if want := min(stride, int(left/max(p.cost[0], p.cost[1]))); p.rows() != want {
			t.Errorf("after block %d: %d rows, want %d", i, p.rows(), want)
		}
	}
	for next := range 2 {
		fits := left - 10*p.cost[next]
		if !p.more(next, 10, fits) || p.more(next, 10, fits+1) {
			t.Errorf("block %d of 10 rows, of %v each, does not end at %v", next, p.cost[next], left)
		}
	}
	for range 100 {
		p.block(0, 8, time.Hour)
	}
	if p.rows() != leastStride {
		t.Errorf("%d rows where a block takes hours", p.rows())
	}
	if small := (&pace{most: 5}); small.rows() != 5 {
		t.Errorf("%d rows of a step of 5", small.rows())
	}
}

func TestPaceSpare(t *testing.T) {
	for alone, want := range map[time.Duration]time.Duration{
		0: 100 * ms, 2 * ms: 5100 * time.Microsecond, 40 * ms: 60 * ms, 80 * ms: 80 * ms, time.Second: time.Second,
	} {
		if p := settled(alone); p.spare() != want {
			t.Errorf("beside steps of %v a part may take %v, want %v", alone, p.spare(), want)
		}
	}
	for beside, want := range map[time.Duration]time.Duration{
		8 * ms:      25500 * time.Microsecond,
		10 * ms:     25500 * time.Microsecond,
		40 * ms:     60 * ms, // within gapTime
		time.Second: 10 * ms,
	} {
		p := settled(10 * ms)
		if p.beside.at = beside; p.spare() != want {
			t.Errorf("beside steps of 10 ms that take %v between parts: %v, want %v", beside, p.spare(), want)
		}
	}
}

func TestMedian(t *testing.T) {
	var m median
	for i := range 400 {
		took := 20 * ms
		if i%3 == 0 {
			took = 60 * ms
		}
		m.add(took)
	}
	if m.at < 19*ms || m.at > 22*ms {
		t.Errorf("two of three take 20 ms, the median is %v", m.at)
	}
}
