package model

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/winnow-llm/winnow/moe"
)

// ErrAllLoaded refuses to resize the slots of a model that has none, as all of its experts are loaded.
var ErrAllLoaded = errors.New("model: all experts are loaded")

// ExpertBytes is what the slots of a model's experts take on the device; 0 where all experts are loaded. Only who steps the model may call it.
func (m *Model) ExpertBytes() (bytes int64) {
	if m.loader.resident == nil {
		return 0
	}
	for _, rm := range m.loader.resident.rooms {
		bytes += rm.bytes * int64(rm.count)
	}
	return bytes
}

// ResizeExperts gives the experts of a model so many bytes of the device's memory from now on, of which slots take whole ones, and says what these
// take. What a model computes does not depend on it, not by a bit. Slots that change hold nothing at first: memory is given back before other memory is
// asked for, so that both are never held. Only who steps the model may call it, between two steps.
//
// ErrAllLoaded: there are no slots. ErrExpertBytes: they have no room for the experts of one token. Both leave slots as they are, and so does a
// device without memory for more, as far as it has as much as before; steps fail while it has not.
func (m *Model) ResizeExperts(bytes int64) (int64, error) {
	r := m.loader.resident
	if r == nil {
		return 0, ErrAllLoaded
	}
	counts, _, err := r.shares(bytes)
	if err != nil {
		return m.ExpertBytes(), err
	}
	if err := r.queue.Sync(); err != nil { // no op may read slots that go
		return m.ExpertBytes(), err
	}
	order := make([]int, len(r.rooms))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { // those that become smaller first
		return cmp.Compare(counts[a]-r.rooms[a].count, counts[b]-r.rooms[b].count)
	})
	for _, i := range order {
		if err = r.resize(r.rooms[i], counts[i]); err != nil {
			break
		}
	}
	for _, w := range r.layers {
		w.ffn.Banks = []moe.Bank{w.room.bank()}
	}
	return m.ExpertBytes(), err
}

// resize gives a room another number of slots; what it had where that fails.
func (r *resident) resize(rm *room, count int) error {
	before := rm.count
	if count == before {
		return nil
	}
	rm.clear(r.device)
	err := rm.furnish(r.device, count)
	if err == nil {
		return nil
	}
	for _, back := range []int{before, moe.LeastSlots(rm.experts, rm.k)} {
		if back > 0 && rm.furnish(r.device, back) == nil {
			return fmt.Errorf("%d slots for experts: %w", count, err)
		}
	}
	return fmt.Errorf("no memory for slots of experts: %w", err)
}

// bank is all slots of a room.
func (rm *room) bank() moe.Bank {
	return moe.Bank{Gate: rm.stacks[0], Up: rm.stacks[1], Down: rm.stacks[2]}
}
