package serve

import (
	"context"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/winnow-llm/winnow/engine"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/text"
)

// score gives the log-probability of every token of a prompt after those before it, with the top likeliest alternatives. The first has
// none before it: its log-probability is 0 and means nothing. Control tokens are listed without bytes, as they are no part of the text.
func (m *Model) score(ctx context.Context, prompt []int32, experts *model.Experts, top int) ([]TokenLogprob, error) {
	out := make([]TokenLogprob, len(prompt))
	d := text.NewDecoder(m.tok)
	for i, id := range prompt {
		out[i] = TokenLogprob{ID: id, Bytes: m.tok.Piece(id)}
		if added := d.Next(id); added != string(out[i].Bytes) && utf8.Valid(out[i].Bytes) {
			out[i].Bytes = []byte(added)
		}
	}
	vocab := m.spec.Vocab
	err := m.engine.Score(ctx, engine.Scoring{IDs: prompt, Experts: experts}, func(first int, logits []float32) {
		for row := range len(logits) / vocab {
			if at := first + row + 1; at < len(prompt) {
				m.judge(&out[at], logits[row*vocab:(row+1)*vocab], top)
			}
		}
	})
	return out, err
}

// promptLogprobs is the prompt's score; nil unless a generation asks for it.
func (m *Model) promptLogprobs(ctx context.Context, prompt []int32, g *Generation) ([]TokenLogprob, error) {
	if g.PromptLogprobs == nil {
		return nil, nil
	}
	experts, err := m.experts(g)
	if err != nil {
		return nil, err
	}
	return m.score(ctx, prompt, experts, min(*g.PromptLogprobs, MostAlternatives))
}

// judge fills in a token's log-probability and rank under logits, and the likeliest ids, ties by the lower id.
func (m *Model) judge(t *TokenLogprob, logits []float32, top int) {
	best := slices.Max(logits)
	var total float64
	for _, v := range logits {
		total += math.Exp(float64(v - best))
	}
	norm := float64(best) + math.Log(total)
	logprob := func(id int32) float32 { return float32(min(0, float64(logits[id])-norm)) }
	t.Logprob, t.Rank = logprob(t.ID), 1
	for id, v := range logits {
		if v > logits[t.ID] || v == logits[t.ID] && int32(id) < t.ID {
			t.Rank++
		}
	}
	for i, id := range likeliest(logits, top) {
		t.Top = append(t.Top, TokenLogprob{ID: id, Bytes: m.tok.Piece(id), Logprob: logprob(id), Rank: i + 1})
	}
}

// likeliest lists the ids of the n largest logits, largest first.
func likeliest(logits []float32, n int) []int32 {
	var have []int32
	for id, v := range logits {
		at, _ := slices.BinarySearchFunc(have, v, func(b int32, v float32) int {
			if logits[b] >= v {
				return -1
			}
			return 1
		})
		if at < n {
			have = slices.Insert(have[:min(len(have), n-1)], at, int32(id))
		}
	}
	return have
}
