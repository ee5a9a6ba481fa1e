package serve

import (
	"testing"
	"time"

	"github.com/winnow-llm/winnow/engine"
)

// The times of several embeddings are those from the first arrival to the last end, whichever is told of first.
func TestSpannedUsage(t *testing.T) {
	at := time.Now()
	one := &engine.Stats{Arrived: at, Queued: 5, Prefill: 20, Cached: 1}
	two := &engine.Stats{Arrived: at.Add(2), Queued: 1, Prefill: 30, Cached: 2}
	for _, order := range [][]*engine.Stats{{one, two}, {two, one}} {
		var u Usage
		for _, s := range order {
			u.spanned(s)
		}
		if want := (Usage{Cached: 3, Started: at, Queued: 3, First: 33, Total: 33}); u != want {
			t.Errorf("got %+v, want %+v", u, want)
		}
	}
}

// An answer that ends at a stop string lasts until then, one that the engine ends as long as the engine says.
func TestTimedUsage(t *testing.T) {
	var u Usage
	first := &engine.Stats{Arrived: time.Now().Add(-time.Hour), Queued: 2, Prefill: 3, Sampling: 1, Cached: 4}
	u.timed(first)
	if u.Queued != 2 || u.First != 5 || u.Total != 5 || u.Sampling != 1 || u.Cached != 4 {
		t.Errorf("%+v", u)
	}
	if u.timed(nil); u.Total < time.Hour || u.First != 5 {
		t.Errorf("%+v", u)
	}
	last := *first
	last.Decode, last.Sampling = 7, 6
	if u.timed(&last); u.Total != 12 || u.Sampling != 6 {
		t.Errorf("%+v", u)
	}
}
