package engine

import (
	"maps"
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
	window window        // of the penalty for repetition, where it looks at the last tokens only
}

// clone is a copy that has nothing in common with it.
func (e *edits) clone() *edits {
	c := *e
	c.list, c.at = slices.Clone(e.list), maps.Clone(e.at)
	c.window.ids, c.window.times = slices.Clone(e.window.ids), maps.Clone(e.window.times)
	return &c
}

// window is the last tokens of a sequence.
type window struct {
	size  int // 0 = all are looked at, and none is remembered here
	ids   []int32
	times map[int32]int // how often each is among them
}

// push adds an id and returns the one that falls out for good, -1 if none does.
func (w *window) push(id int32) int32 {
	w.ids = append(w.ids, id)
	w.times[id]++
	if len(w.ids) <= w.size {
		return -1
	}
	gone := w.ids[0]
	w.ids = w.ids[1:]
	if w.times[gone]--; w.times[gone] > 0 {
		return -1
	}
	delete(w.times, gone)
	return gone
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
		prompt := r.Prompt
		if s.RepeatLast > 0 {
			e.window = window{size: s.RepeatLast, times: map[int32]int{}}
			prompt = prompt[max(0, len(prompt)-s.RepeatLast):]
		}
		for _, id := range prompt {
			e.see(id)
		}
	}
	return e
}

// see marks an id for the penalty for repetition, and takes the mark from the one that falls out of the window.
func (e *edits) see(id int32) *model.Edit {
	if e.window.size > 0 {
		if gone := e.window.push(id); gone >= 0 {
			e.forget(gone)
		}
	}
	it := e.edit(id)
	it.Seen = true
	return it
}

// forget takes the mark from an id. Its edit goes where it says nothing else, so that the list has room for those in the window.
func (e *edits) forget(id int32) {
	i, ok := e.at[id]
	if !ok {
		return
	}
	e.list[i].Seen = false
	if i < e.fixed || e.count {
		return
	}
	last := len(e.list) - 1
	e.list[i] = e.list[last]
	e.at[e.list[i].ID] = i
	e.list = e.list[:last]
	delete(e.at, id)
	if e.oldest >= last {
		e.oldest = e.fixed
	}
}

// generated counts an id that was chosen.
func (e *edits) generated(id int32) {
	switch {
	case e.seen:
		e.see(id).Count++
	case e.count:
		e.edit(id).Count++
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
