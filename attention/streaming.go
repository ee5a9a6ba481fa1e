package attention

import "github.com/winnow-llm/winnow/tensor"

// Attention sinks and recent keys (StreamingLLM, Xiao et al. 2024, arXiv 2309.17453), both in whole pages.
var _ = register(Kind{
	Name: "streaming", Phases: Prefill | Decode, Placed: true,
	Knob: Knob{Name: "recent", Default: 1024, Min: 0, Max: 1 << 24, What: "how many keys before its page a row reads, rounded up to pages"},
	Params: []Knob{
		{Name: "sink", Default: 64, Min: 0, Max: 1 << 20, What: "how many of the first keys are read, rounded up to pages"},
	},
	New: newStreaming,
})

func newStreaming(k *Kind, e *Env, s Setting) (*Selector, error) {
	sink := wholePages(k.param(s, "sink"))
	sel := prepared(e, Caps{ChunkAlign: 1, Fingerprint: k.fingerprint(s)}, func(layer int) tensor.Op {
		return &SelectRanges{Layout: e.Layout, Plan: e.Plan, Serves: s.Number, Sink: sink, Recent: k.knob(s, layer)}
	})
	sel.Keeps = func(layer int, knob float32) []Keep { return rangeKeeps(e, sink, turned(knob, k.knob(s, layer))) }
	return sel, nil
}
