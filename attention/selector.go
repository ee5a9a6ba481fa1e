package attention

import (
	"github.com/winnow-llm/winnow/tensor"
)

// Caps are the fixed facts about a selector that the scheduler and the prefix cache need.
type Caps struct {
	ChunkAlign  int    // prefill chunks start at a multiple of it
	Fingerprint string // selector and parameters: part of the key under which pages are shared, since it changes what deeper layers cache
}

// Selector writes the plan: which keys each row reads. It owns its plan and whatever it keeps beside the pages. One selector serves
// all layers of a kind, and its ops are prepared once.
type Selector interface {
	Caps() Caps
	Plan() *Plan
	Append(layer int) []tensor.Op // keep sidecars up to date
	Select(layer int) []tensor.Op // fill the plan
}

// Full reads every key.
type Full struct{ plan *Plan }

// NewFull prepares the selector for batches of at most rows rows. Its plan is all zeros, for ever: no sink, local from key 0.
func NewFull(d tensor.Device, rows int) (*Full, error) {
	p, err := NewRangePlan(d, rows)
	if err != nil {
		return nil, err
	}
	return &Full{p}, nil
}

// Caps allows any chunk.
func (s *Full) Caps() Caps { return Caps{ChunkAlign: 1, Fingerprint: "full"} }

// Plan is one range.
func (s *Full) Plan() *Plan { return s.plan }

// Append has nothing to keep.
func (s *Full) Append(int) []tensor.Op { return nil }

// Select has nothing to do.
func (s *Full) Select(int) []tensor.Op { return nil }
