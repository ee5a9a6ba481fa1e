package engine

import (
	"testing"
	"time"
)

// A value at a bound belongs to the bound's own bucket, and one above the last bound to the last bucket.
func TestHistogram(t *testing.T) {
	h := Histogram{Bounds: []float64{1, 2}}
	for _, v := range []float64{0.5, 1, 1.5, 2, 3, 300} {
		h.add(v)
	}
	if h.Counts != [mostBounds + 1]uint64{2, 2, 2} || h.Sum != 308 {
		t.Errorf("%v, sum %v", h.Counts, h.Sum)
	}
	for _, h := range []Histogram{newHistograms().Turn, newHistograms().StepRows, newHistograms().Gap, newHistograms().Stall} {
		if len(h.Bounds) > mostBounds {
			t.Errorf("%d bounds", len(h.Bounds))
		}
	}
}

// A gap is a stall when it is long beside the engine's own steps and for a reader.
func TestStalls(t *testing.T) {
	for _, c := range []struct {
		took, alone time.Duration
		want        uint64
	}{
		{gapTime + 1, 0, 0}, // nobody knows what is usual
		{gapTime, 1, 0},
		{gapTime + 1, gapTime / stallSteps, 1},
		{gapTime + 1, gapTime, 0},
		{stallSteps*gapTime + 1, gapTime, 1},
	} {
		h := newHistograms()
		h.gap(c.took, c.alone)
		var stalls uint64
		for _, n := range h.Stall.Counts {
			stalls += n
		}
		if stalls != c.want {
			t.Errorf("a gap of %v beside steps of %v makes %d stalls, want %d", c.took, c.alone, stalls, c.want)
		}
	}
}

// The times of a request follow each other, and sampling is part of them. What it took is counted in the histograms.
func TestTimes(t *testing.T) {
	e, _ := open(t, ample)
	r := requests(6)[5]
	r.MaxTokens = 5
	tokens, err := collect(e.Generate(t.Context(), r))
	if err != nil {
		t.Fatal(err)
	}
	s := tokens[len(tokens)-1].Stats
	if s.Arrived.IsZero() || s.Queued < 0 || s.Prefill <= 0 || s.Decode <= 0 || s.Sampling <= 0 || s.Sampling > s.Prefill+s.Decode {
		t.Errorf("%+v", s)
	}
	if first := tokens[0].Stats; first.Sampling <= 0 || first.Sampling > first.Prefill || first.Sampling >= s.Sampling {
		t.Errorf("first %+v, last %+v", first, s)
	}
	count := func(h Histogram) (n uint64) {
		for _, c := range h.Counts {
			n += c
		}
		return n
	}
	u := e.Usage()
	if got := count(u.Gap); got != uint64(len(tokens)-1) {
		t.Errorf("%d gaps between %d tokens", got, len(tokens))
	}
	if got := count(u.StepRows); int64(got) != u.Steps || int64(u.StepRows.Sum) != u.Rows {
		t.Errorf("%d steps of %v rows, want %d of %d", got, u.StepRows.Sum, u.Steps, u.Rows)
	}
	_, stats, err := e.Embed(t.Context(), r.Prompt, MeanPooling)
	if err != nil || stats.Prefill <= 0 || stats.Decode != 0 || stats.Generated != 0 {
		t.Errorf("%+v, %v", stats, err)
	}
}
