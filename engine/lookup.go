package engine

import (
	"cmp"
	"math/bits"
	"slices"
)

// lookup foretells what follows in a sequence by what followed the last time that its last tokens stood there: prompt lookup, or n-gram drafts
// (Saxena 2023; vLLM and llama.cpp have it too). Text is found by a hash of its last few tokens, so a token costs the same however much there is,
// and what is remembered is bounded: where two n-grams have one slot, the older one is not found.
//
// It also keeps how often its tokens held, whether they were drafted or only thought of: that costs nothing, and says when to draft.
type lookup struct {
	text  []int32 // what the request expects of the answer, then the prompt and the answer so far
	slots []int32 // by hash: the place behind the last n-gram with it; 0 = there is none
	most  int     // tokens that are foretold at once
	next  []int32 // those that are
	found int     // tokens of the text when they were
	same  int     // tokens before them that are as they were before what they are taken from, as far as longestMatch
	held  held
}

// held is how often tokens that were foretold came true, by the length of the match before them.
type held [matchClasses]rate

// MostDraft is how many tokens are drafted for a sequence in a step at most: with its next one they are eight rows, and kernels take rows by fours
// and eights.
const MostDraft = 7

// Sizes of a lookup.
const (
	longestGram  = 4 // tokens, which are looked up first
	shortestGram = 2
	longestMatch = 31 // tokens that are compared to know how long a match is
	matchClasses = 6  // of lengths of matches, which differ by a factor of two: 2, 4, 8, 16
	mostSlots    = 1 << 17
	ownWindow    = 16  // tokens of a sequence by which is judged how its next ones will do
	allWindow    = 256 // tokens of all sequences, by which a new one's are
)

// newLookup is that of a request whose sequence comes to have at most so many tokens. Others' tokens were foretold with this success.
func newLookup(r *Request, limit int, others *held) *lookup {
	grams := (longestGram - shortestGram + 1) * (len(r.Expected) + limit)
	l := &lookup{
		text: make([]int32, 0, len(r.Expected)+len(r.Prompt)), slots: make([]int32, min(1<<bits.Len(uint(grams)), mostSlots)),
		most: min(cmp.Or(r.Draft, MostDraft), MostDraft),
	}
	for i, o := range others {
		if o.seen > 0 {
			l.held[i] = rate{share: o.share, seen: 1}
		}
	}
	l.push(r.Expected...)
	l.push(r.Prompt...)
	return l
}

// push takes tokens behind the text.
func (l *lookup) push(ids ...int32) {
	for _, id := range ids {
		end := len(l.text)
		for n := shortestGram; n <= min(longestGram, end); n++ {
			*l.slot(n) = int32(end)
		}
		l.text = append(l.text, id)
	}
}

// slot is where the text's last n tokens are looked for.
func (l *lookup) slot(n int) *int32 {
	h := uint64(0)
	for _, id := range l.text[len(l.text)-n:] {
		h = (h ^ h>>29 ^ uint64(uint32(id)+1)) * 0x9e3779b97f4a7c15
	}
	return &l.slots[(h^h>>32)&uint64(len(l.slots)-1)]
}

// find foretells the next tokens, none where nothing like the last ones stood before. What goes on to the end of the text goes on with what
// was foretold itself, as a loop does.
func (l *lookup) find() {
	end := len(l.text)
	if l.found == end {
		return
	}
	l.next, l.same, l.found = l.next[:0], 0, end
	for n := min(longestGram, end-1); n >= shortestGram; n-- {
		at := int(*l.slot(n))
		if at < n || !slices.Equal(l.text[at-n:at], l.text[end-n:]) {
			continue
		}
		l.same = n
		for l.same < min(longestMatch, at) && l.text[at-l.same-1] == l.text[end-l.same-1] {
			l.same++
		}
		for i := range l.most {
			if at+i < end {
				l.next = append(l.next, l.text[at+i])
			} else {
				l.next = append(l.next, l.next[at+i-end])
			}
		}
		return
	}
}

// chance is how likely token i of what is foretold holds, if those before it do: as often as others lately did after matches about as long, or,
// where there were none yet, after shorter ones.
func (l *lookup) chance(i int) float64 {
	class := l.class(i)
	for class > 1 && l.held[class].seen == 0 {
		class--
	}
	return l.held[class].share
}

func (l *lookup) class(i int) int { return min(bits.Len(uint(l.same+i)), matchClasses-1) }

// judge compares what was foretold with what was chosen, and takes that in, for those who come later too.
func (l *lookup) judge(ids []int32, all *held) {
	for i, id := range ids[:min(len(ids), len(l.next))] {
		class := l.class(i)
		l.held[class].add(id == l.next[i], ownWindow)
		all[class].add(id == l.next[i], allWindow)
		if id != l.next[i] {
			break
		}
	}
	l.next = l.next[:0]
	l.push(ids...)
}

// rate is how often something holds: all times alike at first, and then the last few times most. It begins at never.
type rate struct {
	share float64
	seen  int
}

func (r *rate) add(held bool, window int) {
	r.seen++
	news := 0.0
	if held {
		news = 1
	}
	r.share += (news - r.share) / float64(min(1+r.seen, window))
}
