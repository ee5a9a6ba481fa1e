package engine

import (
	"testing"
	"time"

	"github.com/winnow-llm/winnow/model"
)

// A prompt that arrives beside one that generates gets strides: shorter after slow steps, longer after quick ones, never none and never
// more than a step has.
func TestPace(t *testing.T) {
	s := newScheduler(model.Limits{Rows: 512, Sequences: 4, Wanted: 4, Pages: 100, Context: 4096}, 4)
	s.stride = firstStride
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
		s.pace(took)
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
	if step(time.Second); s.stride != firstStride {
		t.Errorf("a step of one prompt alone changed the stride to %d", s.stride)
	}
	if err := s.add(second); err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		took time.Duration
		rows int // of the prompt in this step
	}{
		{200 * time.Millisecond, 64}, {50 * time.Millisecond, 32}, {time.Millisecond, 64}, {time.Hour, 128}, {100 * time.Millisecond, 8},
		{time.Millisecond, 8}, {time.Millisecond, 16}, {time.Millisecond, 32}, {time.Millisecond, 64}, {time.Millisecond, 128},
		{time.Millisecond, 256}, {time.Millisecond, 511},
	} {
		if got := step(test.took); got != test.rows {
			t.Errorf("step %d gives the prompt %d rows, want %d", i, got, test.rows)
		}
	}
}
