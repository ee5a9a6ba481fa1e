package engine

import (
	"math"
	"slices"

	"github.com/winnow-llm/winnow/model"
)

// edits are the ids whose logits a sequence's sampling changes: those that it saw or generated, under penalties, and those with a bias.
// A penalty remembers model.MostEdits ids, less those with a bias; after that a new id takes the place of the one that was there longest.
type edits struct {
	list   []model.Edit
	at     map[int32]int // id -> its place in list
	fixed  int           // leading edits that no other id replaces
	oldest int           // place of the edit to be replaced next
	seen   bool          // the penalty for repetition is on: ids of the prompt count
	count  bool          // one of the others is on: generated ids count
}

// newEdits are those that a request begins with. Its stop ids are banned until lift.
func newEdits(r *Request) edits {
	s := &r.Sampling
	e := edits{at: map[int32]int{}, seen: s.Repetition != 0 && s.Repetition != 1, count: s.Presence != 0 || s.Frequency != 0}
	for _, b := range s.Bias {
		e.edit(b.ID).Bias += b.Add
	}
	if r.MinTokens > 0 {
		for _, id := range r.Stop {
			e.edit(id).Bias = float32(math.Inf(-1))
		}
	}
	e.fixed = len(e.list)
	e.oldest = e.fixed
	if e.seen {
		for _, id := range r.Prompt {
			e.edit(id).Seen = true
		}
	}
	return e
}

// generated counts an id that was chosen.
func (e *edits) generated(id int32) {
	if e.seen || e.count {
		it := e.edit(id)
		it.Seen = true
		it.Count++
	}
}

// lift takes the ban from the stop ids; what else was asked for them holds from now on.
func (e *edits) lift(stop []int32, bias []Bias) {
	for _, id := range stop {
		e.edit(id).Bias = 0
	}
	for _, b := range bias {
		if slices.Contains(stop, b.ID) {
			e.edit(b.ID).Bias += b.Add
		}
	}
}

// edit is the id's edit, a new one where it has none.
func (e *edits) edit(id int32) *model.Edit {
	i, ok := e.at[id]
	switch {
	case ok:
		return &e.list[i]
	case len(e.list) < model.MostEdits:
		i = len(e.list)
		e.list = append(e.list, model.Edit{ID: id})
	default:
		i = e.oldest
		delete(e.at, e.list[i].ID)
		e.list[i] = model.Edit{ID: id}
		if e.oldest++; e.oldest == len(e.list) {
			e.oldest = e.fixed
		}
	}
	e.at[id] = i
	return &e.list[i]
}
