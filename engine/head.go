package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/model"
)

// head is what a drafter has beside when its model is a head: a layer that foretells by the hidden states that steps of the engine's own model have
// (multi-token prediction). A row of it has the state of one token and the id of the next one, so of n tokens that are known it has n-1 rows.
//
// States are there only once, behind the step that has them. So they are fed to the shadows of all sequences that may draft, and what more than a round takes
// is digested at once: keys and values alone, which cost little. What a sequence finds in the prefix tree has no states; where the head finds
// nothing for it in its own, it begins behind.
type head struct {
	dim    int
	states []float32 // of the step in hand, rows x dim
	full   []*shadow // that have more states than a round takes
	normed []float32 // of a round's step, what follows by, one row a shadow
}

// watch reads the hidden states of a step's rows, where somebody will draft by them. Only the loop's goroutine calls it, as results.
func (d *drafter) watch(m *model.Model, step *model.Step, plan []advance) {
	if d == nil || d.head == nil || !slices.ContainsFunc(plan, func(a advance) bool { return a.seq.shadow != nil }) {
		return
	}
	h, rows := d.head, len(step.IDs)
	h.states = resize(h.states, rows*h.dim)
	model.ReadF32(m.Queue(), m.Residual(rows), h.states)
}

// feed hands out what watch read of a plan that was committed.
func (d *drafter) feed(plan []advance) {
	if d == nil || d.head == nil {
		return
	}
	h, row := d.head, 0
	for i := range plan {
		a := &plan[i]
		if q := a.seq; q.shadow != nil && len(q.pages) > 0 {
			n := a.rows - a.rejected()
			d.fed(q.shadow, q.computed-n, h.states[row*h.dim:(row+n)*h.dim])
		}
		row += a.rows
	}
}

// fed gives a shadow the states of its sequence's tokens from position from on.
func (d *drafter) fed(sh *shadow, from int, states []float32) {
	h := d.head
	if sh.sync(); from != h.next(sh) && h.next(sh) == sh.skip && sh.skip > 0 { // it lost all that it had
		d.restart(sh, 0)
	}
	if from > h.next(sh) { // others had computed what is between
		d.skim(sh)
	}
	if from > h.next(sh) {
		d.restart(sh, from)
	}
	if known := h.next(sh) - from; known > 0 { // it was computed again
		states = states[min(known*h.dim, len(states)):]
	}
	sh.states = append(sh.states, states...)
	if h.rows(sh) > nearLag+1 && !slices.Contains(h.full, sh) {
		h.full = append(h.full, sh)
	}
}

// restart has a shadow begin behind so many tokens.
func (d *drafter) restart(sh *shadow, skip int) {
	d.unlist(sh)
	sh.begin(skip)
	sh.sync()
	d.skim(sh)
}

// skim lets a shadow take what the prefix tree has for it, in place of states.
func (d *drafter) skim(sh *shadow) {
	d.pool.seal(&sh.seq)
	found := d.pool.adopt(&sh.seq) * d.head.dim
	sh.states = sh.states[:copy(sh.states, sh.states[min(found, len(sh.states)):])]
	d.list(sh)
}

// begin has a shadow begin behind so many tokens of its sequence, and with nothing computed. Its keys and values follow from those tokens too, so
// only who began with the same finds them.
func (sh *shadow) begin(skip int) {
	hash, id := sha256.New(), make([]byte, 4)
	for _, t := range sh.of.tokens[:skip+1] {
		binary.LittleEndian.PutUint32(id, uint32(t))
		hash.Write(id)
	}
	sh.skip, sh.seq.variant = skip, string(hash.Sum([]byte(sh.of.variant)))
}

// before are the hidden states that go with the next rows: n values of those that were fed, and of one token that is foretold.
func (sh *shadow) before(n int, onward bool) []float32 {
	if onward {
		return sh.own
	}
	return sh.states[:n]
}

// rows is how many rows a shadow has states for.
func (h *head) rows(sh *shadow) int { return len(sh.states) / h.dim }

// next is the first position whose state a shadow still wants.
func (h *head) next(sh *shadow) int { return sh.skip + sh.seq.computed + h.rows(sh) }

// knows says whether a shadow has all that it takes to foretell what follows its sequence, in a round.
func (h *head) knows(sh *shadow) bool {
	rows := h.rows(sh)
	return 0 < rows && rows <= nearLag+1 && rows == len(sh.seq.tokens)-sh.seq.computed
}

// went takes in that a round's step computed what shadow number i had. What follows goes on by the head's own state.
func (h *head) went(sh *shadow, i int) {
	sh.states = sh.states[:0]
	sh.own = append(sh.own[:0], h.normed[i*h.dim:(i+1)*h.dim]...)
}

// digest computes what shadows were fed beyond what a round takes, but for the last row of each, which may be asked for its logits. Where others
// generate it does so in parts that they need not notice.
func (e *Engine) digest(d *drafter) {
	if d.head == nil || len(d.head.full) == 0 {
		return
	}
	started, h := time.Now(), d.head
	e.mu.Lock()
	d.reap()
	h.full = slices.DeleteFunc(h.full, func(sh *shadow) bool { return len(sh.of.pages) == 0 || sh.of.shadow != sh })
	beside := slices.ContainsFunc(e.scheduler.running, func(q *sequence) bool { return !q.held && !q.planned && q.behind() == 1 })
	e.mu.Unlock()
	rows, err := 0, error(nil)
	for len(h.full) > 0 && err == nil && !(beside && time.Since(started) > gapTime/4) {
		n := 0
		n, err = d.bite()
		rows += n
	}
	took := time.Since(started)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil { // nobody knows what is in their open pages
		for _, sh := range h.full {
			d.lose(sh)
		}
		h.full = h.full[:0]
		d.counts.Failed++
	}
	d.total += took
	d.counts.Rows, d.counts.Seconds = d.counts.Rows+int64(rows), d.counts.Seconds+took.Seconds()
}

// bite digests as much as a step holds.
func (d *drafter) bite() (rows int, err error) {
	h, step := d.head, &d.work
	step.Reset()
	var eaten []int
	for _, sh := range h.full[:min(len(h.full), d.limits.Sequences)] {
		n := max(0, min(h.rows(sh)-1, d.limits.Rows-rows))
		if n > 0 && !d.lodge(sh, sh.seq.computed+n) {
			n = 0
		}
		if eaten = append(eaten, n); n > 0 {
			d.add(sh, n)
		}
		rows += n
	}
	if rows > 0 {
		d.model.Batch().Fill(d.model.Queue(), step)
		d.model.Absorb()
		if err = d.model.Queue().Sync(); err != nil {
			return rows, err
		}
	}
	for i, n := range eaten {
		sh := h.full[i]
		sh.states = sh.states[:copy(sh.states, sh.states[n*h.dim:])]
		sh.seq.computed += n
		d.pool.seal(&sh.seq)
	}
	h.full = slices.DeleteFunc(h.full, func(sh *shadow) bool { return h.rows(sh) <= 1 || sh.of.shadow != sh })
	return rows, nil
}

// lodge sees that a shadow has the pages of so many tokens. Who finds none drafts no more.
func (d *drafter) lodge(sh *shadow, tokens int) bool {
	for len(sh.seq.pages) < pagesOf(tokens) {
		id, _, ok := d.pool.take()
		if !ok {
			d.lose(sh)
			return false
		}
		sh.seq.pages = append(sh.seq.pages, id)
		d.list(sh)
	}
	return true
}

// lose ends drafts for a shadow's sequence.
func (d *drafter) lose(sh *shadow) {
	d.unlist(sh)
	sh.of.shadow = nil
}

// unlist takes all pages from a shadow.
func (d *drafter) unlist(sh *shadow) {
	d.shadows = slices.DeleteFunc(d.shadows, func(o *shadow) bool { return o == sh })
	d.free(sh)
}
