package engine

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// round is what the draft model is to do before a step.
type round struct {
	all   []*shadow // who could draft, the likeliest to hold first
	n     int       // of all the first ones, who do
	depth int       // tokens that each has foretold at most
	trial bool      // to learn what they are worth, though it is not expected to pay
}

// Sizes of a round.
const (
	nearLag    = 8   // tokens that are computed along with the last one, and not before
	trialShare = 100 // of the time of all steps, what trials may take is one part in so many
	trialDepth = 3
	trialTimes = 4    // rounds that a trial has
	horizon    = 256  // tokens to come that are reckoned with
	lookupEdge = 0.05 // so much more often must the draft model's tokens hold than those of the sequence's own text, which cost nothing
)

// round decides who has tokens foretold by the draft model before the next step, and how many.
func (s *scheduler) round(d *drafter) *round {
	r := &d.round
	r.all, r.n, r.depth, r.trial = r.all[:0], 0, 0, false
	n := 0
	for _, q := range s.running {
		if q.held || q.planned || q.behind() != 1 {
			continue
		}
		n++
		if sh := q.shadow; sh != nil && d.serves(sh) {
			r.all = append(r.all, sh)
		}
	}
	room := s.draftRoom(n)
	if len(r.all) == 0 || room <= 0 || s.drafts.how != Always && !s.drafts.costs.ready(n) {
		return r
	}
	slices.SortStableFunc(r.all, func(a, b *shadow) int { return cmp.Compare(b.odds.rate(), a.odds.rate()) })
	if s.drafts.how == Always {
		r.n, r.depth = min(len(r.all), room), MostDraft
		return r
	}
	if gain := d.deepen(&s.drafts.costs, n, room); r.n > 0 {
		d.drop(gain)
	}
	if r.n == 0 {
		d.try()
	}
	return r
}

// rate is how often a token that is looked for is drafted, and holds.
func (o *odds) rate() float64 { return o.bold.share * o.held.share }

// geometric is b + b² + ... of so many terms.
func geometric(b float64, terms int) (sum float64) {
	for term := b; terms > 0; terms-- {
		sum, term = sum+term, term*b
	}
	return sum
}

// deepen finds for how many of a round, and how deep, tokens come the fastest in a step of n sequences, by how long steps of both models take.
// It gives what that saves for each token that each of them gets, in nanoseconds.
func (d *drafter) deepen(c *costs, n, room int) (gain float64) {
	r, plain := &d.round, c.of(n, n)
	known := max(2, 2*(c.known(n)-n))
	best := worthwhile * float64(n) / plain
	for m := 1; m <= min(len(r.all), room); m++ {
		for depth := 1; depth <= d.most; depth++ {
			tokens, rows, steps := float64(n), 0.0, 0.0
			for _, sh := range r.all[:m] {
				k := min(depth, sh.room())
				tokens += geometric(sh.odds.rate(), k)
				rows += geometric(sh.odds.bold.share, k)
				steps = max(steps, 1+geometric(sh.odds.bold.share, k-1))
			}
			more := int(math.Ceil(rows - 0.1))
			if more > min(room, known) {
				break
			}
			took := c.of(n, n+more) + d.steps.about(m)*steps
			if m < n && took > bystander*plain {
				break
			}
			if pace := tokens / took; pace > best {
				best, r.n, r.depth = pace, m, depth
				gain = (plain - float64(n)/pace) / float64(m)
			}
		}
	}
	return gain
}

// drop takes those out of a round for whom catching up takes longer than what the tokens to come save.
func (d *drafter) drop(gain float64) {
	r, kept := &d.round, 0
	for i, sh := range r.all[:r.n] {
		ahead := min(sh.of.limit-len(sh.of.tokens), horizon)
		if sh.lag() <= nearLag || float64(sh.lag())*float64(d.row) <= gain*float64(ahead) {
			r.all[i], r.all[kept] = r.all[kept], sh
			kept++
		}
	}
	r.n = kept
}

// try makes a round a trial, where that is one's turn: what did not pay may do so with another text. Once it has caught up, a trial goes on for
// some rounds.
func (d *drafter) try() {
	r := &d.round
	at := slices.Index(r.all, d.tried)
	if d.tries == 0 || at < 0 {
		d.tries = 0
		at = 0
		for i, sh := range r.all {
			if sh.lag() < r.all[at].lag() {
				at = i
			}
		}
		sh := r.all[at]
		need := time.Duration(sh.lag())*d.row + trialTimes*trialDepth*time.Duration(d.steps.about(1))
		if (d.trials+need)*trialShare > d.total {
			return
		}
		d.tried, d.tries = sh, trialTimes
	}
	r.all[0], r.all[at] = r.all[at], r.all[0]
	r.n, r.depth, r.trial = 1, min(trialDepth, d.most), true
}

// about is how long a step of so many rows takes, as those do whose rows are the most alike; 0 where none is known.
func (c *costs) about(rows int) float64 {
	rows = min(rows, mostCosted)
	for off := range mostCosted {
		for _, at := range []int{rows - off, rows + off} {
			if at > 0 && at <= mostCosted && c.rows[at].seen >= sure {
				return c.rows[at].took
			}
		}
	}
	return 0
}
