package moe

import (
	"fmt"
	"math"
	"slices"
)

// Slots says which experts of a model's layers are in memory, where there is room for only some of them. It is bookkeeping alone: what a slot
// is, memory of the host or of an accelerator, and how an expert gets there is its caller's affair.
//
// Each layer has a share of the slots of its own, since tokens come by all layers in turn and one order of use for all of them would forget
// each expert just before it is needed again. Within a layer the least recently used expert makes room; where the share is so small that
// recency says little, the least used one, older uses counting less. Shares begin equal and follow what they bring: see rebalance.
//
// A few slots more are a passage that no layer owns. Experts of a step that touches more of them than the layer's share can hold go through it in
// waves, and leave what the layer has as it is: a long prompt would replace all of it by what its last tokens needed.
type Slots struct {
	layers  []slotted
	passage []int32 // slots
	calls   int64   // of Resolve
}

// slotted is a layer's part.
type slotted struct {
	clock  int64        // steps that came by
	k      int          // experts a token: the least share
	slot   []int32      // physical expert -> slot, -1 = not there
	held   []occupation // one a slot of its share
	ghosts []int32      // experts that went last, the oldest first; at most as many as held
	near   int64        // since shares were compared: experts that were there, and would not be with a slot fewer
	missed int64        // ... and those that would be with more slots
}

// occupation is what a slot is used for.
type occupation struct {
	slot   int32
	expert int32 // -1 = none
	used   int64 // the layer's clock at its last use
	count  float64
}

// Numbers of Slots' policy.
const (
	slotPassage   = 8    // slots of the passage
	slotRebalance = 4096 // steps between two looks at the shares
	slotHalfLife  = 64   // steps after which a use counts half, where shares are small
)

// NewSlots divides slots among layers of so many physical experts, of which a token takes k. LeastSlots says how many there must be.
func NewSlots(experts, k []int, slots int) (*Slots, error) {
	if least := LeastSlots(experts, k); slots < least {
		return nil, fmt.Errorf("moe: %d slots for experts of %d layers, want %d at least", slots, len(experts), least)
	}
	s := &Slots{layers: make([]slotted, len(experts))}
	share := make([]int, len(experts))
	left := slots - passageOf(experts)
	for i := range experts {
		share[i] = min(k[i], experts[i])
		left -= share[i]
	}
	for given := true; left > 0 && given; {
		given = false
		for i := range share {
			if left > 0 && share[i] < experts[i] {
				share[i]++
				left--
				given = true
			}
		}
	}
	next := int32(0)
	take := func() int32 { next++; return next - 1 }
	for range passageOf(experts) {
		s.passage = append(s.passage, take())
	}
	for i := range s.layers {
		l := &s.layers[i]
		l.k, l.slot = min(k[i], experts[i]), slices.Repeat([]int32{-1}, experts[i])
		for range share[i] {
			l.held = append(l.held, occupation{slot: take(), expert: -1})
		}
	}
	return s, nil
}

// LeastSlots is how many slots such layers need: those of a token in each layer, and a passage.
func LeastSlots(experts, k []int) int {
	sum := passageOf(experts)
	for i := range experts {
		sum += min(k[i], experts[i])
	}
	return sum
}

func passageOf(experts []int) int { return min(slotPassage, slices.Max(append([]int{0}, experts...))) }

// Fill is an expert that is to be brought to a slot.
type Fill struct{ Expert, Slot int32 }

// Resolution is where the experts are that a layer needs for a step. They come in waves, of which each may use slots of the one before.
type Resolution struct {
	Waves []Wave
	Hits  int // experts that were there
}

// Wave is experts that are in memory together: Slot has the slot of each physical expert that is to run, -1 = not now; Fills must be done before.
type Wave struct {
	Slot  []int32
	Fills []Fill
}

// Resolve says where a layer's experts are, which must be different ones. What it says is true until the next call for the layer, or the next
// Resolve at all where there are several waves; no expert may then be running.
func (s *Slots) Resolve(layer int, need []int32) Resolution {
	l := &s.layers[layer]
	s.calls++
	l.clock++
	var r Resolution
	first := Wave{Slot: slices.Repeat([]int32{-1}, len(l.slot))}
	var missing []int32
	for _, e := range need {
		if at := l.slot[e]; at >= 0 {
			first.Slot[e] = at
			r.Hits++
		} else {
			missing = append(missing, e)
		}
	}
	if len(need) <= len(l.held) {
		l.touch(need)
		for _, e := range missing {
			at := l.replace(e, first.Slot)
			first.Slot[e] = at
			first.Fills = append(first.Fills, Fill{e, at})
		}
		missing = nil
	} else {
		missing = l.settle(missing, &first)
	}
	if len(need) > 0 && (r.Hits > 0 || len(first.Fills) > 0) {
		r.Waves = append(r.Waves, first)
	}
	for part := range slices.Chunk(missing, max(1, len(s.passage))) {
		w := Wave{Slot: slices.Repeat([]int32{-1}, len(l.slot))}
		for i, e := range part {
			w.Slot[e] = s.passage[i]
			w.Fills = append(w.Fills, Fill{e, s.passage[i]})
		}
		r.Waves = append(r.Waves, w)
	}
	if s.calls%int64(slotRebalance*len(s.layers)) == 0 {
		s.rebalance()
	}
	return r
}

// settle gives free slots of a layer to experts of a step that touches too many, and gives those that are left.
func (l *slotted) settle(missing []int32, w *Wave) []int32 {
	for i := range l.held {
		if h := &l.held[i]; h.expert < 0 && len(missing) > 0 {
			e := missing[0]
			missing = missing[1:]
			*h = occupation{h.slot, e, l.clock, 1}
			l.slot[e], w.Slot[e] = h.slot, h.slot
			w.Fills = append(w.Fills, Fill{e, h.slot})
		}
	}
	return missing
}

// touch notes the use of experts that are there, and what a slot fewer would have cost.
func (l *slotted) touch(need []int32) {
	if v := l.victim(nil); v >= 0 && slices.Contains(need, l.held[v].expert) {
		l.near++
	}
	for i := range l.held {
		if h := &l.held[i]; h.expert >= 0 && slices.Contains(need, h.expert) {
			h.count = 1 + h.count*math.Exp2(-float64(l.clock-h.used)/slotHalfLife)
			h.used = l.clock
		}
	}
}

// replace gives an expert the slot of the one that is worth least, of those that the step does not need.
func (l *slotted) replace(e int32, needed []int32) int32 {
	h := &l.held[l.victim(needed)]
	if h.expert >= 0 {
		l.slot[h.expert] = -1
		l.ghosts = append(l.ghosts, h.expert)
		l.ghosts = l.ghosts[max(0, len(l.ghosts)-len(l.held)):]
	}
	if at := slices.Index(l.ghosts, e); at >= 0 {
		l.missed++
		l.ghosts = slices.Delete(l.ghosts, at, at+1)
	}
	*h = occupation{h.slot, e, l.clock, 1}
	l.slot[e] = h.slot
	return h.slot
}

// victim is the place in held that is free or worth least; needed has a slot for each expert that must stay.
func (l *slotted) victim(needed []int32) int {
	least, at := math.Inf(1), -1
	for i := range l.held {
		h := &l.held[i]
		worth := float64(h.used)
		switch {
		case h.expert < 0:
			return i
		case needed != nil && needed[h.expert] >= 0:
			continue
		case len(l.held) <= 2*l.k:
			worth = h.count * math.Exp2(-float64(l.clock-h.used)/slotHalfLife)
		}
		if worth < least {
			least, at = worth, i
		}
	}
	return at
}

// rebalance moves a slot from the layer that would miss it least to the one that would gain most, and forgets what both are judged by.
func (s *Slots) rebalance() {
	from, to := -1, -1
	for i := range s.layers {
		l := &s.layers[i]
		if len(l.held) > l.k && (from < 0 || l.near < s.layers[from].near) {
			from = i
		}
		if len(l.held) < len(l.slot) && (to < 0 || l.missed > s.layers[to].missed) {
			to = i
		}
	}
	if from >= 0 && to >= 0 && from != to && s.layers[to].missed > s.layers[from].near {
		l := &s.layers[from]
		v := l.victim(nil)
		h := l.held[v]
		if h.expert >= 0 {
			l.slot[h.expert] = -1
		}
		l.held = slices.Delete(l.held, v, v+1)
		s.layers[to].held = append(s.layers[to].held, occupation{slot: h.slot, expert: -1})
	}
	for i := range s.layers {
		s.layers[i].near, s.layers[i].missed = 0, 0
	}
}

// Forget says that a slot holds nothing after all: what was to be brought there did not come.
func (s *Slots) Forget(layer int, f Fill) {
	l := &s.layers[layer]
	for i := range l.held {
		if h := &l.held[i]; h.slot == f.Slot && h.expert == f.Expert {
			h.expert, l.slot[f.Expert] = -1, -1
		}
	}
}

// Holds says whether an expert of a layer is in memory.
func (s *Slots) Holds(layer int, expert int32) bool { return s.layers[layer].slot[expert] >= 0 }

// Share is how many slots a layer has.
func (s *Slots) Share(layer int) int { return len(s.layers[layer].held) }

// Check says what is wrong with the books: a slot that two own, or an expert that is not where it is said to be.
func (s *Slots) Check() error {
	owners := map[int32]bool{}
	for _, slot := range s.passage {
		owners[slot] = true
	}
	for i := range s.layers {
		l := &s.layers[i]
		there := 0
		for _, h := range l.held {
			if owners[h.slot] {
				return fmt.Errorf("moe: slot %d has two owners, one of them layer %d", h.slot, i)
			}
			owners[h.slot] = true
			if h.expert < 0 {
				continue
			}
			if there++; l.slot[h.expert] != h.slot {
				return fmt.Errorf("moe: layer %d: slot %d holds expert %d, which is said to be in %d", i, h.slot, h.expert, l.slot[h.expert])
			}
		}
		for _, slot := range l.slot {
			if slot >= 0 {
				there--
			}
		}
		if there != 0 || len(l.held) < l.k {
			return fmt.Errorf("moe: layer %d: %d experts too many are said to be there, %d slots", i, -there, len(l.held))
		}
	}
	return nil
}
