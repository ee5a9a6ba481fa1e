package engine

import (
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
)

// scheduler decides who advances in a step, and by how much. It works on counters and page numbers alone.
//
// A step is next, then the model's work on what fill wrote, then commit. Between next and commit sequences may be added and aborted;
// those that have a part in the step keep their pages until commit.
type scheduler struct {
	limits  model.Limits
	queue   int // sequences that may wait beyond those that a step holds
	crowd   int // sequences that may generate at once, or be about to, for the sake of experts; 0 = as many as run
	pool    *pool
	running []*sequence // hold pages; in order of priority, then of arrival
	waiting []*sequence // hold none; in the same order
	arrived int64       // sequences that ever came
	plan    []advance   // the step in hand
	chunk   []advance   // a step of those who catch up, under way in parts while others generate
	pace    pace        // of those who catch up while others generate
	drafts  drafts
	drafted int // tokens of the plan that are drafted
	counts  Counters

	packings []packing // what is to be done before the plan's step

	stored  func(pageID) bool // whether a page is kept outside; nil where none are
	restore *restore          // under way; nil when none is
}

// advance is one sequence's part in a step.
type advance struct {
	seq  *sequence
	rows int // tokens it computes, from seq.computed on
	want int // of them the last ones, whose logits are wanted

	draft    []int32 // the last of its tokens, which are only foretold; what was computed for those that do not hold is taken back
	modelled bool    // by the draft model
	headed   bool    // by the model's head
	got      int     // tokens that the step brought it, once it is committed
}

// newScheduler plans for a model's limits. A step holds no more sequences than can have a row, and a wanted row, each.
func newScheduler(lim model.Limits, queue int) *scheduler {
	lim.Sequences = min(lim.Sequences, lim.Rows, lim.Wanted)
	if min(lim.Sequences, lim.Pages, lim.Context) < 1 {
		panic(fmt.Sprintf("winnow: bug: engine: nothing can be computed within %+v", lim))
	}
	return &scheduler{limits: lim, queue: queue, pool: newPool(lim.Pages), pace: pace{most: lim.Rows}, counts: Counters{Histograms: newHistograms()}}
}

// context is how many tokens a sequence may have: what the model was made for, or less where the pages end earlier.
func (s *scheduler) context() int {
	return min(s.limits.Context, s.limits.Pages*attention.PageTokens)
}

// add lets a sequence wait for its turn. Embeddings are limited before they come, see Engine.Embed.
func (s *scheduler) add(q *sequence) error {
	if q.pooling == "" && s.requests() >= s.limits.Sequences+s.queue {
		return ErrQueueFull
	}
	q.arrival = s.arrived
	s.arrived++
	s.waiting = inserted(s.waiting, q)
	return nil
}

// inserted is a list with one more sequence in its place.
func inserted(list []*sequence, q *sequence) []*sequence {
	at, _ := slices.BinarySearchFunc(list, q, (*sequence).compare)
	return slices.Insert(list, at, q)
}

// next plans a step within the limits on rows, wanted rows and sequences. The plan is valid until the next one; it is empty when nobody
// can advance.
//
// Where some generate and others catch up, the plan has the first ones, and the others' part becomes the chunk: a step of its own, which
// is computed in parts between steps of those who generate, and becomes the plan by resume when it is to be committed. Until then
// nobody else is admitted.
func (s *scheduler) next() []advance {
	s.plan, s.drafted = s.plan[:0], 0
	s.packAll()
	if len(s.chunk) > 0 {
		s.single()
		s.draft()
		return s.plan
	}
	for _, q := range s.running {
		s.adopt(q)
	}
	s.outrank()
	s.single()
	s.admit()
	s.single() // who found all but one token in the cache
	singles := len(s.plan)
	s.share()
	if singles > 0 {
		s.chunk = append(s.chunk[:0], s.plan[singles:]...)
		s.plan = s.plan[:singles]
		s.draft()
	}
	for _, a := range s.chunk {
		a.seq.chunked = true
	}
	if len(s.plan) == 0 && len(s.running) == 0 && len(s.waiting) > 0 {
		panic(fmt.Sprintf("winnow: bug: engine: nobody runs and %d wait", len(s.waiting)))
	}
	return s.plan
}

// resume makes the chunk the plan. The last one was committed.
func (s *scheduler) resume() {
	s.plan, s.chunk, s.drafted = append(s.plan[:0], s.chunk...), s.chunk[:0], 0
	for _, a := range s.plan {
		a.seq.chunked = false
	}
}

// single serves the sequences that need one row: they generate, and wait for nobody's prompt. Their rows always fit.
func (s *scheduler) single() {
	for i := 0; i < len(s.running); i++ { // a preemption shortens running from its end
		if q := s.running[i]; !q.held && !q.planned && q.behind() == 1 && s.grow(q) {
			s.give(q, 1)
		}
	}
}

// grow sees that a sequence has the page of its next token. The last ones in order are preempted for it, but for those in the chunk, in the
// end the sequence itself.
func (s *scheduler) grow(q *sequence) bool {
	for len(q.pages) < pagesOf(q.computed+1) {
		if s.pool.available() == 0 {
			last := len(s.running) - 1
			for s.running[last].chunked {
				last--
			}
			victim := s.running[last]
			s.preempt(victim)
			if victim == q {
				return false
			}
			continue
		}
		s.take(q)
	}
	return true
}

// share gives the rest of the rows to those that catch up, in order, and no more than pace allows where others generate. Of the
// wanted rows each running sequence has one; scores share the others.
func (s *scheduler) share() {
	rest, spare, generating := s.limits.Rows, s.limits.Wanted-len(s.running), len(s.plan)
	for _, a := range s.plan {
		rest -= a.rows
	}
	if generating > 0 {
		rest = max(min(rest, s.pace.rows()), s.least())
	}
	for _, q := range s.running {
		if rest == 0 {
			return
		}
		if q.held || q.planned || s.follows(q) || s.waits(q) {
			continue
		}
		rows := min(q.behind(), rest)
		if q.every {
			rows = min(rows, max(q.seen-q.computed, 0)+1+spare)
			spare -= max(q.wanted(rows)-1, 0)
		}
		if rows = q.stretch(q.filled(rows)); rows == 0 {
			continue
		}
		s.give(q, rows)
		rest -= rows
	}
}

func (s *scheduler) give(q *sequence, rows int) {
	q.planned = true
	s.plan = append(s.plan, advance{seq: q, rows: rows, want: q.wanted(rows)})
}

func (s *scheduler) take(q *sequence) { q.pages = append(q.pages, s.page()) }

// page takes a page of the pool, which has one.
func (s *scheduler) page() int32 {
	id, evicted, ok := s.pool.take()
	if !ok {
		panic("winnow: bug: engine: no page where one was promised")
	}
	if evicted {
		s.counts.Evicted++
	}
	return id
}

// adopt lets a running sequence use what another one computed since.
func (s *scheduler) adopt(q *sequence) {
	if gained := s.pool.adopt(q); q.preempted == 0 {
		s.cached(q, gained)
	}
}

// cached counts tokens of a prompt that were found. What a preempted sequence finds of its own is not counted.
func (s *scheduler) cached(q *sequence, tokens int) {
	q.cached += tokens
	s.counts.Cached += int64(tokens)
}

// seal makes shareable what a sequence computed, and counts the pages of prompts that were kept nowhere.
func (s *scheduler) seal(q *sequence) {
	from := q.sealed
	if s.pool.seal(q); s.stored != nil {
		s.counts.Missing += int64(max(0, min(q.sealed, q.prompt/attention.PageTokens)-from))
	}
}

// preempt takes a running sequence's pages and lets it wait before all that came later. Nothing is lost but time: its sealed pages
// may still be there when it returns, and the rest is computed again.
func (s *scheduler) preempt(q *sequence) {
	s.pool.release(q)
	q.preempted++
	s.counts.Preempted++
	s.running = slices.DeleteFunc(s.running, func(r *sequence) bool { return r == q })
	s.waiting = inserted(s.waiting, q)
}

// fill writes a plan as columns.
func (s *scheduler) fill(step *model.Step, plan []advance) {
	step.Reset()
	sampled, wished := false, false
	for _, a := range plan {
		q := a.seq
		step.IDs = append(step.IDs, q.tokens[q.computed:q.computed+a.rows-len(a.draft)]...)
		step.IDs = append(step.IDs, a.draft...)
		step.Past = append(step.Past, int32(q.computed))
		step.Pages = append(step.Pages, q.pages)
		step.Dense = append(step.Dense, s.pool.dense.open(q, a.rows))
		step.Prompts, step.Policies = append(step.Prompts, int32(q.prompt)), append(step.Policies, q.policy)
		step.Wishes = append(step.Wishes, q.wish)
		wished = wished || q.wish != nil
		step.Start = append(step.Start, int32(len(step.IDs)))
		e := &q.edits
		for i := range a.want {
			draws, params := q.draw(i)
			step.Want = append(step.Want, int32(len(step.IDs)-a.want+i))
			step.Draws, step.Param = append(step.Draws, draws), append(step.Param, params)
			step.Edits = append(step.Edits, e.list)
			if i < len(a.draft) {
				e = q.ahead(e, a.draft[i], len(q.tokens)+i+1)
			}
			sampled = sampled || !q.every
		}
	}
	fillSums(step, plan)
	if !wished {
		step.Wishes = step.Wishes[:0]
	}
	if !sampled {
		step.Draws, step.Param, step.Edits = step.Draws[:0], step.Param[:0], step.Edits[:0]
	}
}

// commit moves the counters of the planned step after it was computed. IDs are what was sampled, one a wanted row; none in a step that
// samples nothing. Sequences that ended or were aborted meanwhile give their pages back.
func (s *scheduler) commit(ids []int32) {
	s.counts.Steps++
	row, rows := 0, 0
	for i := range s.plan {
		a := &s.plan[i]
		q := a.seq
		rows += a.rows
		var sampled []int32
		if a.want > 0 && !q.every { // else there may be no ids at all
			sampled = accepted(a.draft, ids[row:row+a.want])
		}
		row, a.got = row+a.want, len(sampled)
		if !q.gone {
			from := q.computed
			q.advance(a.rows-a.rejected(), sampled)
			s.pool.dense.shut(q, from)
			if q.lookup != nil {
				q.lookup.judge(sampled, &s.drafts.held)
			}
			if d := s.drafts.model; q.shadow != nil {
				q.shadow.judge(sampled, &d.odds)
				d.counted(a)
			}
			q.held = q.every && a.want > 0
			s.seal(q)
			if q.reads != nil {
				q.reads.stats.Held, q.reads.stats.Freed = q.holds(), len(q.pages)-q.holds()
			}
			s.counts.Generated += int64(a.got)
			s.counts.Drafted += int64(len(a.draft))
			s.counts.Accepted += int64(len(a.draft) - a.rejected())
		}
	}
	s.counts.Rows += int64(rows)
	s.counts.StepRows.add(float64(rows))
	s.settle(func(q *sequence) bool { return q.ended() })
}

// fail ends all sequences of the planned step: nobody knows what it left in their open pages.
func (s *scheduler) fail() {
	s.settle(func(q *sequence) bool { return q.planned })
}

// settle ends the step in hand. Sequences that are gone, or over, leave, but for those in the chunk.
func (s *scheduler) settle(over func(q *sequence) bool) {
	s.running = slices.DeleteFunc(s.running, func(q *sequence) bool {
		if q.chunked {
			return false
		}
		leaves := q.gone || over(q)
		q.planned = false
		if leaves {
			s.pool.release(q)
		}
		return leaves
	})
}

// abort takes a sequence out: at once, or when the step in hand is over where it has a part in it.
func (s *scheduler) abort(q *sequence) {
	if q.planned {
		q.gone = true
		return
	}
	same := func(r *sequence) bool { return r == q }
	s.running, s.waiting = slices.DeleteFunc(s.running, same), slices.DeleteFunc(s.waiting, same)
	s.pool.release(q)
}

// check proves the books between two steps. What it reports is a bug.
func (s *scheduler) check() error {
	for _, q := range slices.Concat(s.running, s.waiting) {
		if !(0 <= q.computed && q.computed < len(q.tokens) && len(q.tokens) <= q.limit && q.prompt <= len(q.tokens)) {
			return fmt.Errorf("counters %d computed, %d tokens, %d limit, %d prompt", q.computed, len(q.tokens), q.limit, q.prompt)
		}
		if q.chunked != slices.ContainsFunc(s.chunk, func(a advance) bool { return a.seq == q }) {
			return fmt.Errorf("a sequence of %d tokens and the chunk of %d disagree", len(q.tokens), len(s.chunk))
		}
		if !q.chunked && (q.planned || q.gone || q.ended()) {
			return fmt.Errorf("a sequence of %d tokens outlived its step", len(q.tokens))
		}
	}
	for _, list := range [][]*sequence{s.running, s.waiting} {
		if !slices.IsSortedFunc(list, (*sequence).compare) {
			return fmt.Errorf("%d running and %d waiting sequences are out of order", len(s.running), len(s.waiting))
		}
	}
	for _, q := range s.waiting {
		if len(q.pages) > 0 || q.computed > 0 {
			return fmt.Errorf("a waiting sequence holds %d pages", len(q.pages))
		}
	}
	if len(s.running) > s.limits.Sequences {
		return fmt.Errorf("%d sequences run of %d", len(s.running), s.limits.Sequences)
	}
	return s.pool.check(s.running)
}
