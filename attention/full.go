package attention

import "github.com/winnow-llm/winnow/tensor"

// NewFull is the selector that reads every key, for batches of at most rows rows. Its plan is all zeros, for ever.
func NewFull(d tensor.Device, rows int) (*Selector, error) {
	p, err := NewRangePlan(d, rows)
	if err != nil {
		return nil, err
	}
	return &Selector{Caps: Caps{ChunkAlign: 1, Fingerprint: "full"}, Plan: p}, nil
}

var _ = register(Kind{
	Name: "full", Phases: Prefill | Decode,
	New: func(_ *Kind, e *Env, s Setting) (*Selector, error) {
		return prepared(e, Caps{ChunkAlign: 1, Fingerprint: "full"}, func(int) tensor.Op {
			return &SelectRanges{Layout: e.Layout, Plan: e.Plan, Serves: s.Number, Recent: float32(e.Context)}
		}), nil
	},
})
