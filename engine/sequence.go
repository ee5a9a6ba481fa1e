package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/winnow-llm/winnow/attention"
	"github.com/winnow-llm/winnow/model"
	"github.com/winnow-llm/winnow/tensor"
)

// sequence is a request under way: three counters, 0 <= computed <= len(tokens) <= limit. What lies between computed and len(tokens)
// is what a step may let it catch up by, whether the tokens are a long prompt's, the one just sampled, or all of them after a
// preemption. Everything else follows. Guarded by its engine's mutex; the tests of the scheduler have it to themselves.
type sequence struct {
	tokens   []int32 // the prompt, then what was generated
	prompt   int     // how many of them are the prompt
	computed int     // tokens whose keys and values are in pages
	limit    int     // tokens it may come to have; the last one generated is never computed

	pages  []int32 // logical page -> page of the pool, or a row of lanes, which is below 0; at least those of the computed tokens
	lanes  *lanes  // of one that gives pages back while it runs; nil where all are kept
	sealed int     // leading pages that the prefix tree knows: full, computed and shareable
	root   int32   // of the prefix tree: sequences with different selectors share nothing

	every bool // a score: the logits of every row are wanted, and none are sampled
	seen  int  // of a score: leading tokens whose logits were handed over; of an embedding: those that are in its sum
	held  bool // of a score: its consumer has the last logits still; it does not advance

	priority int   // the lowest number goes first
	arrival  int64 // orders those of one priority

	wish    []float32     // with how few experts it makes do, see model.Spec.Wish; nil = the model's own
	policy  *model.Policy // which keys its tokens read; nil = all
	reads   *reads        // what they read; nil = all
	variant string        // for the prefix tree, what of this makes its prompt's values differ from the model's own; "" = nothing
	use     *use          // what experts did for it; nil unless somebody asked

	pooling Pooling   // an embedding: hidden states are summed, and no logits are wanted
	sum     []float32 // of an embedding: as wide as the model

	sampling     Sampling
	edits        edits
	floor        int // tokens it has before one of stop may be chosen
	alternatives int
	stop         []int32
	lookup       *lookup // foretells its tokens; nil where none are drafted
	shadow       *shadow // has a draft model foretell them; nil where there is none, or it does not for this sequence

	planned bool   // it has a part in the step in hand, so its pages are in use
	chunked bool   // planned, and in the chunk that is computed in parts
	gone    bool   // it was aborted meanwhile: the step's end releases it
	finish  Finish // why it ended; of a sequence that generates nothing, Length

	lacking   bool // pages of it that were kept outside could not be read
	preempted int  // how often it lost its pages
	cached    int  // tokens of the prompt that it found in the prefix tree
	times     times
	out       outbox
}

// times are moments of a sequence's life; zero until they come.
type times struct {
	arrived, started, first, last time.Time
	sampling                      time.Duration // of steps that chose a token of it
}

// outbox holds what a sequence has for its consumer, who takes it whenever he likes: the loop never waits for him. It cannot outgrow the
// sequence's limit.
type outbox struct {
	tokens []Token
	logits []float32     // of a score: rows x vocab, overwritten by the next step that it takes part in
	first  int           // of a score: position of row 0
	done   bool          // nothing more will come
	err    error         // why, unless it ended well
	signal chan struct{} // capacity 1: something is there
}

// newSequence makes the sequence of a request that was checked.
func newSequence(r *Request, context int) *sequence {
	return &sequence{
		tokens: slices.Clone(r.Prompt), prompt: len(r.Prompt), limit: r.limit(context),
		priority: r.Priority, sampling: r.Sampling, edits: newEdits(r), floor: len(r.Prompt) + r.MinTokens,
		alternatives: r.Alternatives, stop: slices.Clone(r.Stop), out: outbox{signal: make(chan struct{}, 1)},
	}
}

// newScore makes the sequence that computes the logits of given ids.
func newScore(s *Scoring) *sequence {
	return &sequence{
		tokens: slices.Clone(s.IDs), prompt: cmp.Or(s.Prompt, len(s.IDs)), limit: len(s.IDs), every: true, seen: s.From,
		alternatives: -1, out: outbox{signal: make(chan struct{}, 1)},
	}
}

// compare orders sequences: the lowest number of priority first, equals by arrival.
func (q *sequence) compare(o *sequence) int {
	return cmp.Or(cmp.Compare(q.priority, o.priority), cmp.Compare(q.arrival, o.arrival))
}

// before says whether it goes before the other one.
func (q *sequence) before(o *sequence) bool { return q.compare(o) < 0 }

// behind is how many tokens it has to catch up by.
func (q *sequence) behind() int { return len(q.tokens) - q.computed }

// generates says whether it has tokens to come, and is no score or embedding.
func (q *sequence) generates() bool { return q.limit > q.prompt }

// wanted is how many rows' logits are wanted when it advances by rows: the last ones of them.
func (q *sequence) wanted(rows int) int {
	switch to := q.computed + rows; {
	case q.every:
		return max(0, to-max(q.seen, q.computed))
	case to == len(q.tokens) && to < q.limit:
		return 1 // an embedding is at its limit from the beginning
	}
	return 0
}

// adoptable is how many leading tokens it may take from the prefix tree. At least one token is left to compute, since its logits
// are wanted; of a score, all those whose logits were not handed over; of a mean, all those that are not in its sum.
func (q *sequence) adoptable() int {
	if q.every || q.pooling == MeanPooling {
		return min(q.seen, q.shareable())
	}
	return min(len(q.tokens)-1, q.shareable())
}

// room is how many pages it must have to be admitted: those of its tokens and of the next one, unless that is never computed.
func (q *sequence) room() int {
	return pagesOf(min(len(q.tokens)+1, max(q.prompt, q.limit-1)))
}

// advance moves it past rows that were computed. Sampled is the id that follows, where wanted asked for one; with those that were drafted, all
// that follow. Only the last of them can end it.
func (q *sequence) advance(rows int, sampled []int32) {
	q.computed += rows
	if q.every || q.pooling == MeanPooling {
		q.seen = max(q.seen, q.computed)
	}
	for _, id := range sampled {
		q.tokens = append(q.tokens, id)
		q.count(&q.edits, id, len(q.tokens))
	}
	switch n := len(sampled); {
	case n > 0 && slices.Contains(q.stop, sampled[n-1]):
		q.finish = Stop
	case len(q.tokens) == q.limit && q.computed >= q.prompt && !(q.every && q.behind() > 0):
		q.finish = Length
	}
}

// count takes into edits that id was chosen as token number n, counted from 1.
func (q *sequence) count(e *edits, id int32, n int) {
	e.generated(id)
	if n == q.floor {
		e.lift(q.stop, q.sampling.Bias)
	}
}

// ended says whether nothing is left to do.
func (q *sequence) ended() bool { return q.finish != "" }

// draw is what fixes the choice of the token that comes behind so many further ones.
func (q *sequence) draw(ahead int) (draws [tensor.SampleDraws]int32, params [tensor.SampleParams]float32) {
	draws[tensor.SeedLow] = int32(uint32(q.sampling.Seed))
	draws[tensor.SeedHigh] = int32(uint32(q.sampling.Seed >> 32))
	draws[tensor.Position] = int32(len(q.tokens) + ahead)
	draws[tensor.Alternatives] = int32(q.alternatives)
	s := &q.sampling
	params[tensor.Temperature], params[tensor.TopK], params[tensor.MinP] = s.Temperature, float32(s.TopK), s.MinP
	params[tensor.TopP], params[tensor.TypicalP] = cmp.Or(s.TopP, 1), cmp.Or(s.TypicalP, 1)
	params[tensor.Repetition], params[tensor.Presence], params[tensor.Frequency] = cmp.Or(s.Repetition, 1), s.Presence, s.Frequency
	return draws, params
}

// deliver puts what a step brought into the outbox: row and the following ones of the device's results, for its part a.
func (q *sequence) deliver(a advance, out *result, row int, now time.Time) {
	switch {
	case q.out.done: // the consumer left while the device worked
		return
	case a.want == 0:
	case q.every:
		q.out.first = q.seen - a.want
		q.ready()
	default:
		if q.times.first.IsZero() {
			q.times.first = now
		}
		q.times.last = now
		q.times.sampling += out.sampling
		for i := range a.got {
			q.out.tokens = append(q.out.tokens, q.token(&a, i, out, row+i))
		}
		q.ready()
	}
	if q.ended() {
		if q.times.first.IsZero() {
			q.times.first, q.times.last = now, now
		}
		q.close(nil)
	}
}

// token is one of those that its part a of a step brought the sequence, with what the device says of the row it was sampled from.
func (q *sequence) token(a *advance, i int, out *result, row int) Token {
	at := len(q.tokens) - a.got + i
	t := Token{ID: q.tokens[at], Position: at, Drafted: i < len(a.draft)-a.rejected(), ByModel: a.modelled, ByHead: a.headed}
	if i == a.got-1 {
		t.Finish, t.Rejected = q.finish, a.rejected()
	}
	if q.alternatives >= 0 {
		probs := out.probs[row*(1+model.MostAlternatives):]
		t.Logprob = probs[0]
		for i, id := range out.best[row*model.MostAlternatives:][:q.alternatives] {
			t.Best = append(t.Best, Alternative{id, probs[1+i]})
		}
	}
	if at == q.prompt || t.Finish != "" || q.use != nil || q.reads != nil {
		t.Stats = q.stats()
		t.Stats.Generated = at + 1 - q.prompt
	}
	return t
}

// ready tells the consumer that there is something for him.
func (q *sequence) ready() {
	select {
	case q.out.signal <- struct{}{}:
	default: // he was told and has not come yet
	}
}

// close says that nothing more will come, for err or because all is done. What is in the outbox stays there.
func (q *sequence) close(err error) {
	if !q.out.done {
		q.out.done, q.out.err = true, err
		q.ready()
	}
}

// pagesOf is how many pages hold so many tokens.
func pagesOf(tokens int) int { return (tokens + attention.PageTokens - 1) / attention.PageTokens }
