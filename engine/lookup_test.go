package engine

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// foretold is what a lookup should find, by looking at everything.
func foretold(text []int32) (next []int32, same int) {
	end := len(text)
	for n := longestGram; n >= shortestGram; n-- {
		for at := end - 1; at >= n; at-- {
			if end <= n || !slices.Equal(text[at-n:at], text[end-n:]) {
				continue
			}
			for same = n; same < min(longestMatch, at) && text[at-same-1] == text[end-same-1]; same++ {
			}
			all := slices.Clone(text)
			for i := range MostDraft {
				all = append(all, all[at+i])
			}
			return all[end:], same
		}
	}
	return nil, 0
}

// A lookup finds what follows the longest of the last two to four tokens where it stood last, whatever of the text is the prompt, and
// however the text grows.
func TestLookup(t *testing.T) {
	r, found, hidden := rand.New(rand.NewPCG(1, 1)), 0, 0
	for range 200 {
		var q Request
		for range r.IntN(40) {
			q.Expected = append(q.Expected, r.Int32N(6))
		}
		for range 1 + r.IntN(80) {
			q.Prompt = append(q.Prompt, r.Int32N(6))
		}
		l := newLookup(&q, 4000, &held{})
		text := slices.Concat(q.Expected, q.Prompt)
		for range 60 {
			next, same := foretold(text)
			switch l.find(); {
			case !slices.Equal(l.next, next) || l.same != same:
				hidden++ // behind another n-gram
			case len(next) > 0:
				found++
			}
			id := r.Int32N(6)
			l.judge([]int32{id}, &held{})
			text = append(text, id)
		}
	}
	if found < 1000 || hidden > found/100 {
		t.Errorf("found what was meant %d times, and %d times not", found, hidden)
	}
}

// What is foretold is the request's most, and its memory is bounded.
func TestLookupBounds(t *testing.T) {
	l := newLookup(&Request{Prompt: []int32{1, 2, 3, 1, 2}, Draft: 3}, 1<<30, &held{})
	if l.find(); !slices.Equal(l.next, []int32{3, 1, 2}) || len(l.slots) != mostSlots {
		t.Errorf("%v, %d slots", l.next, len(l.slots))
	}
	if l = newLookup(&Request{Prompt: []int32{1}, Draft: 99}, 10, &held{}); l.most != MostDraft || len(l.slots) > 64 {
		t.Errorf("%d tokens, %d slots", l.most, len(l.slots))
	}
	l.find() // of one token nothing is foretold
	if len(l.next) > 0 {
		t.Error(l.next)
	}
}

// How often a token holds is learned by the length of the match before it, and a longer match that was never seen is thought as good as a
// shorter one.
func TestLookupJudges(t *testing.T) {
	l := newLookup(&Request{Prompt: []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 1, 2}}, 100, &held{})
	if l.find(); l.chance(0) != 0 || l.chance(7) != 0 {
		t.Error("something is likely that was never tried")
	}
	var all held
	l.judge([]int32{3, 4, 0}, &all) // after matches of 2, 3 and 4 tokens
	two, four := l.held[2], l.held[3]
	if two.seen != 2 || math.Abs(two.share-2./3) > 1e-9 || four.seen != 1 || four.share != 0 {
		t.Errorf("%+v", l.held)
	}
	l.same = 2
	if l.chance(1) != two.share || l.chance(2) != 0 || l.chance(20) != 0 {
		t.Errorf("chances %v, %v, %v", l.chance(1), l.chance(2), l.chance(20))
	}
	l.held[3] = rate{}
	if l.chance(9) != two.share {
		t.Errorf("a long match: %v, want %v", l.chance(9), two.share)
	}
	for range 100 {
		l.held[3].add(true, ownWindow)
	}
	if l.held[3].add(false, ownWindow); l.held[3].share > 0.95 || l.held[3].share < 0.9 {
		t.Errorf("once not after a hundred times: %v", l.held[3].share)
	}
	// Who comes later begins with what others had, and has his own soon.
	l = newLookup(&Request{Prompt: []int32{1, 2, 3, 1, 2}}, 100, &all)
	if l.find(); l.chance(0) != two.share {
		t.Errorf("a later one begins with %v, others had %v", l.chance(0), two.share)
	}
	if l.judge([]int32{9}, &all); l.held[2].share > two.share*0.7 || all[2].seen != 3 {
		t.Errorf("after a failure it has %v; all: %+v", l.held[2], all)
	}
}
