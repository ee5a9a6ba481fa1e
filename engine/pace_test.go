package engine

import (
	"testing"
	"time"

	"github.com/winnow-llm/winnow/model"
)

const ms = time.Millisecond

// A prompt that arrives beside one that generates gets strides: shorter after slow steps, longer after quick ones, never none and never
// more than a step has.
func TestPace(t *testing.T) {
	s := newScheduler(model.Limits{Rows: 512, Sequences: 4, Wanted: 4, Pages: 100, Context: 4096}, 4)
	s.pace.stride = firstStride
	root := s.pool.root("")
	first, second := &sequence{tokens: make([]int32, 10), prompt: 10, limit: 1000, root: root}, &sequence{tokens: make([]int32, 3000), prompt: 3000, limit: 3001, root: root}
	for i := range second.tokens {
		second.tokens[i] = int32(i)
	}
	step := func(took time.Duration) (rows int) {
		for _, a := range s.next() {
			if a.seq == second {
				rows = a.rows
			}
		}
		s.timed(took)
		ids := make([]int32, 0, len(s.plan))
		for _, a := range s.plan {
			ids = append(ids, make([]int32, a.want)...)
		}
		s.commit(ids)
		return rows
	}
	if err := s.add(first); err != nil {
		t.Fatal(err)
	}
	if step(time.Second); s.pace.stride != firstStride || s.pace.alone != 0 {
		t.Errorf("a step of one prompt alone changed the pace to %+v", s.pace)
	}
	for range 40 {
		step(20 * ms)
	}
	if a := s.pace.alone; a < 18*ms || a > 22*ms || s.pace.goal() != min(5*a, 100*ms) {
		t.Errorf("after steps of 20 ms the pace is %+v", s.pace)
	}
	s.pace.alone = 20 * ms
	if err := s.add(second); err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		took time.Duration
		rows int // of the prompt in this step
	}{ // 80 ms of each are the prompt's; with the one that generates they are a multiple of 4 rows
		{148 * ms, 63}, {100 * ms, 39}, {100 * ms, 39}, {100 * ms, 39}, {time.Hour, 39}, {60 * ms, 19}, {20 * ms, 23}, {20 * ms, 31}, {ms, 43},
		{ms, 55}, {ms, 75}, {ms, 99}, {ms, 135},
	} {
		if got := step(test.took); got != test.rows {
			t.Errorf("step %d gives the prompt %d rows, want %d; %+v", i, got, test.rows, s.pace)
		}
	}
	for _, took := range []time.Duration{time.Hour, time.Hour, time.Hour, time.Hour, time.Hour, time.Hour, time.Hour, time.Hour, time.Hour} {
		step(took)
	}
	if got := step(100 * ms); got != leastStride {
		t.Errorf("after steps of an hour a prompt has %d rows, want %d", got, leastStride)
	}
}

func TestPaceGoal(t *testing.T) {
	for alone, want := range map[time.Duration]time.Duration{
		0: 100 * ms, ms: 5 * ms, 20 * ms: 100 * ms, 40 * ms: 100 * ms, 80 * ms: 160 * ms, time.Second: 2 * time.Second,
	} {
		if p := (pace{alone: alone}); p.goal() != want {
			t.Errorf("beside steps of %v a shared one may take %v, want %v", alone, p.goal(), want)
		}
	}
}
