package main

import (
	"context"

	"github.com/winnow-llm/winnow/engine"
)

// ask generates n tokens after a prompt.
func (w *workout) ask(ctx context.Context, prompt []int32, n int) (*engine.Stats, error) {
	reads, err := w.sparse.Reading(len(prompt))
	if err != nil {
		return nil, err
	}
	var stats *engine.Stats
	for t, err := range w.engine.Generate(ctx, engine.Request{Prompt: prompt, MaxTokens: n, Experts: w.experts, Reads: reads, Alternatives: -1}) {
		if err != nil {
			return nil, err
		}
		stats = t.Stats
	}
	return stats, nil
}

// ids are n random tokens.
func (w *workout) ids(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = w.draw.Int32N(int32(w.Spec().Vocab))
	}
	return out
}
