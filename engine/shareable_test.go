package engine

import (
	"testing"

	"github.com/winnow-llm/winnow/model"
)

// What a selector served is found by nobody where it does not follow from the tokens alone: neither the end of a prompt, nor what was generated,
// however much of a score has been handed over.
func TestAdoptableIsShareable(t *testing.T) {
	tokens := make([]int32, 1000)
	for want, q := range map[int]*sequence{
		999: {},
		650: {policy: &model.Policy{Decode: 1}},
		700: {policy: &model.Policy{Decode: 1, From: 700}},
		512: {policy: &model.Policy{Prefill: 1, Align: 256}},
		448: {policy: &model.Policy{Prefill: 1, Align: 64, Tail: 192, Decode: 1}},
		990: {every: true, seen: 990},
		649: {every: true, seen: 649, policy: &model.Policy{Decode: 1}},
		640: {every: true, seen: 990, policy: &model.Policy{Prefill: 1, Align: 64}},
	} {
		q.tokens, q.prompt = tokens, 650
		if got := q.adoptable(); got != want {
			t.Errorf("%+v of %+v: %d tokens may be found, want %d", q.seen, q.policy, got, want)
		}
	}
}
