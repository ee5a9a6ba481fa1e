package main

import (
	"fmt"
	"io"

	"github.com/winnow-llm/winnow/model"
)

// expertsRead is what was read of a model's file while it was measured.
type expertsRead struct {
	HitRate       float64 `json:"hit_rate"`                  // share of the experts that steps needed which were in memory
	BytesPerToken float64 `json:"bytes_read_per_token"`      // from the file, or from what the system has cached of it
	GuessRate     float64 `json:"guess_precision,omitempty"` // share of the experts read ahead that were needed
}

// traffic is what all layers of experts have read; the network is idle.
func (w *workout) traffic() (sum model.ExpertTraffic) {
	for _, l := range w.ExpertTraffic() {
		sum.Slots += l.Slots
		sum.Hits, sum.Misses, sum.Bytes = sum.Hits+l.Hits, sum.Misses+l.Misses, sum.Bytes+l.Bytes
		sum.Guessed, sum.Came = sum.Guessed+l.Guessed, sum.Came+l.Came
	}
	return sum
}

// readSince is what was read between two looks at the traffic, for so many tokens; nil where all experts are in memory.
func readSince(before, now model.ExpertTraffic, tokens int) *expertsRead {
	hits, misses, guessed := now.Hits-before.Hits, now.Misses-before.Misses, now.Guessed-before.Guessed
	if now.Slots == 0 || hits+misses == 0 {
		return nil
	}
	x := &expertsRead{HitRate: float64(hits) / float64(hits+misses), BytesPerToken: float64(now.Bytes-before.Bytes) / float64(tokens)}
	if guessed > 0 {
		x.GuessRate = float64(now.Came-before.Came) / float64(guessed)
	}
	return x
}

// printExpertsRead has a line for each test in which experts were read.
func printExpertsRead(out io.Writer, results []benchResult) error {
	for _, r := range results {
		if x := r.ExpertsRead; x != nil {
			if _, err := fmt.Fprintf(out, "%s with %d threads: %.0f %% of the experts needed were in memory, %.1f MB of others read a token\n",
				r.label(), r.NThreads, 100*x.HitRate, x.BytesPerToken/1e6); err != nil {
				return err
			}
		}
	}
	return nil
}
