package engine

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/tensor"
)

// Drafter is a draft model: a smaller one of the same vocabulary, which says what the model itself would probably say; or a head of the model, which says
// it by the model's own hidden states.
type Drafter struct {
	Model *model.Model // stepped by the engine's loop alone, as the engine's own; closing it is the caller's affair
	// Most is how many tokens it has drafted for a sequence in a step at most; 0 = MostDraft, which is the most.
	Most int
	// MinP ends a draft at the first token that the draft model itself thinks less likely; 0 = none is.
	MinP float32
}

// drafter runs a draft model (speculative decoding: Leviathan et al. 2023, arXiv:2211.17192). Before a step it computes, for several sequences at
// once, what the last tokens were of those that will draft, and then one token after the other of what is to follow. Each is chosen as the sequence
// itself chooses, with its penalties, its seed and the place of the token: so that the drafts of a model that thinks alike hold whatever the
// sampling. What is not chosen by the model itself afterwards is not undone: the next round begins at the first of those places.
//
// The draft model's cache has pages of its own, and a prefix tree of its own. It is of the loop's goroutine, but for odds and counts, which the
// engine's mutex guards.
type drafter struct {
	model  *model.Model
	limits model.Limits
	pool   *pool
	root   int32
	vocab  int32 // ids from 0 up that both models have
	narrow bool  // the model has more
	head   *head // what it has beside as a head of the model; nil = it is a model that needs nothing but tokens
	most   int
	minP   float64
	odds   odds // of all sequences
	counts DraftCounts

	round   round
	shadows []*shadow // those that hold pages
	alive   []*shadow // of a round, those that go on; scratch, as all below
	edits   []*edits
	work    model.Step
	ids     []int32
	probs   []float32

	steps  costs         // how long the draft model's steps take
	row    time.Duration // what a row of those takes that catch up, lately
	total  time.Duration // of all turns
	trials time.Duration // of the rounds that are trials
	tried  *shadow       // whose trial it is
	tries  int           // rounds that its trial has left
}

// DraftCounts are what a draft model did.
type DraftCounts struct {
	Drafted  int64   // tokens that it foretold and that were computed ahead of their time, see Options.Draft
	Accepted int64   // of them, those that held
	Rows     int64   // tokens that it computed, those of prompts included
	Seconds  float64 // that it took
	Failed   int64   // rounds that its device failed; the sequences in them draft no more by it
}

// newDrafter prepares a draft model for an engine of vocab ids.
func newDrafter(o *Drafter, vocab int) *drafter {
	lim := o.Model.Limits()
	if lim.Rows < nearLag+1 || min(lim.Pages, lim.Sequences, lim.Wanted) < 1 {
		panic(fmt.Sprintf("winnow: bug: engine: nothing can be drafted within %+v", lim))
	}
	d := &drafter{
		model: o.Model, limits: lim, pool: newPool(lim.Pages), minP: float64(o.MinP), narrow: o.Model.Spec().Vocab < vocab,
		vocab: int32(min(o.Model.Spec().Vocab, vocab)), most: min(cmp.Or(o.Most, MostDraft), MostDraft),
	}
	d.root = d.pool.root(o.Model.Fingerprint())
	if o.Model.IsHead() {
		d.head = &head{dim: o.Model.Spec().Dim}
	}
	return d
}

// ponder has the draft model foretell tokens for some of those who generate, before a step is planned.
func (e *Engine) ponder() {
	drafts := &e.scheduler.drafts
	d := drafts.model
	if d == nil {
		return
	}
	e.digest(d)
	started := time.Now()
	e.mu.Lock()
	d.reap()
	r := e.scheduler.round(d)
	e.mu.Unlock()
	if drafts.spent = 0; r.n == 0 {
		return
	}
	rows, err := d.run()
	e.mu.Lock()
	defer e.mu.Unlock()
	d.settle(err)
	drafts.spent = time.Since(started)
	d.total += drafts.spent
	d.counts.Rows, d.counts.Seconds = d.counts.Rows+int64(rows), d.counts.Seconds+drafts.spent.Seconds()
	if r.trial {
		d.trials += drafts.spent
	}
}

// reap takes the pages from shadows whose sequences have lost theirs: they ended, left or were preempted.
func (d *drafter) reap() {
	d.shadows = slices.DeleteFunc(d.shadows, func(sh *shadow) bool {
		if len(sh.of.pages) > 0 {
			return false
		}
		d.free(sh)
		return true
	})
}

// free takes all pages from a shadow, which the list of those that hold some still has.
func (d *drafter) free(sh *shadow) {
	d.pool.release(&sh.seq)
	sh.listed, sh.states = false, sh.states[:0]
}

// serves brings a shadow up to its sequence, and says whether the draft model could foretell something of it now.
func (d *drafter) serves(sh *shadow) bool {
	sh.sync()
	q := &sh.seq
	if d.head != nil && !d.head.knows(sh) || sh.room() < 1 || len(q.tokens)+sh.most > min(d.limits.Context, d.limits.Pages*attention.PageTokens) {
		return false
	}
	if d.narrow && slices.ContainsFunc(q.tokens[q.computed:], func(id int32) bool { return id >= d.vocab }) {
		return false
	}
	if l := sh.of.lookup; l != nil {
		if l.find(); len(l.next) > 0 && l.chance(0)+lookupEdge >= sh.odds.rate() {
			return false
		}
	}
	d.pool.seal(q)
	if d.head == nil { // which adopts what it has no states of
		d.pool.adopt(q)
	}
	d.list(sh)
	return true
}

// list remembers a shadow that holds pages.
func (d *drafter) list(sh *shadow) {
	if !sh.listed && len(sh.seq.pages) > 0 {
		sh.listed, d.shadows = true, append(d.shadows, sh)
	}
}

// run computes a round, and says how many rows that were.
func (d *drafter) run() (rows int, err error) {
	d.alive = d.alive[:0]
	for _, sh := range d.round.all[:d.round.n] {
		if len(d.alive) < min(d.limits.Sequences, d.limits.Wanted, d.limits.Rows/(nearLag+1)) && d.extend(sh) {
			d.alive = append(d.alive, sh)
		}
	}
	if rows, err = d.catchUp(); err != nil {
		return rows, err
	}
	d.alive = slices.DeleteFunc(d.alive, func(sh *shadow) bool { return sh.lag() > nearLag })
	d.edits = d.edits[:0]
	for _, sh := range d.alive {
		sh.asked, d.edits = true, append(d.edits, &sh.of.edits)
	}
	for i := 0; len(d.alive) > 0 && err == nil; i++ {
		n, started := 0, time.Now()
		if n, err = d.step(i); err == nil {
			d.steps.took(n, time.Since(started))
			d.choose()
		}
		rows += n
	}
	return rows, err
}

// extend sees that a shadow has the pages of what it is to compute. Those who are not in the round lose theirs for it. Who finds none even so
// drafts no more by this model, so that two do not take them from each other by turns.
func (d *drafter) extend(sh *shadow) bool {
	for len(sh.seq.pages) < pagesOf(len(sh.seq.tokens)+d.round.depth) {
		id, _, ok := d.pool.take()
		if !ok {
			out := slices.IndexFunc(d.shadows, func(o *shadow) bool { return !slices.Contains(d.round.all[:d.round.n], o) })
			if out < 0 {
				d.lose(sh)
				return false
			}
			d.free(d.shadows[out])
			d.shadows = slices.Delete(d.shadows, out, out+1)
			continue
		}
		sh.seq.pages = append(sh.seq.pages, id)
		d.list(sh)
	}
	return true
}

// catchUp computes tokens of those that are far behind, in order, for a part of the time that others may be kept waiting.
func (d *drafter) catchUp() (rows int, err error) {
	rest := min(stride, d.limits.Rows)
	if d.row > 0 {
		rest = max(leastStride, min(int(gapTime/4/d.row), d.limits.Rows))
	}
	step := &d.work
	step.Reset()
	for _, sh := range d.alive {
		if sh.lag() <= nearLag || rest == 0 {
			continue
		}
		n := min(sh.lag(), rest)
		rest -= n
		d.add(sh, n)
	}
	if rows = len(step.IDs); rows == 0 {
		return 0, nil
	}
	started := time.Now()
	d.model.Batch().Fill(d.model.Queue(), step)
	d.model.Forward(d.model.Batch())
	if err := d.model.Queue().Sync(); err != nil {
		return rows, err
	}
	took := max(time.Since(started)/time.Duration(rows), 1)
	if d.row += (min(took, 4*d.row) - d.row) / 4; d.row <= 0 {
		d.row = took
	}
	at := 0
	for _, sh := range d.alive {
		if n := min(sh.lag(), rows-at); sh.lag() > nearLag && n > 0 {
			sh.seq.computed, at = sh.seq.computed+n, at+n
		}
	}
	return rows, nil
}

// add gives a shadow rows of the step: tokens that are not computed yet, and then what is foretold.
func (d *drafter) add(sh *shadow, rows int) {
	q, step := &sh.seq, &d.work
	from := len(q.tokens) - q.computed // of them those that the sequence has
	if from = max(0, min(from, rows)); from > 0 {
		step.IDs = append(step.IDs, q.tokens[q.computed:q.computed+from]...)
	}
	if rest := rows - from; rest > 0 {
		at := q.computed + from - len(q.tokens)
		step.IDs = append(step.IDs, sh.next[at:at+rest]...)
	}
	step.Past, step.Pages = append(step.Past, int32(q.computed)), append(step.Pages, q.pages)
	step.Prompts, step.Policies = append(step.Prompts, int32(q.prompt)), append(step.Policies, nil)
	step.Start = append(step.Start, int32(len(step.IDs)))
	if d.head != nil {
		step.Hidden = append(step.Hidden, sh.before(from*d.head.dim, rows > from)...)
	}
}

// step computes the logits that follow the last token of each that goes on, and chooses an id of them.
func (d *drafter) step(ahead int) (rows int, err error) {
	step, b, q := &d.work, d.model.Batch(), d.model.Queue()
	step.Reset()
	for i, sh := range d.alive {
		d.add(sh, len(sh.seq.tokens)+len(sh.next)-sh.seq.computed)
		draws, params := sh.of.draw(ahead)
		draws[tensor.Alternatives] = 0 // so that its probability is told
		step.Want = append(step.Want, int32(len(step.IDs)-1))
		step.Draws, step.Param = append(step.Draws, draws), append(step.Param, params)
		step.Edits = append(step.Edits, d.known(d.edits[i].list))
	}
	n := len(d.alive)
	d.ids, d.probs = resize(d.ids, n), resize(d.probs, n*(1+model.MostAlternatives))
	b.Fill(q, step)
	d.model.Forward(b)
	q.Run(&b.Sample)
	model.ReadI32(q, b.Sample.IDs, d.ids)
	model.ReadF32(q, b.Sample.Probs, d.probs)
	if d.head != nil {
		d.head.normed = resize(d.head.normed, n*d.head.dim)
		model.ReadF32(q, d.model.Normed(n), d.head.normed)
	}
	return len(step.IDs), q.Sync()
}

// known are those edits whose ids the draft model has.
func (d *drafter) known(list []model.Edit) []model.Edit {
	if !d.narrow {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(e model.Edit) bool { return e.ID >= d.vocab })
}

// choose takes in what a step chose. Who is not sure, or at an end, has nothing more foretold.
func (d *drafter) choose() {
	going := 0
	for i, sh := range d.alive {
		id, sure := d.ids[i], math.Exp(float64(d.probs[i*(1+model.MostAlternatives)]))
		sh.seq.computed = len(sh.seq.tokens) + len(sh.next)
		if d.head != nil {
			d.head.went(sh, i)
		}
		if id >= d.vocab || slices.Contains(sh.of.stop, id) {
			continue
		}
		if sh.shy = sure < d.minP; sh.shy {
			continue
		}
		sh.next, sh.sure = append(sh.next, id), append(sh.sure, sure)
		if len(sh.next) < min(d.round.depth, sh.room()) {
			d.alive[going] = sh
			d.edits[going] = sh.of.ahead(d.edits[i], id, len(sh.of.tokens)+len(sh.next))
			going++
		}
	}
	d.alive, d.edits = d.alive[:going], d.edits[:going]
}

// settle ends a round. Where the device failed, nobody knows what the round left in open pages: those in it draft no more by this model.
func (d *drafter) settle(err error) {
	for _, sh := range d.round.all[:d.round.n] {
		switch {
		case err != nil:
			if sh.of.shadow = nil; sh.listed {
				d.free(sh)
			}
		case sh.asked:
			if sh.dared(&d.odds); d.round.trial {
				d.tries--
			}
		}
	}
	if err != nil {
		d.counts.Failed++
		d.shadows = slices.DeleteFunc(d.shadows, func(sh *shadow) bool { return !sh.listed })
	}
}

// check proves the books of the draft model's pages.
func (d *drafter) check() error {
	if d == nil {
		return nil
	}
	held := make([]*sequence, len(d.shadows))
	for i, sh := range d.shadows {
		held[i] = &sh.seq
	}
	if err := d.pool.check(held); err != nil {
		return fmt.Errorf("draft model: %w", err)
	}
	return nil
}

// counted counts what became of a part of a step that the draft model foretold.
func (d *drafter) counted(a *advance) {
	if a.modelled || a.headed {
		d.counts.Drafted += int64(len(a.draft))
		d.counts.Accepted += int64(len(a.draft) - a.rejected())
	}
}
