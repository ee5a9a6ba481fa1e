package engine

import (
	"math"
	"slices"
)

// shadow is a sequence as the draft model has it: which of its tokens have keys and values in the draft model's own cache, and what that model says
// will follow. It is of the loop's goroutine.
type shadow struct {
	of   *sequence
	seq  sequence // its tokens, as of has them, with counters and pages of the draft model's cache
	most int      // tokens that are foretold at once
	base int      // tokens that there were when next was foretold
	next []int32
	sure []float64 // how likely the draft model itself thought each of next
	odds odds

	skip   int       // of a head's: tokens of the sequence before the first that seq has; the token that is behind them is known by its hidden state
	states []float32 // of a head's: hidden states that go with tokens of seq, from the first one that is not computed on
	own    []float32 // of a head's: the hidden state that goes with the last of next

	asked  bool // the draft model looked for tokens that follow
	shy    bool // and was not sure enough of the last one
	listed bool // it is among the drafter's shadows
	headed bool // it is of a head
}

// odds are how a draft model does.
type odds struct {
	bold rate              // of the tokens that it looked for, those that it was sure enough of to have them drafted
	held rate              // of these, those that held where all before them did
	by   [sureClasses]rate // likewise, by how likely it thought them
}

// sureClasses is how many classes there are of how likely a draft model thinks a token.
const sureClasses = 5

// sureClass are up to a half, a quarter, an eighth and a sixteenth of doubt, and less.
func sureClass(sure float64) int {
	return max(0, min(int(-math.Log2(max(1-sure, 1e-6))), sureClasses-1))
}

// What is thought of a draft model that nobody has tried: well enough that it is tried.
const (
	likelyBold = 0.9
	likelyHeld = 0.8
)

// newShadow is that of a sequence whose request wants so many tokens drafted at most, 0 for as many as the drafter has. Others' odds are these.
func newShadow(q *sequence, want int, d *drafter) *shadow {
	sh := &shadow{of: q, most: d.most, seq: sequence{prompt: q.prompt, root: d.root}}
	if want > 0 {
		sh.most = min(want, sh.most)
	}
	o := &d.odds
	sh.odds = odds{bold: begun(&o.bold, likelyBold), held: begun(&o.held, likelyHeld)}
	for i := range o.by {
		sh.odds.by[i] = begun(&o.by[i], sh.odds.held.share)
	}
	if sh.headed = d.head != nil; sh.headed {
		sh.begin(0)
	}
	return sh
}

// begun is a rate that begins with others', or with a guess where there are none.
func begun(others *rate, guess float64) rate {
	if others.seen == 0 {
		return rate{share: guess, seen: 1}
	}
	return rate{share: others.share, seen: 1}
}

// sync takes in what the sequence has come to. Of what was computed ahead stays what held.
func (sh *shadow) sync() {
	tokens, held := sh.of.tokens, sh.base
	for i, id := range sh.next {
		if sh.headed || sh.base+i >= len(tokens) || tokens[sh.base+i] != id { // what a head goes on by is not what the model will have there
			break
		}
		held++
	}
	sh.seq.tokens, sh.seq.limit = tokens, sh.of.limit
	if sh.headed { // whose last row cannot be computed again without its state
		sh.seq.tokens = tokens[sh.skip+1:]
		sh.seq.computed = min(sh.seq.computed, max(0, held-sh.skip-1))
	} else {
		sh.seq.computed = min(sh.seq.computed, held, len(tokens)-1)
	}
	sh.base, sh.next, sh.sure, sh.asked, sh.shy = len(tokens), sh.next[:0], sh.sure[:0], false, false
}

// fresh says whether something is foretold of the sequence as it is.
func (sh *shadow) fresh() bool { return sh != nil && len(sh.next) > 0 && sh.base == len(sh.of.tokens) }

// lag is how many tokens the draft model has to compute before the last one, whose logits foretell the next.
func (sh *shadow) lag() int { return len(sh.seq.tokens) - 1 - sh.seq.computed }

// room is how many tokens could be drafted: none that would be the last one of the sequence, whose step has none behind it.
func (sh *shadow) room() int { return min(sh.most, sh.of.limit-len(sh.of.tokens)-1) }

// chance is how likely token i of what is foretold holds, if those before it do.
func (sh *shadow) chance(i int) float64 { return sh.odds.by[sureClass(sh.sure[i])].share }

// dared takes in of how many tokens the draft model was sure enough, for those who come later too.
func (sh *shadow) dared(all *odds) {
	for range sh.next {
		sh.odds.bold.add(true, ownWindow)
		all.bold.add(true, allWindow)
	}
	if sh.shy {
		sh.odds.bold.add(false, ownWindow)
		all.bold.add(false, allWindow)
	}
}

// judge compares what was foretold with what was chosen, likewise.
func (sh *shadow) judge(ids []int32, all *odds) {
	if len(ids) == 0 || sh.base+len(ids) != len(sh.of.tokens) {
		return // it is of an earlier step
	}
	for i, id := range ids[:min(len(ids), len(sh.next))] {
		held, class := id == sh.next[i], sureClass(sh.sure[i])
		for _, o := range []struct {
			*odds
			window int
		}{{&sh.odds, ownWindow}, {all, allWindow}} {
			o.held.add(held, o.window)
			o.by[class].add(held, o.window)
		}
		if !held {
			return
		}
	}
}

// foretold is what is foretold of a sequence: by the draft model where that was asked, else by its own text.
func (q *sequence) foretold() []int32 {
	switch {
	case q.shadow.fresh():
		return q.shadow.next
	case q.lookup != nil:
		q.lookup.find()
		return q.lookup.next
	}
	return nil
}

// chance is how likely token i of what is foretold holds, if those before it do.
func (q *sequence) chance(i int) float64 {
	if q.shadow.fresh() {
		return q.shadow.chance(i)
	}
	return q.lookup.chance(i)
}

// draftable is how many of the tokens that are foretold could be drafted: those before its end, as the tokens or its limit have it.
func (q *sequence) draftable(next []int32) int {
	next = next[:max(0, min(len(next), q.limit-len(q.tokens)-1))]
	if end := slices.IndexFunc(next, func(id int32) bool { return slices.Contains(q.stop, id) }); end >= 0 {
		return end
	}
	return len(next)
}
