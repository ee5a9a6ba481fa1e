package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/model"
)

// Drafting is whether tokens are drafted; "" is NoDrafts.
type Drafting string

// The ways to draft.
const (
	NoDrafts Drafting = "off"
	NGram    Drafting = "ngram"  // by what followed the same few tokens before, where that is measured to be faster
	ByModel  Drafting = "draft"  // as NGram, and by a draft model where the text foretells less, likewise where that is faster
	Always   Drafting = "always" // in all ways there are, however slow: to measure, and for tests
)

// On says whether any tokens are drafted.
func (d Drafting) On() bool { return d == NGram || d == ByModel || d == Always }

// drafts decides which of the tokens that are foretold for sequences are computed along with their next ones. Sampling then goes over the rows as
// it would have gone over steps, and what it chooses holds up to the first token that was foretold otherwise; the rows behind are as if they had
// never been: the next step writes over them.
//
// A row more is worth it where the tokens that are expected of a step, by how often they held lately, come faster than without it, by how long
// steps lately took. Decision 019 says more. It is of the loop's goroutine, but for held, which the engine's mutex guards.
type drafts struct {
	how   Drafting
	held  held // of all sequences
	costs costs
	model *drafter      // nil where there is no draft model
	spent time.Duration // what it took of the turn in hand
	picks []pick        // scratch
}

// pick is a token that could be drafted.
type pick struct {
	part   int     // of the plan
	chance float64 // that it will hold
}

// What drafts aims at.
const (
	worthwhile = 1.03 // so many times as fast as without drafts at least, as they are expected
	hope       = 0.9  // of a time that is not known, beside what its neighbours have one expect
	bystander  = 1.25 // a step in which somebody has no draft takes no more than so many times what it would without
)

// foretell lets an engine that drafts do so for a sequence. It does not for those whose step of several rows is not the same as several
// steps: where selectors choose keys, a generated token is planned by itself and what rows read is counted, as is what experts do where a request
// asks for that.
func (e *Engine) foretell(q *sequence, r *Request) {
	if e.scheduler.drafts.how.On() && r.Draft >= 0 && q.reads == nil && q.use == nil && q.generates() {
		e.mu.Lock()
		others := e.scheduler.drafts.held
		e.mu.Unlock()
		q.lookup = newLookup(r, q.limit, &others)
		if d := e.scheduler.drafts.model; d != nil {
			e.mu.Lock()
			q.shadow = newShadow(q, r.Draft, d)
			e.mu.Unlock()
		}
	}
}

// draft adds drafted tokens to the plan of those who generate, where the step has room for them that nobody else has a use for.
func (s *scheduler) draft() {
	d, n := &s.drafts, len(s.plan)
	if s.drafted = 0; !d.how.On() || n == 0 {
		return
	}
	room := s.draftRoom(n)
	d.picks = d.picks[:0]
	for i, a := range s.plan {
		if q := a.seq; q.lookup != nil && a.want > 0 {
			chance := 1.0
			for j := range q.draftable(q.foretold()) {
				chance *= q.chance(j)
				d.picks = append(d.picks, pick{i, chance})
			}
		}
	}
	slices.SortStableFunc(d.picks, func(a, b pick) int { return cmp.Compare(b.chance, a.chance) }) // of a sequence the first ones stay first
	d.picks = d.picks[:max(0, min(room, len(d.picks)))]
	if d.how != Always {
		d.picks = d.picks[:d.worth(n)]
	}
	for _, p := range d.picks {
		a := &s.plan[p.part]
		if s.extend(a.seq, a.rows+1) {
			a.draft = a.seq.foretold()[:len(a.draft)+1]
			if sh := a.seq.shadow; sh.fresh() {
				a.modelled, a.headed = !sh.headed, sh.headed
			}
			a.rows, a.want = a.rows+1, a.want+1
			s.drafted++
		}
	}
}

// draftRoom is how many rows a step of n who generate has for tokens that are drafted.
func (s *scheduler) draftRoom(n int) int {
	room := min(s.limits.Rows, s.limits.Wanted, mostCosted) - n
	if s.crowd > 0 { // a token more touches experts as a sequence more does
		room = min(room, s.crowd-n)
	}
	return room
}

// extend sees that a sequence has the pages of so many rows. For a draft nobody is preempted, nor left without a page for his next token.
func (s *scheduler) extend(q *sequence, rows int) bool {
	for len(q.pages) < pagesOf(q.computed+rows) {
		if s.pool.available() <= len(s.running) {
			return false
		}
		s.take(q)
	}
	return true
}

// took learns how long a step took, if it is one in which all generate, and whether it stood between parts of a chunk.
func (s *scheduler) took(step *model.Step, spent time.Duration, between bool) {
	if len(step.IDs) != len(step.Past)+s.drafted {
		return
	}
	if s.pace.step(spent+s.drafts.spent, between); !between {
		s.drafts.costs.took(len(step.IDs), spent)
	}
}

// worth is how many picks a step of n sequences gains by. What a draft model took to foretell them is spent.
func (d *drafts) worth(n int) int {
	if !d.costs.ready(n) {
		return 0
	}
	plain, known, spent := d.costs.of(n, n), d.costs.known(n), float64(d.spent)
	best, most := worthwhile*float64(n)/(plain+spent), 0
	tokens, with := float64(n), map[int]bool{}
	for i, p := range d.picks {
		if i >= max(2, 2*(known-n)) {
			break
		}
		tokens += p.chance
		with[p.part] = true
		took := d.costs.of(n, n+i+1)
		if took > bystander*plain && len(with) < n {
			continue
		}
		if pace := tokens / (took + spent); pace > best {
			best, most = pace, i+1
		}
	}
	return most
}

// costs is how long steps take in which all generate, by their rows. Whether a row is a sequence's next token or a drafted one makes little
// difference: both read the weights and, of a mixture, bring experts of their own. How many experts more those are is not foretold but measured,
// as part of the time.
type costs struct {
	steps int
	rows  [mostCosted + 1]cost
}

type cost struct {
	took float64 // nanoseconds, lately
	seen int     // times that it was measured
	at   int     // the step when it was last
}

// Of costs.
const (
	mostCosted = 64   // rows
	sure       = 3    // times that a step is measured until that counts, the shortest of them
	stale      = 2048 // steps after which it does not count any more
	plainEvery = 64   // steps after which one without drafts is made, to compare them with: sequences grow
)

// took learns how long a step took. Later ones count a sixteenth, and a hiccup as half as long again.
func (c *costs) took(rows int, took time.Duration) {
	if c.steps++; rows > mostCosted {
		return
	}
	r, news := &c.rows[rows], float64(took)
	if c.steps-r.at > stale {
		*r = cost{}
	}
	switch {
	case r.seen == 0:
		r.took = news
	case r.seen < sure:
		r.took = min(r.took, news)
	default:
		r.took += (min(news, 1.5*r.took) - r.took) / 16
	}
	r.seen, r.at = r.seen+1, c.steps
}

func (c *costs) counts(rows int) bool {
	return c.rows[rows].seen >= sure && c.steps-c.rows[rows].at <= stale
}

// ready says whether the time is known that a step of n sequences takes without drafts.
func (c *costs) ready(n int) bool {
	return n < mostCosted && c.counts(n) && c.steps-c.rows[n].at < plainEvery
}

// known is the most rows whose time is known, n at least.
func (c *costs) known(n int) int {
	rows := mostCosted
	for rows > n && !c.counts(rows) {
		rows--
	}
	return rows
}

// of is how long a step of n sequences takes that has so many rows, where that without drafts is known. What is not known is thought to be a tenth
// less than on the line between its neighbours, and beyond the last of them half of what a row has cost up to there is thought to be added: so it
// is tried where that would pay, and then known.
func (c *costs) of(n, rows int) float64 {
	low, high := rows, rows
	for low > n && !c.counts(low) {
		low--
	}
	for high < mostCosted && !c.counts(high) {
		high++
	}
	plain, took, far := c.rows[n].took, c.rows[low].took, float64(rows-low)
	switch {
	case low == rows:
	case c.counts(high):
		took = hope * (took + (c.rows[high].took-took)*far/float64(high-low))
	case low > n:
		took += (took - plain) / float64(low-n) * far / 2
	}
	return max(plain, took)
}

// accepted are those ids, of what a step chose for a sequence, that hold: up to the first that was foretold otherwise.
func accepted(draft, ids []int32) []int32 {
	for i, id := range draft {
		if ids[i] != id {
			return ids[:i+1]
		}
	}
	return ids
}

// rejected is how many of the drafted tokens do not hold.
func (a *advance) rejected() int {
	if len(a.draft) == 0 {
		return 0
	}
	return len(a.draft) + 1 - a.got
}

// ahead are edits once id is drafted as the sequence's token number n, counted from 1: e itself where that changes nothing.
func (q *sequence) ahead(e *edits, id int32, n int) *edits {
	switch {
	case !e.seen && !e.count && n != q.floor:
		return e
	case e == &q.edits:
		e = e.clone()
	default:
		e.list = slices.Clone(e.list) // rows before have the other one
	}
	q.count(e, id, n)
	return e
}
