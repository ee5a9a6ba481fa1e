package engine

import (
	"slices"

	"github.com/winnow-llm/winnow/attention"
)

// admit starts waiting sequences while the rows that nobody before them claims, the sequences and the pages allow it. The head of the
// queue is not overtaken, unless it only waits for what a running sequence computes for both. So nobody waits for ever whom the crowd keeps out:
// those that generate end, and he is next.
func (s *scheduler) admit() {
	for i := 0; i < min(len(s.waiting), s.limits.Sequences) && len(s.running) < s.limits.Sequences; {
		q := s.waiting[i]
		if s.crowded(q, s.running) || s.unclaimed(q) <= 0 {
			return
		}
		gained := s.pool.adopt(q)
		if s.follows(q) {
			s.pool.release(q)
			i++
			continue
		}
		if !s.lodge(q) {
			s.pool.release(q)
			return
		}
		if q.preempted == 0 {
			s.counts.Prompt += int64(q.prompt)
			s.cached(q, gained)
		}
		s.running, s.waiting = inserted(s.running, q), slices.Delete(s.waiting, i, i+1)
	}
}

// crowded says whether a sequence that is to generate has to wait since as many of others do as may.
func (s *scheduler) crowded(q *sequence, others []*sequence) bool {
	if s.crowd == 0 || !q.generates() {
		return false
	}
	n := 0
	for _, r := range others {
		if r.generates() {
			n++
		}
	}
	return n >= s.crowd
}

// unclaimed is how many rows of the step are left for a sequence after those that go before it.
func (s *scheduler) unclaimed(q *sequence) int {
	rest := s.limits.Rows - len(s.plan)
	for _, r := range s.running {
		if r.before(q) && !r.planned && !r.held && !s.waits(r) {
			rest -= r.behind()
		}
	}
	return rest
}

// missing is how many pages there are too few to admit a sequence: those of its tokens and its next one, and one more for each that goes
// before it and will grow into one, so that who is admitted is not preempted at once.
func (s *scheduler) missing(q *sequence) int {
	own, packed := q.lacks()
	need := own + packed
	for _, r := range s.running {
		if r.before(q) && len(r.pages) < pagesOf(r.limit-1) {
			need++
		}
	}
	return max(0, need-s.pool.available())
}

// follows says whether the page that a sequence is to compute next is being computed, from the same tokens, by one that goes before it:
// choices of one request, requests with one system prompt. It waits and adopts the page.
func (s *scheduler) follows(q *sequence) bool {
	from, to := q.computed, q.computed+q.unit()
	if from != q.sealed*attention.PageTokens || to > q.adoptable() {
		return false
	}
	return slices.ContainsFunc(s.running, func(r *sequence) bool {
		return r.before(q) && !r.held && r.behind() > 1 && r.shareable() >= to && r.sealed == q.sealed && r.variant == q.variant &&
			s.pool.parent(r, r.sealed) == s.pool.parent(q, q.sealed) && slices.Equal(r.tokens[from:to], q.tokens[from:to])
	})
}

// outrank lets the sequence at the head of the queue take the place of running ones with a higher number of priority, if they have enough.
func (s *scheduler) outrank() {
	if len(s.waiting) == 0 {
		return
	}
	q := s.waiting[0]
	theirs := 0 // pages of those that would make room
	lower := len(s.running)
	for ; lower > 0 && s.running[lower-1].priority > q.priority; lower-- {
		theirs += s.running[lower-1].holds()
	}
	if lower == len(s.running) || lower >= s.limits.Sequences || s.crowded(q, s.running[:lower]) {
		return
	}
	s.pool.adopt(q)
	if s.missing(q) <= theirs {
		for len(s.running) > lower && (len(s.running) == s.limits.Sequences || s.crowded(q, s.running) || s.missing(q) > 0) {
			s.preempt(s.running[len(s.running)-1])
		}
	}
	s.pool.release(q)
}
