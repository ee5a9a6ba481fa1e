package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStall(t *testing.T) {
	alone(t)
	args := []string{"bench", "demo", "--stall", "2", "-p", "256", "-t", "1", "-r", "2", "--log", "warn"}
	var got []stallResult
	if err := json.Unmarshal([]byte(must(t, "", append(args, "--json")...)), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 {
		t.Fatalf("%d results", len(got))
	}
	r := got[0]
	if r.Streams != 2 || r.NPrompt != 256 || r.Rounds != 2 || r.AloneP50 <= 0 || r.DuringP99 > r.Longest || r.Longest <= 0 ||
		r.P99Ratio != r.DuringP99/r.AloneP50 || r.Alone <= 0 || r.TTFTRatio <= 0 {
		t.Errorf("%+v", r)
	}
	if out := must(t, "", args...); !strings.Contains(out, "2 streams, a prompt of 256 tokens, 2 rounds") {
		t.Error(out)
	}
}

// A stream of a token a millisecond, which waits from 12 to 20 for a prompt that arrives at 13.5 and is read at 21.5.
func TestStallGaps(t *testing.T) {
	start := time.Now()
	at := func(ms float64) time.Time { return start.Add(time.Duration(ms * float64(time.Millisecond))) }
	var tokens []time.Time
	for _, ms := range []float64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20, 21, 22, 23} {
		tokens = append(tokens, at(ms))
	}
	s := stallRound{quiet: gaps(tokens, at(8), at(13.5)), during: gaps(tokens, at(13.5), at(21.5))}
	if !slices.Equal(s.quiet, []float64{1, 1, 1, 1, 8}) || !slices.Equal(s.during, []float64{8, 1, 1}) {
		t.Errorf("undisturbed %v, disturbed %v", s.quiet, s.during)
	}
	s.alone, s.beside = []float64{10, 20, 10}, []float64{20, 22, 30}
	var r stallResult
	r.sum(s)
	if r.AloneP50 != 1 || r.DuringP50 != 1 || r.DuringP99 != 8 || r.P99Ratio != 8 || r.Longest != 8 || r.Alone != 10 || r.Beside != 22 || r.TTFTRatio != 2 {
		t.Errorf("%+v", r)
	}
}

func TestPercentile(t *testing.T) {
	v := []float64{4, 1, 3, 2}
	for p, want := range map[int]float64{0: 1, 25: 1, 26: 2, 50: 2, 75: 3, 99: 4, 100: 4} {
		if got := percentile(v, p); got != want {
			t.Errorf("percentile %d: %v, want %v", p, got, want)
		}
	}
	if percentile(nil, 50) != 0 {
		t.Error("percentile of nothing")
	}
}
